//! Lines in, meaning out, and back: `protocol_metp.txt` §3 to §7.

use std::fmt;

use proptest::prelude::*;

use super::arguments::{bad, fits_in_a_line};
use super::*;
use crate::network::Network;
use crate::timestamp::Timestamp;

fn admin(line: &[u8]) -> Result<Command, String> {
    Command::parse(line, Role::Admin).map_err(|response| response.to_string())
}

fn refused(line: &[u8]) -> String {
    match admin(line) {
        Err(text) => text.split(']').next().unwrap_or_default().replace("400 Bad Request ", ""),
        Ok(_) => "accepted".to_owned(),
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.encode().map(|line| String::from_utf8_lossy(&line).into_owned()))
    }
}

#[test]
fn lines_end_in_lf_or_crlf() {
    assert_eq!(line(b""), Ok(None));
    assert_eq!(line(b"QUIT"), Ok(None));
    assert_eq!(line(b"QUIT\r"), Ok(None));
    assert_eq!(line(b"QUIT\nmore"), Ok(Some((&b"QUIT"[..], 5))));
    assert_eq!(line(b"QUIT\r\nmore"), Ok(Some((&b"QUIT"[..], 6))));
    assert_eq!(line(b"a\r\r\n"), Ok(Some((&b"a\r"[..], 4))));
    assert_eq!(line(b"\n"), Ok(Some((&b""[..], 1))));
}

#[test]
fn a_line_has_4096_octets_at_most() {
    let mut longest = vec![b'x'; LINE_LIMIT - 1];
    assert_eq!(line(&longest), Ok(None));
    longest.push(b'\n');
    assert_eq!(line(&longest), Ok(Some((&longest[..LINE_LIMIT - 1], LINE_LIMIT))));
    longest.insert(0, b'x');
    assert_eq!(line(&longest), Err(LineTooLong));
    assert_eq!(line(&longest[..LINE_LIMIT]), Err(LineTooLong));
}

#[test]
fn the_opening() {
    assert!(PreAuthCommand::parse(b"HELLO METP/1.0") == Some(PreAuthCommand::Hello));
    for line in
        ["", "HELLO", "HELLO METP/1.1", "HELLO METP/1.0 ", "hello METP/1.0", "GET / HTTP/1.1"]
    {
        assert!(PreAuthCommand::parse(line.as_bytes()).is_none(), "{line}");
    }
    for line in
        ["AUTH", "AUTH ", "AUTH  ", "AUTH alice", "AUTH alice ", "auth alice x", "AUTHalice x"]
    {
        assert!(PreAuthCommand::parse(line.as_bytes()).is_none(), "{line}");
    }
    for (line, name, password) in [
        ("AUTH alice pw", "alice", "pw"),
        ("AUTH alice two words ", "alice", "two words "),
        ("AUTH alice  leading", "alice", " leading"),
        ("AUTH  alice pw", "alice", "pw"),
        ("AUTH a\\x20b pw", "a b", "pw"),
        ("AUTH DOM\\alice pw", "DOM\\alice", "pw"),
    ] {
        let (name, password) = (name.into(), password.into());
        assert!(
            PreAuthCommand::parse(line.as_bytes()) == Some(PreAuthCommand::Auth { name, password }),
            "{line}"
        );
    }
}

#[test]
fn verbs_are_case_sensitive_and_surplus_words_are_refused() {
    assert_eq!(admin(b"GET_METRICS"), Ok(Command::GetMetrics));
    assert_eq!(admin(b"GET_METRICS  "), Ok(Command::GetMetrics));
    for line in [
        "",
        " ",
        "get_metrics",
        " GET_METRICS",
        "GET_METRICS x",
        "GET_METRICSx",
        "USERS all",
        "GET_LOGS 5",
        "QUIT now",
        "DELETE-USER",
        "DELETE-USER a b",
        "SET-ROLE a",
        "SET-ROLE a admin now",
        "ADD-USER",
        "ADD-USER alice",
        "ADD-USER alice ",
        "CHANGE-BUFFER",
        "CHANGE-BUFFER 1 2",
        "HELLO METP/1.0",
        "AUTH alice pw",
        "USERS\t",
        "\0",
    ] {
        assert_eq!(refused(line.as_bytes()), "[SYNTAX", "{line:?}");
    }
}

