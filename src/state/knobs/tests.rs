//! Each setting: what it takes, what it shows, and what it is called.

use super::*;

#[test]
fn each_setting_takes_what_it_shows_and_nothing_beyond_its_range() {
    for knob in &KNOBS {
        let mut settings = Settings::default();
        let shown = knob.get(&settings);
        assert_eq!(knob.set(&mut settings, &shown), Ok(()), "{}", knob.key);
        assert_eq!(settings, Settings::default(), "{}", knob.key);
        for bad in ["", "-1", "+1", "1e3", "x", " 1", "99999999999999999999999"] {
            assert!(knob.set(&mut settings, bad).is_err(), "{} {bad:?}", knob.key);
        }
        assert_eq!(settings, Settings::default(), "{}", knob.key);
        let Some((least, most)) = knob.range() else { continue };
        for end in [least, most] {
            knob.set(&mut settings, &end.to_string()).expect("the ends are in range");
            assert_eq!(knob.get(&settings), end.to_string());
        }
        assert!(knob.set(&mut settings, &(most + 1).to_string()).is_err(), "{}", knob.key);
    }
}

/// Shown to the millisecond, a shorter time would look as if it were off, and one of less than half a
/// nanosecond would be.
#[test]
fn a_time_that_is_not_zero_has_a_millisecond_at_least() {
    for knob in KNOBS.iter().filter(|knob| knob.unit == "seconds") {
        let mut settings = Settings::default();
        let never = format!("0.{}1", "0".repeat(400));
        for short in ["0.0004", "0.000999999", "0.00000000000001", ".0001", &never] {
            assert!(knob.set(&mut settings, short).is_err(), "{} {short}", knob.key);
        }
        assert_eq!(settings, Settings::default(), "{}", knob.key);
        for (good, shown) in [("0.001", "0.001"), ("0.0015", "0.001"), ("0.000", "0")] {
            assert_eq!(knob.set(&mut settings, good), Ok(()), "{} {good}", knob.key);
            assert_eq!(knob.get(&settings), shown, "{}", knob.key);
        }
    }
}

/// METP §5.17: sizes and times take units, counts take none.
#[test]
fn units_are_taken_and_never_shown() {
    for (key, value, shown) in [
        ("buffer-size", "64k", Some("65536")),
        ("buffer-size", "1MiB", Some("1048576")),
        ("buffer-size", "1M", Some("1048576")),
        ("buffer-size", "1025k", None),
        ("buffer-size", "0k", None),
        ("buffer-size", "64s", None),
        ("buffer-size", "18446744073709551615k", None),
        ("buffer-memory", "1g", Some("1073741824")),
        ("buffer-memory", "1T", Some("1099511627776")),
        ("buffer-memory", "2T", None),
        ("idle-timeout", "5m", Some("300")),
        ("idle-timeout", "250ms", Some("0.25")),
        ("idle-timeout", "0ms", Some("0")),
        ("idle-timeout", "0.5ms", None),
        ("idle-timeout", "365d", Some("31536000")),
        ("idle-timeout", "366d", None),
        ("idle-timeout", "5k", None),
        ("grace", "1.5h", Some("5400")),
        ("max-connections", "1k", None),
        ("max-connections-per-ip", "1k", None),
        ("log-entries", "1k", None),
        ("dns-threads", "32s", None),
    ] {
        let mut settings = Settings::default();
        let knob = Knob::find(key.as_bytes()).expect("a setting");
        let set = knob.set(&mut settings, value).map(|()| knob.get(&settings));
        assert_eq!(set.ok().as_deref(), shown, "{key} {value}");
    }
}

#[test]
fn what_is_in_range_is_told() {
    let says = |key: &str, value| {
        let knob = Knob::find(key.as_bytes()).expect("a setting");
        knob.set(&mut Settings::default(), value).expect_err("out of range").to_string()
    };
    assert_eq!(says("buffer-size", "0"), "1 to 1048576 bytes (units: k, M, G, T)");
    assert_eq!(
        says("idle-timeout", "1e3"),
        "0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d)"
    );
    assert_eq!(says("allow-local", "yes"), "on, off");
    assert_eq!(says("local-for", "Nobody"), "loopback, nobody, all");
    assert_eq!(says("prefer", "V4"), "ipv4, ipv6, system");
    assert_eq!(says("log-level", "loud"), "off, error, warn, info, debug, trace");
    assert!(Knob::find(b"no-such-setting").is_none());
}

/// METP §5.17.
#[test]
fn allow_local_is_another_name_of_local_for_all() {
    let [allow, choice] =
        [&b"allow-local"[..], b"local-for"].map(|key| Knob::find(key).expect("a setting"));
    let mut settings = Settings::default();
    let mut step = |knob: &Knob, value| {
        knob.set(&mut settings, value).expect("it takes that");
        (allow.get(&settings), choice.get(&settings))
    };
    let shown = |on: &str, word: &str| (on.to_owned(), word.to_owned());
    assert_eq!(step(allow, "off"), shown("off", "loopback"));
    assert_eq!(step(allow, "on"), shown("on", "all"));
    assert_eq!(step(allow, "off"), shown("off", "loopback"));
    assert_eq!(step(choice, "nobody"), shown("off", "nobody"));
    assert_eq!(step(allow, "off"), shown("off", "nobody"));
    assert_eq!(step(choice, "all"), shown("on", "all"));
    assert_eq!(step(choice, "loopback"), shown("off", "loopback"));
}

/// METP §5.17.
#[test]
fn zero_turns_off_what_the_protocol_says() {
    for knob in &KNOBS {
        let off = match knob.key {
            "max-connections-per-ip" | "max-associations" => true,
            key => knob.unit == "seconds" && !matches!(key, "grace" | "drain-limit"),
        };
        assert_eq!(knob.has_off(), off, "{}", knob.key);
        let number = matches!(
            knob.key,
            "grace" | "drain-limit" | "buffer-memory" | "log-entries" | "udp-log"
        );
        let from_zero = knob.range().is_some_and(|(least, _)| least == 0);
        assert_eq!(off || number, from_zero, "{}", knob.key);
    }
}

/// Each text stands alone, in any order: it says what the setting does, and names the unit of its value.
#[test]
fn each_setting_says_by_itself_what_it_does() {
    let no_verbs =
        ["a", "an", "the", "for", "of", "until", "without", "with", "what", "how", "when"];
    for (index, knob) in KNOBS.iter().enumerate() {
        let (key, what) = (knob.key, knob.what);
        let first = what.split(' ').next().unwrap_or_default();
        let is_verb = first.bytes().all(|byte| byte.is_ascii_lowercase());
        assert!(is_verb && !no_verbs.contains(&first) && first != knob.unit, "{key}: {what}");
        assert!(what.len() > 20 && !what.contains("the same"), "{key}: {what}");
        let counts = ["bytes", "seconds"].contains(&knob.unit);
        assert!(!counts || what.contains(knob.unit), "{key}: {what}");
        assert!(KNOBS.iter().skip(index + 1).all(|other| other.what != what), "{key}");
    }
}

#[test]
fn each_setting_has_a_name_of_its_own() {
    for (index, knob) in KNOBS.iter().enumerate() {
        assert_eq!(Knob::find(knob.key.as_bytes()).map(|found| found.key), Some(knob.key));
        assert!(KNOBS.iter().skip(index + 1).all(|other| other.key != knob.key));
    }
}
