//! Where settings come from, what is saved of them, and what has changed when the configuration is read again.
//!
//! The command line wins over what METP has saved, that over the configuration file, and that over the default. What METP
//! changes is in force until the server ends, or until a configuration that is read again says otherwise.

use std::collections::{BTreeMap, HashMap};

use super::knobs::{KNOBS, Knob, Source};
use super::settings::Settings;

/// Settings whose default is computed at the start: what the file does not say of them any more, takes a restart.
const COMPUTED: [&str; 2] = ["max-connections", "buffer-memory"];

/// What the command line and the configuration file say.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The settings; defaults where nothing is said.
    pub settings: Settings,
    /// Where they come from; those that are missing have their defaults.
    pub sources: HashMap<&'static str, Source>,
    /// Options that are not what they were at the start, and take a restart.
    pub restart: Vec<String>,
}

/// Where the settings that are in force come from.
#[derive(Debug, Default)]
pub struct Configuration {
    /// What was read last.
    reading: Reading,
    /// Where what is in force comes from, if it is not the default.
    sources: HashMap<&'static str, Source>,
    /// What METP has saved.
    saved: BTreeMap<&'static str, String>,
}

impl Reading {
    /// Where a setting comes from.
    fn source(&self, key: &str) -> Source {
        self.sources.get(key).copied().unwrap_or(Source::Default)
    }
}

impl Configuration {
    /// What is in force at the start: what was read, and over it what has been saved. Returns what cannot be used of that,
    /// too.
    pub fn new(
        reading: Reading,
        saved: Vec<(String, String)>,
        settings: &mut Settings,
    ) -> (Self, Vec<String>) {
        let sources = reading.sources.clone();
        let mut configuration = Configuration { reading, sources, saved: BTreeMap::new() };
        let mut faults = Vec::new();
        for (key, value) in saved {
            let Some(knob) = Knob::find(key.as_bytes()) else {
                faults.push(format!("settings: there is no {key}"));
                continue;
            };
            let mut tried = settings.clone();
            if let Err(range) = knob.set(&mut tried, &value) {
                faults.push(format!("settings: {}", knob.refusal(&range)));
                continue;
            }
            configuration.saved.insert(knob.key, value);
            if configuration.reading.source(knob.key) != Source::Option {
                *settings = tried;
                configuration.sources.insert(knob.key, Source::Saved);
            }
        }
        (configuration, faults)
    }

    /// Where a setting comes from.
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).copied().unwrap_or(Source::Default)
    }

    /// METP has changed a setting.
    pub fn changed(&mut self, key: &'static str) {
        self.sources.insert(key, Source::Runtime);
    }

    /// What is saved, with these settings as well.
    pub fn with(&self, more: &[(&'static str, String)]) -> BTreeMap<&'static str, String> {
        let mut saved = self.saved.clone();
        saved.extend(more.iter().cloned());
        saved
    }

    /// Settings have been saved.
    pub fn saved(&mut self, more: Vec<(&'static str, String)>) {
        for (key, value) in more {
            // On the command line it still wins after a restart.
            if self.reading.source(key) != Source::Option {
                self.sources.insert(key, Source::Saved);
            }
            self.saved.insert(key, value);
        }
    }

    /// The configuration has been read again. Returns the settings that are others now, with their values.
    pub fn read_again(
        &mut self,
        news: Reading,
        settings: &mut Settings,
    ) -> Vec<(&'static str, String)> {
        let mut changed = Vec::new();
        for knob in &KNOBS {
            let key = knob.key;
            let (before, now) = (self.reading.source(key), news.source(key));
            let governed = self.saved.contains_key(key) || now == Source::Option;
            let computed = now == Source::Default && COMPUTED.contains(&key);
            // What the file does not say, and did not say before, is left alone.
            let says =
                now == Source::File || (before == Source::File && self.source(key) == before);
            if governed || computed || !says {
                continue;
            }
            let value = knob.get(&news.settings);
            if now == Source::File {
                self.sources.insert(key, now);
            } else {
                self.sources.remove(key);
            }
            if value != knob.get(settings) && knob.set(settings, &value).is_ok() {
                changed.push((key, value));
            }
        }
        if self.reading.settings.trust.networks() != news.settings.trust.networks() {
            settings.trust.replace(news.settings.trust.networks());
            changed.push(("trust", news.settings.trust.networks().len().to_string()));
        }
        self.reading = news;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(keys: &[(&'static str, &str, Source)]) -> Reading {
        let mut reading = Reading::default();
        for (key, value, source) in keys {
            let knob = Knob::find(key.as_bytes()).expect("a setting");
            knob.set(&mut reading.settings, value).expect("in range");
            reading.sources.insert(knob.key, *source);
        }
        reading
    }

    /// Key, value and source of what is in force.
    fn shown(configuration: &Configuration, settings: &Settings, key: &str) -> (String, Source) {
        let knob = Knob::find(key.as_bytes()).expect("a setting");
        (knob.get(settings), configuration.source(key))
    }

    #[test]
    fn the_command_line_wins_over_saved_and_saved_over_the_file() {
        let read = reading(&[
            ("grace", "5", Source::Option),
            ("dns-queue", "5", Source::File),
            ("udp-log", "5", Source::File),
        ]);
        let mut settings = read.settings.clone();
        let saved = [
            ("grace", "6"),
            ("dns-queue", "6"),
            ("idle-timeout", "6"),
            ("no", "1"),
            ("linger-timeout", "x"),
        ];
        let saved = saved.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let (configuration, faults) = Configuration::new(read, saved, &mut settings);
        for (key, value, source) in [
            ("grace", "5", Source::Option),
            ("dns-queue", "6", Source::Saved),
            ("udp-log", "5", Source::File),
            ("idle-timeout", "6", Source::Saved),
            ("linger-timeout", "5", Source::Default),
        ] {
            assert_eq!(shown(&configuration, &settings, key), (value.to_owned(), source), "{key}");
        }
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn a_file_that_is_read_again_wins_over_what_was_changed_meanwhile() {
        let read = reading(&[
            ("grace", "5", Source::File),
            ("udp-log", "5", Source::File),
            ("dns-queue", "5", Source::Option),
        ]);
        let mut settings = read.settings.clone();
        let (mut configuration, _) = Configuration::new(read, Vec::new(), &mut settings);
        for key in ["grace", "idle-timeout", "keepalive", "dns-queue"] {
            let knob = Knob::find(key.as_bytes()).expect("a setting");
            knob.set(&mut settings, "99").expect("in range");
            configuration.changed(knob.key);
        }
        configuration.saved(vec![("keepalive", "99".to_owned())]);
        let news = reading(&[
            ("grace", "5", Source::File),
            ("keepalive", "7", Source::File),
            ("dns-queue", "5", Source::Option),
        ]);
        let changed = configuration.read_again(news, &mut settings);
        assert_eq!(changed, [("grace", "5".to_owned()), ("udp-log", "16".to_owned())]);
        for (key, value, source) in [
            ("grace", "5", Source::File),
            ("udp-log", "16", Source::Default),
            ("idle-timeout", "99", Source::Runtime),
            ("keepalive", "99", Source::Saved),
            ("dns-queue", "99", Source::Runtime),
        ] {
            assert_eq!(shown(&configuration, &settings, key), (value.to_owned(), source), "{key}");
        }
        // Nothing is new.
        let same = reading(&[
            ("grace", "5", Source::File),
            ("keepalive", "7", Source::File),
            ("dns-queue", "5", Source::Option),
        ]);
        assert!(configuration.read_again(same, &mut settings).is_empty());
    }
}