/// §5.1: what is wrong with a line is said, the verb or what follows it.
#[test]
fn a_syntax_error_names_its_place() {
    for (line, cause) in [
        ("", Cause::NoVerb),
        (" ", Cause::NoVerb),
        (" USERS", Cause::NoVerb),
        ("USER", Cause::Verb),
        ("users", Cause::Verb),
        ("USERS\t", Cause::Verb),
        ("HELLO METP/1.0", Cause::Verb),
        ("AUTH alice pw", Cause::Verb),
        ("USERS all", Cause::Syntax),
        ("ADD-USER bob", Cause::Syntax),
        ("CHANGE-PASSWORD", Cause::Syntax),
        ("CHANGE-BUFFER 4k", Cause::Syntax),
        ("GET_LOGS LAST", Cause::Syntax),
        ("SUBSCRIBE nothing", Cause::Syntax),
        ("SHUTDOWN GRACE x", Cause::Syntax),
        ("KILL 1", Cause::Syntax),
        ("CONFIG UNSET grace", Cause::Syntax),
    ] {
        assert_eq!(admin(line.as_bytes()), Err(bad(cause).to_string()), "{line:?}");
    }
    let texts = [Cause::NoVerb, Cause::Verb, Cause::Syntax, Cause::LongLine].map(|c| c.to_string());
    assert!(texts.iter().all(|text| text.starts_with("[SYNTAX] ")));
    assert_eq!(texts.iter().collect::<std::collections::BTreeSet<_>>().len(), texts.len());
}

#[test]
fn the_role_is_checked_before_the_arguments() {
    let user = |line: &[u8]| Command::parse(line, Role::User);
    for line in [
        "GET_LOGS",
        "USERS",
        "CHANGE-BUFFER abc",
        "ADD-USER",
        "DELETE-USER",
        "SET-ROLE x y z",
        "GET_LOGS surplus",
    ] {
        assert_eq!(user(line.as_bytes()), Err(Response::Forbidden), "{line}");
    }
    assert_eq!(user(b"GET_METRICS"), Ok(Command::GetMetrics));
    assert_eq!(user(b"QUIT"), Ok(Command::Quit));
    assert_eq!(user(b"NONSENSE"), Err(bad(Cause::Verb)));
}

#[test]
fn change_buffer_takes_1_to_8_digits_from_1_to_1048576() {
    assert_eq!(admin(b"CHANGE-BUFFER 1"), Ok(Command::ChangeBuffer(1)));
    assert_eq!(admin(b"CHANGE-BUFFER 00004096"), Ok(Command::ChangeBuffer(4096)));
    assert_eq!(admin(b"CHANGE-BUFFER 1048576"), Ok(Command::ChangeBuffer(1_048_576)));
    for word in ["4096abc", "-1", "+1", "1.5", "0x10", "\u{0661}"] {
        assert_eq!(refused(format!("CHANGE-BUFFER {word}").as_bytes()), "[SYNTAX", "{word}");
    }
    for word in ["0", "1048577", "99999999", "000000001", "99999999999999999999999"] {
        assert_eq!(refused(format!("CHANGE-BUFFER {word}").as_bytes()), "[RANGE", "{word}");
    }
}

