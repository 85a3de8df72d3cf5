use proptest::prelude::*;

use metp_protocol::Period;

use super::*;

fn limits(text: &str) -> Result<Limits, BadLimit> {
    let mut limits = Limits::default();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').expect("a pair");
        limits.set(LimitKey::find(key.as_bytes()).expect("a key"), value.as_bytes())?;
    }
    Ok(limits)
}

fn written(limits: &Limits) -> String {
    let pair = |key: LimitKey| Some(format!("{}={}", key.word(), limits.written(key)?));
    LimitKey::ALL.into_iter().filter_map(pair).collect::<Vec<_>>().join(" ")
}

fn seconds(text: &str) -> u64 {
    Timestamp::parse(text).expect("a time").seconds()
}

#[test]
fn limits_are_written_as_they_are_read() {
    for (text, normal) in [
        ("", ""),
        ("conns=20 sources=2", "conns=20 sources=2"),
        ("conns=0 sources=none", "conns=0 sources=none"),
        ("rate=10Mbit", "rate=10Mbit"),
        ("rate=1.5Mbit/s", "rate=1500kbit"),
        ("rate=1MB/s", "rate=8Mbit"),
        ("rate=1000kbit", "rate=1Mbit"),
        ("rate=1000.001kbit", "rate=1000001bit"),
        ("quota=50GB/month", "quota=50GB/month"),
        ("quota=0.5TB/month@1", "quota=500GB/month"),
        ("quota=1GiB/week", "quota=1073741824B/week"),
        ("quota=0/day", "quota=0/day"),
        ("quota=100kB/month@31", "quota=100kB/month@31"),
        ("quota=7B/total", "quota=7B/total"),
        ("expires=2027-01-31", "expires=2027-01-31"),
        ("expires=2027-01-31T00:00Z", "expires=2027-01-31"),
        ("expires=2027-01-31T23:59Z", "expires=2027-01-31T23:59Z"),
        ("from=192.0.2.0/24,2001:db8::/32", "from=192.0.2.0/24,2001:db8::/32"),
        ("from=192.0.2.1", "from=192.0.2.1/32"),
        ("from=none expires=none", "expires=none from=none"),
    ] {
        let read = limits(text).expect(text);
        assert_eq!(written(&read), normal, "{text}");
        assert_eq!(limits(normal), Ok(read), "{text}");
    }
}

#[test]
fn what_is_no_limit_is_refused() {
    for text in [
        "conns=-1",
        "conns=x",
        "conns=4294967296",
        "conns=1k",
        "sources=1.5",
        "sources=None",
        "rate=10",
        "rate=10M",
        "rate=10mbit",
        "rate=999bit",
        "rate=0bit",
        "rate=1001Gbit",
        "rate=10Mbit/",
        "rate=Mbit",
        "rate=1.Mbit",
        "rate=.5Mbit",
        "rate=1.0000001Mbit",
        "rate=-1Mbit",
        "rate=10Mbit/s/s",
        "rate=10MB",
        "quota=100GB",
        "quota=100/day",
        "quota=1.5B/day",
        "quota=100GB/month@0",
        "quota=100GB/month@32",
        "quota=100GB/month@",
        "quota=100GB/year",
        "quota=100Gb/day",
        "quota=2000000TB/day",
        "quota=/day",
        "expires=2027-02-30",
        "expires=2027-1-31",
        "expires=2027-01-31T24:00Z",
        "expires=2027-01-31T00:00",
        "expires=tomorrow",
        "from=192.0.2.1/24",
        "from=x",
        "from=192.0.2.0/24,",
        "from=192.0.2.0/24,,::/0",
        "from=::1,::2,::3,::4,::5,::6,::7,::8,::9,::10,::11,::12,::13,::14,::15,::16,::17",
    ] {
        let error = limits(text).expect_err(text).to_string();
        let key = text.split_once('=').expect("a pair").0;
        assert!(error.starts_with(&format!("{key} takes none or ")), "{text}: {error}");
    }
}

