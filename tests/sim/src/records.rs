//! Lines and bodies made of pairs (METP §3.4, §5): whatever comes is read, and what is read is written as the
//! protocol has it.

use metp_protocol::key::{MetpKey, pairs};
use metp_protocol::{
    AuthEvent, Capabilities, CloseEvent, ConnectionLine, Event, Info, LogEvent, LogWords,
    MetricsEvent, OpenEvent, SettingLine, Topic, UsageLine, seconds,
};

/// Each record reads the text, and writes all its keys in their order. What it has written it reads as what it
/// wrote: nothing is added or lost, whatever was missing or odd at first.
pub fn metp_records(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for line in text.split('\n') {
        written_again(line, &UsageLine::KEYS, |line| UsageLine::parse(line).to_string());
        written_again(line, &ConnectionLine::KEYS, |line| ConnectionLine::parse(line).to_string());
        written_again(line, &SettingLine::KEYS, |line| SettingLine::parse(line).to_string());
        written_again(line, &OpenEvent::KEYS, |line| OpenEvent::parse(line).to_string());
        written_again(line, &CloseEvent::KEYS, |line| CloseEvent::parse(line).to_string());
        written_again(line, &LogEvent::KEYS, |line| LogEvent::parse(line).to_string());
        written_again(line, &MetricsEvent::KEYS, |line| MetricsEvent::parse(line).to_string());
        written_again(line, &AuthEvent::KEYS, |line| AuthEvent::parse(line).to_string());
        values(line);
        event(line);
        let words = LogWords::parse(line);
        assert!(line.contains(words.user) && !words.bytes.contains(' '));
    }
    let capabilities = |text: &str| Capabilities::parse(text.split('\n')).to_string();
    body_again(&text, &Capabilities::KEYS, capabilities);
    body_again(&text, &Info::KEYS, |text| Info::parse(text.split('\n')).to_string());
}

fn written_again(line: &str, keys: &[MetpKey], rewrite: impl Fn(&str) -> String) {
    let written = rewrite(line);
    assert_eq!(rewrite(&written), written, "{line:?}");
    let names: Vec<&str> = pairs(&written).map(|(name, _)| name).collect();
    assert_eq!(names, keys.iter().map(|key| key.name).collect::<Vec<_>>());
    let later = format!("later-key=1 {line}");
    assert_eq!(rewrite(&later), written, "a key of a later version changed something");
}

fn body_again(text: &str, keys: &[MetpKey], rewrite: impl Fn(&str) -> String) {
    let written = rewrite(text);
    assert_eq!(rewrite(&written), written, "{text:?}");
    let names: Vec<&str> =
        written.split('\n').filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert_eq!(names, keys.iter().map(|key| key.name).collect::<Vec<_>>());
}

/// A value is what stands behind its key, and a number is digits.
fn values(line: &str) {
    for (name, _) in pairs(line) {
        let Some(key) = MetpKey::find(name) else { continue };
        if let Some(value) = key.of(line) {
            assert!(value != "-" && line.contains(&format!("{key}={value}")), "{line:?}");
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            assert_eq!(key.digits(line), Some(value).filter(|_| digits));
        }
    }
    for (_, value) in pairs(line) {
        let plain = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        assert!(plain || seconds(value).is_none(), "{value:?} is no time");
    }
}

fn event(line: &str) {
    let (topic, rest) = line.split_once(' ').unwrap_or((line, ""));
    let Some(event) = Event::parse(topic, rest) else { return };
    assert_eq!(event.topic().map_or("lost", Topic::word), topic);
    let written = event.to_string();
    let (topic, rest) = written.split_once(' ').expect("a topic and pairs");
    assert_eq!(Event::parse(topic, rest).map(|event| event.to_string()), Some(written.clone()));
}