/// §5.3, §5.16, §5.18, §5.20: as with CHANGE-BUFFER, a digit too many is out of range, and what is no number
/// malformed, whatever else is out of range.
#[test]
fn numbers_have_as_many_digits_as_the_grammar_gives_them() {
    for (line, answer) in [
        ("GET_LOGS LAST 0000000001", "accepted"),
        ("GET_LOGS LAST 00000000001", "[RANGE"),
        ("GET_LOGS LAST 00000000001 bob", "[SYNTAX"),
        ("KILL 0000000001.0", "accepted"),
        ("KILL 4294967295.4294967295", "accepted"),
        ("KILL 4294967296.0", "[RANGE"),
        ("KILL 00000000001.0", "[RANGE"),
        ("KILL 0.00000000001", "[RANGE"),
        ("KILL 00000000001.x", "[SYNTAX"),
        ("KILL x.00000000001", "[SYNTAX"),
        ("KILL .5", "[SYNTAX"),
        ("KILL 5.", "[SYNTAX"),
        ("KILL 5", "[SYNTAX"),
        ("SUBSCRIBE logs EVERY 00000005", "accepted"),
        ("SUBSCRIBE logs EVERY 000000005", "[RANGE"),
        ("SUBSCRIBE logs EVERY 5x", "[SYNTAX"),
        ("SUBSCRIBE bob EVERY 000000005", "[SYNTAX"),
        ("SHUTDOWN GRACE 00000001", "accepted"),
        ("SHUTDOWN GRACE 000000001", "[RANGE"),
        ("SHUTDOWN GRACE 00000001.000000001", "accepted"),
        ("SHUTDOWN GRACE 000000001.5", "[RANGE"),
        ("SHUTDOWN GRACE 99999999999999999999999", "[RANGE"),
        ("SHUTDOWN GRACE 000000001.x", "[SYNTAX"),
        ("SHUTDOWN GRACE 5.", "accepted"),
        ("SHUTDOWN GRACE .5", "[SYNTAX"),
        ("SHUTDOWN GRACE .", "[SYNTAX"),
        ("SHUTDOWN GRACE 1.2.3", "[SYNTAX"),
    ] {
        assert_eq!(refused(line.as_bytes()), answer, "{line}");
    }
}

/// §5.21. A network is printed in its plainest form.
#[test]
fn trust_names_networks() {
    let network = |text| Network::parse(text).expect("a network");
    assert_eq!(admin(b"TRUST"), Ok(Command::Trust));
    let mapped = b"TRUST ADD ::ffff:10.0.0.0/104 ";
    assert_eq!(admin(mapped), Ok(Command::TrustAdd(network("10.0.0.0/8"))));
    assert_eq!(admin(b"TRUST DELETE ::1"), Ok(Command::TrustDelete(network("::1/128"))));
    let encoded = Command::TrustAdd(network("10.0.0.0/8")).encode();
    assert_eq!(encoded.as_deref(), Some(&b"TRUST ADD 10.0.0.0/8\n"[..]));
    for (line, answer) in [
        ("TRUST ADD", "[SYNTAX"),
        ("TRUST DELETE", "[SYNTAX"),
        ("TRUST add ::1", "[SYNTAX"),
        ("TRUST 10.0.0.0/8", "[SYNTAX"),
        ("TRUST ADD ::1 ::2", "[SYNTAX"),
        ("TRUST ADD 10.0.0.1/8", "[BADNET"),
        ("TRUST ADD 10.0.0.0/33", "[BADNET"),
        ("TRUST ADD example.com", "[BADNET"),
        ("TRUST ADD \u{fc}", "[BADNET"),
        ("TRUST DELETE 10", "[BADNET"),
    ] {
        assert_eq!(refused(line.as_bytes()), answer, "{line}");
    }
    for line in [&b"TRUST"[..], b"TRUST ADD ::1", b"TRUST DELETE ::1"] {
        assert_eq!(Command::parse(line, Role::User), Err(Response::Forbidden));
    }
}

#[test]
fn add_user_names_and_passwords() {
    let (longest, escaped) = ([b'n'; 255], b"\\x00".repeat(255));
    let names: [(&[u8], &[u8]); 12] = [
        (b"a", b"a"),
        (b"A-z_0.9@x+y", b"A-z_0.9@x+y"),
        (b".a", b".a"),
        (b"-a", b"-a"),
        (b"--", b"--"),
        (b"a:b", b"a:b"),
        (b"DOMAIN\\user", b"DOMAIN\\user"),
        (b"a\\x20b\\x5cx41", b"a b\\x41"),
        (b"J\xc3\xbcrgen", b"J\xc3\xbcrgen"),
        (b"a\tb", b"a\tb"),
        (&longest, &longest),
        (&escaped, &[0; 255]),
    ];
    for (word, name) in names {
        let line = [b"ADD-USER ", word, b" pw"].concat();
        let command = Command::AddUser { name: name.into(), password: b"pw".into() };
        assert_eq!(admin(&line), Ok(command.clone()));
        let encoded = command.encode().expect("a password");
        assert_eq!(admin(&encoded[..encoded.len() - 1]), Ok(command), "{name:?}");
    }
    let (long, escaped) = ([b'n'; 256], b"\\x00".repeat(256));
    for name in [&b"-"[..], b"\\x2d", b"\\x2D", &long, &escaped] {
        let line = [b"ADD-USER ", name, b" pw"].concat();
        assert_eq!(refused(&line), "[BADNAME", "{name:?}");
    }
    let longest = [b'p'; 255];
    let line = [b"ADD-USER a ", &longest[..]].concat();
    assert_eq!(admin(&line), Ok(Command::AddUser { name: b"a".into(), password: longest.into() }));
    assert_eq!(refused(&[&line[..], b"p"].concat()), "[BADNAME");
    assert_eq!(refused(b"ADD-USER a p\0q"), "[BADNAME");
    assert_eq!(refused(b"ADD-USER a p\rq"), "[BADNAME");
}

