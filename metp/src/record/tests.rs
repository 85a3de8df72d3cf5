//! What is written is read again, for every record, and the other way round.

use proptest::prelude::*;

use super::*;
use crate::key::ValueForm;
use crate::{Event, Topic};

/// A value of this form, as a server writes it.
fn value(form: ValueForm) -> BoxedStrategy<String> {
    match form {
        ValueForm::Text | ValueForm::Setting => prop::collection::vec(any::<u8>(), 0..80)
            .prop_map(|octets| Field::name(&octets).to_string())
            .boxed(),
        ValueForm::Line => "[ -~]{1,200}".prop_map(|line| Field::text(&line).to_string()).boxed(),
        ValueForm::List => prop::collection::vec("[A-Z_-]{1,9}", 1..40)
            .prop_map(|words| Field::list(words.iter().map(String::as_str)).to_string())
            .boxed(),
        ValueForm::Count | ValueForm::Octets => {
            any::<u64>().prop_map(|number| number.to_string()).boxed()
        }
        ValueForm::Millis => (0..100_000_000_u32, 0..1000_u32)
            .prop_map(|(seconds, part)| format!("{seconds}.{part:03}"))
            .boxed(),
        ValueForm::Micros => (0..1000_u32, 0..1_000_000_u32)
            .prop_map(|(seconds, part)| format!("{seconds}.{part:06}"))
            .boxed(),
    }
}

/// A line or body with these keys; pairs have `separator` between them.
fn text(keys: &[MetpKey], separator: &'static str) -> impl Strategy<Value = String> + use<> {
    let pair = |key: &MetpKey| {
        let name = key.name;
        value(key.form).prop_map(move |value| format!("{name}={value}"))
    };
    keys.iter().map(pair).collect::<Vec<_>>().prop_map(move |pairs| pairs.join(separator))
}

/// Beginnings and ends of a text, as of a line that was cut, are read as what is left of it.
fn cut(text: &str) -> impl Iterator<Item = &str> {
    let ends = (0..text.len()).step_by(text.len().div_ceil(16).max(1));
    ends.filter_map(|end| text.split_at_checked(end)).flat_map(|(head, tail)| [head, tail])
}

macro_rules! lines_survive {
    ($($test:ident: $record:ident;)+) => {
        proptest! {
            #![proptest_config(support::property::config(64))]
            $(
                #[test]
                fn $test(line in text(&$record::KEYS, " ")) {
                    let record = $record::parse(&line);
                    prop_assert_eq!(record.to_string(), &line[..]);
                    let later = format!("{line} later-key=1 word");
                    prop_assert_eq!($record::parse(&later), record);
                    for part in cut(&line) {
                        let written = $record::parse(part).to_string();
                        prop_assert_eq!($record::parse(&written).to_string(), written);
                    }
                }
            )+
        }
    };
}

lines_survive! {
    usage_lines: UsageLine;
    connection_lines: ConnectionLine;
    setting_lines: SettingLine;
    open_events: OpenEvent;
    close_events: CloseEvent;
    log_events: LogEvent;
    metrics_events: MetricsEvent;
    auth_events: AuthEvent;
    rules_survive: RuleLine;
    verdicts_survive: VerdictLine;
}

macro_rules! bodies_survive {
    ($($test:ident: $record:ident;)+) => {
        proptest! {
            #![proptest_config(support::property::config(64))]
            $(
                #[test]
                fn $test(body in text(&$record::KEYS, "\n")) {
                    let record = $record::parse(body.lines());
                    prop_assert_eq!(record.to_string(), &body[..]);
                    prop_assert_eq!(record.lines(), format!("{body}\n"));
                    let later = format!("later-key=1\n{body}\nword");
                    prop_assert_eq!($record::parse(later.lines()), record);
                    for part in cut(&body) {
                        let written = $record::parse(part.lines()).to_string();
                        prop_assert_eq!($record::parse(written.lines()).to_string(), written);
                    }
                }
            )+
        }
    };
}

bodies_survive! {
    capabilities: Capabilities;
    info: Info;
}

#[test]
fn an_event_is_its_topic_and_its_pairs() {
    let who = "id=17.3 user=amy source=[::1]:5 destination=x:80";
    let outcome = "up=1 down=2 duration=0.500 reason=finished";
    for (topic, pairs) in [
        ("connections", format!("event=open {who} rule=-")),
        ("connections", format!("event=close {who} {outcome} rule=7")),
        ("logs", format!("time=2025-06-28T14:32:10Z {} reply=0 {outcome} rule=7", &who[8..])),
        ("metrics", "time=2025-06-28T14:32:10Z accepted=3 connections=2 up=1 down=0".to_owned()),
        ("auth", "service=metp user=- source=[::1]:5 result=failed".to_owned()),
        ("lost", "count=17".to_owned()),
    ] {
        let event = Event::parse(topic, &pairs).expect("an event");
        assert_eq!(event.topic().map_or("lost", Topic::word), topic);
        assert_eq!(event.to_string(), format!("{topic} {pairs}"));
    }
    for (topic, pairs) in [("connections", "event=moved id=1.1"), ("connections", ""), ("", "")] {
        assert_eq!(Event::parse(topic, pairs), None, "{topic} {pairs}");
    }
    assert_eq!(Event::parse("lost", "count=x"), Some(Event::Lost(0)));
}

/// The first of several values counts, wherever it stands; what is no value of its form counts as none.
#[test]
fn odd_values_are_none_or_zero() {
    let line = ConnectionLine::parse("down=5 age=1e3 up=-1 id= down=6 user=- idle=inf peer");
    assert_eq!((line.down, line.up, line.age, line.idle), (5, 0, Duration::ZERO, Duration::ZERO));
    assert_eq!((line.id.as_str(), line.user, line.peer), ("", Field::NONE, Field::NONE));
    let large = ConnectionLine::parse("up=18446744073709551616 down=18446744073709551615");
    assert_eq!((large.up, large.down), (0, u64::MAX));
}