#[test]
fn the_line_of_all_holds_where_an_account_says_nothing() {
    let defaults = limits("conns=10 rate=1Mbit sources=3").expect("good");
    let own = limits("conns=none rate=2Mbit quota=1GB/day").expect("good");
    let in_force = own.in_force(&defaults);
    let shown: Vec<String> = LimitKey::ALL.into_iter().map(|key| in_force.written(key)).collect();
    assert_eq!(shown, ["-", "3", "2Mbit", "1GB/day", "-", "-"]);
}

#[test]
fn an_empty_value_says_nothing() {
    let mut own = limits("conns=10 from=::/0").expect("good");
    own.set(LimitKey::Connections, b"").expect("nothing");
    own.set(LimitKey::From, b"").expect("nothing");
    assert!(own.is_empty());
}

#[test]
fn periods_begin_at_midnight_in_utc() {
    for (period, time, beginning) in [
        (Period::Day, "2026-11-26T23:59:59Z", "2026-11-26T00:00:00Z"),
        (Period::Day, "2026-11-27T00:00:00Z", "2026-11-27T00:00:00Z"),
        // A Thursday, a Sunday, a Monday.
        (Period::Week, "2026-11-26T12:00:00Z", "2026-11-23T00:00:00Z"),
        (Period::Week, "2026-11-29T23:59:59Z", "2026-11-23T00:00:00Z"),
        (Period::Week, "2026-11-30T00:00:00Z", "2026-11-30T00:00:00Z"),
        (Period::Month(1), "2026-11-26T12:00:00Z", "2026-11-01T00:00:00Z"),
        (Period::Month(15), "2026-11-14T12:00:00Z", "2026-10-15T00:00:00Z"),
        (Period::Month(15), "2027-01-02T00:00:00Z", "2026-12-15T00:00:00Z"),
        (Period::Month(31), "2027-02-27T23:59:59Z", "2027-01-31T00:00:00Z"),
        (Period::Month(31), "2027-02-28T00:00:00Z", "2027-02-28T00:00:00Z"),
        (Period::Month(31), "2028-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
        (Period::Month(30), "2027-03-29T00:00:00Z", "2027-02-28T00:00:00Z"),
    ] {
        let found = period.beginning(seconds(time));
        assert_eq!(Timestamp::from_seconds(found).to_string(), beginning, "{period:?} {time}");
    }
    assert_eq!((Period::Total.beginning(7), Period::Week.beginning(7)), (0, 0));
}

proptest! {
    #![proptest_config(support::property::config(512))]

    #[test]
    fn any_bytes_have_an_answer(value in prop::collection::vec(
        prop_oneof![4 => b'0'..=b'9', 2 => prop::sample::select(b"kMGTBbits/.,-:@".to_vec()),
            1 => any::<u8>()], 0..24))
    {
        for key in LimitKey::ALL {
            let mut limits = Limits::default();
            if limits.set(key, &value).is_ok() && !value.is_empty() {
                let text = limits.written(key).expect("something is said");
                let mut again = Limits::default();
                prop_assert!(again.set(key, text.as_bytes()).is_ok());
                prop_assert_eq!(&again, &limits);
            }
        }
    }

    /// A period holds its beginning, and begins where the one before has ended.
    #[test]
    fn periods_follow_each_other(day in 0..36_500_u64, anchor in 1..=31_u8, kind in 0..3_usize) {
        let period = [Period::Day, Period::Week, Period::Month(anchor)][kind];
        let time = day * 86_400 + 43_200;
        let beginning = period.beginning(time);
        prop_assert!(beginning <= time && time - beginning < 32 * 86_400);
        prop_assert_eq!(period.beginning(beginning), beginning);
        prop_assert!(beginning == 0 || period.beginning(beginning - 1) < beginning);
    }
}