#[test]
fn set_role_and_delete_user_take_any_name() {
    assert_eq!(admin(b"SET-ROLE a\\x20b admin"), Ok(Command::SetRole(b"a b".into(), Role::Admin)));
    assert_eq!(admin(b"DELETE-USER a:b"), Ok(Command::DeleteUser(b"a:b".into())));
    assert_eq!(refused(b"SET-ROLE alice root"), "[BADROLE");
    assert_eq!(refused(b"SET-ROLE alice Admin"), "[BADROLE");
}

#[test]
fn status_lines() {
    for (response, line) in [
        (Response::Welcome, "200 Welcome to METP/1.0"),
        (Response::Done, "200 OK"),
        (Response::Goodbye, "200 Goodbye"),
        (Response::BadRequest(None), "400 Bad Request"),
        (bad(Cause::Exists), "400 Bad Request [EXISTS] user exists"),
        (bad(Cause::Own), "400 Bad Request [SELF] not on your own account"),
        (Response::Unauthorized, "401 Unauthorized"),
        (Response::Forbidden, "403 Forbidden"),
    ] {
        assert_eq!(response.to_string(), line);
        assert_eq!(Status::parse(line.as_bytes()), Some(response.status()));
    }
    assert_eq!(Status::parse(b"200"), Some(Status::OK));
    assert_eq!(Status::parse(b"200OK"), Some(Status::OK));
    for line in ["", "20", "2000 OK", "099 x", " 200", "+20 x", "abc"] {
        assert_eq!(Status::parse(line.as_bytes()), None, "{line}");
    }
}

#[test]
fn bodies() {
    let metrics = MetricsBody { historical: 42, current: 5, bytes: 1_048_576 };
    let lines = metrics.lines();
    assert_eq!(
        lines,
        [
            "HISTORICAL_CONNECTIONS: 42",
            "CURRENT_CONNECTIONS:    5",
            "BYTES_TRANSFERRED:      1048576"
        ]
    );
    let wire = lines.iter().map(|line| line.as_bytes()).chain([&b"NEW_KEY: x"[..], b"odd"]);
    assert_eq!(MetricsBody::parse(wire), Some(metrics));
    assert_eq!(MetricsBody::parse([&b"HISTORICAL_CONNECTIONS: 1"[..]]), None);

    assert_eq!(user_line(b"alice", Role::User), "alice user");
    assert_eq!(user_line(b".", Role::Admin), "\\x2e admin");
    assert_eq!(user_line(b"a b", Role::Admin), "a\\x20b admin");

    assert_eq!((Field::new("a").as_str(), Field::new("").as_str()), ("a", "-"));

    let time =
        Timestamp::from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_751_121_130));
    let target = "example.com:80";
    assert_eq!(
        log_line(time, b"alice", [192, 168, 1, 10].into(), target, 1024),
        "[2025-06-28T14:32:10Z] alice 192.168.1.10 example.com:80 1024"
    );
}

#[test]
fn lines_from_the_server_have_999_octets_at_most() {
    assert_eq!(ended("x".repeat(998)), "x".repeat(998) + "\n");
    assert_eq!(ended("x".repeat(999)), "x".repeat(995) + "...\n");
}

/// §3.2, §3.4: never within an escape, so that what is left of a value is a `field`.
#[test]
fn nothing_is_cut_within_an_escape() {
    let escapes = |count| "\\xff".repeat(count);
    assert_eq!(Field::new(escapes(64)).as_str(), escapes(64));
    for (before, kept) in [("", 63), ("a", 63), ("ab", 62), ("abc", 62), ("abcd", 62)] {
        let cut = format!("{before}{}...", escapes(kept));
        assert_eq!(Field::new(format!("{before}{}", escapes(65))).as_str(), cut);
    }
    for (before, kept) in [("", 248), ("a", 248), ("ab", 248), ("abc", 248), ("abcd", 247)] {
        let cut = format!("{before}{}...\n", escapes(kept));
        assert_eq!(ended(format!("{before}{}", escapes(250))), cut);
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    let name = || prop::collection::vec(any::<u8>(), 1..256);
    let password = prop::collection::vec(any::<u8>(), 1..256)
        .prop_filter("fits in a line", |password| fits_in_a_line(password));
    prop_oneof![
        Just(Command::GetMetrics),
        (prop::option::of(0..10_000_000_000_u64), prop::option::of(name()))
            .prop_map(|(last, user)| Command::GetLogs(LogSelection { last, user })),
        Just(Command::GetAllMetrics),
        Just(Command::Capabilities),
        Just(Command::Info),
        Just(Command::Unsubscribe),
        prop::option::of(name()).prop_map(Command::Ping),
        prop::option::of(name()).prop_map(Command::UserMetrics),
        prop::option::of(name()).prop_map(Command::Connections),
        prop::option::of(name()).prop_map(Command::ConfigGet),
        (name(), name()).prop_map(|(key, value)| Command::ConfigSet { key, value }),
        name().prop_map(Command::KillUser),
        any::<(u32, u32)>()
            .prop_map(|(slot, generation)| { Command::Kill(ConnectionId { slot, generation }) }),
        (1..16_u8, INTERVALS).prop_map(|(bits, every)| {
            let chosen = Topic::ALL.into_iter().filter(|topic| bits & (1 << *topic as u8) != 0);
            let every = std::time::Duration::from_secs(every.into());
            Command::Subscribe(chosen.fold(Topics::default(), Topics::with), every)
        }),
        prop::option::of(0..86_400_000_u64)
            .prop_map(|grace| { Command::Shutdown(grace.map(std::time::Duration::from_millis)) }),
        Just(Command::Users),
        Just(Command::Quit),
        BUFFER_SIZES.prop_map(Command::ChangeBuffer),
        ("[A-Za-z0-9_@+][A-Za-z0-9_@+.-]{0,63}", password)
            .prop_map(|(name, password)| Command::AddUser { name: name.into(), password }),
        name().prop_map(Command::DeleteUser),
        prop::option::of(name().prop_map(Subject::Account)).prop_map(Command::Limits),
        name().prop_map(Command::ResetUsage),
        (
            prop_oneof![Just(Subject::All), name().prop_map(Subject::Account)],
            prop::collection::vec(("[a-z]{1,8}", prop::collection::vec(any::<u8>(), 0..40)), 1..5),
        )
            .prop_map(|(subject, words)| {
                let word = |(key, value): (String, _)| LimitWord { key: key.into(), value };
                Command::SetLimit(subject, words.into_iter().map(word).collect())
            }),
        (name(), prop_oneof![Just(Role::User), Just(Role::Admin)])
            .prop_map(|(name, role)| Command::SetRole(name, role)),
    ]
}

proptest! {
    #![proptest_config(support::property::config(256))]

    #[test]
    fn arbitrary_lines_never_panic(input in prop::collection::vec(any::<u8>(), 0..5000)) {
        if let Ok(Some((line, taken))) = line(&input) {
            prop_assert!(line.len() < taken && taken <= input.len());
        }
        let _ = (PreAuthCommand::parse(&input), admin(&input), Status::parse(&input));
        let _ = MetricsBody::parse([&input[..]]);
    }

    #[test]
    fn commands_survive_encode_and_parse(command in any_command()) {
        let wire = command.encode().expect("nothing in it ends a line");
        let (line, taken) = line(&wire).expect("short enough").expect("whole");
        prop_assert_eq!(taken, wire.len());
        prop_assert_eq!(admin(line), Ok(command));
    }
}
