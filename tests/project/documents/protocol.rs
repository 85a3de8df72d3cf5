//! `protocol_metp.txt` says what the program does: codes, limits, roles, grammar.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use metp_protocol::key::{self, MetpKey, figure};
use metp_protocol::network::{Network, NetworkError};
use metp_protocol::text::unescape;
use metp_protocol::{
    AuthEvent, Capabilities, Cause, CloseEvent, Command, ConnectionLine, Event, Field, INTERVALS,
    Info, LINE_LIMIT, LONGEST_NAME, LONGEST_PASSWORD, LimitsLine, LogEvent, MetricsBody,
    MetricsEvent, Missing, Notice, OpenEvent, PreAuthCommand, REPLY_LIMIT, Response, Role,
    RuleLine, SettingLine, Stage, Topic, TrustLine, UsageLine, VerdictLine, ended, log_line,
    user_line,
};
use proptest::prelude::*;
use proptest::sample::select;
use socks5d::proto::socks5::{Host, Target};
use socks5d::state::events::{RING_EVENTS, SUBSCRIBERS};

use super::abnf::Grammar;
use super::bounds::constant;
use super::dialogue::Example;
use super::options::options;
use super::{CLIENT_MANUAL, PROTOCOL, between, file, read};

#[test]
fn every_status_and_cause_of_metp_is_in_the_protocol_and_in_an_example() {
    let (text, source) = (read(PROTOCOL), read("metp/src/status.rs"));
    let examples = Example::all(&text);
    let (causes, others) = source.split_once("/// What was not found").expect("they follow");
    for word in between(others, "=> \"[", "\"") {
        assert!(text.contains(&format!(" [{word}\n")), "§7.2: {word}");
        let word = word.split(']').next().unwrap_or_default();
        assert!(text.contains(&format!("%s\"{word}\"")), "§7.2: the grammar lacks {word}");
    }
    let causes = between(causes, "=> \"[", "\"");
    assert!(causes.len() >= 7, "{causes:?}");
    for cause in causes {
        let line = format!("400 Bad Request [{cause}");
        assert!(text.contains(&format!("\n      {line}\n")), "§7.2: {line}");
        let shown = examples.iter().any(|example| example.replies().any(|reply| reply == line));
        assert!(shown, "no example shows {line}");
        let word = cause.split(']').next().unwrap_or_default();
        assert!(text.contains(&format!("%s\"{word}\"")), "§7.2: the grammar lacks {word}");
        assert!(read(CLIENT_MANUAL).contains(word), "{CLIENT_MANUAL}: {word}");
    }
    let shown = |beginning: &str| {
        examples.iter().any(|example| example.replies().any(|line| line.starts_with(beginning)))
    };
    for code in between(&source, "Status = Status(", ");") {
        assert!(text.contains(&format!("\n   | {code}  | ")), "§7.1: {code}");
        assert!(shown(&format!("{code} ")), "no example shows {code}");
    }
    for topic in Topic::ALL {
        assert!(shown(&format!("650 {topic} ")), "no example shows an event of {topic}");
    }
}

#[test]
fn the_limits_of_the_protocol_are_those_of_the_program() {
    let text = read(PROTOCOL);
    let row = |what: &str, limit: &str| {
        let row = text.lines().find(|line| line.starts_with(&format!("   | {what} ")));
        let row = row.unwrap_or_else(|| panic!("§8 has no {what}"));
        assert!(row.contains(&format!("| {limit} ")), "§8: {row}: {limit}");
    };
    row("command line", &format!("{LINE_LIMIT} octets with line end"));
    row("line from the server", &format!("{REPLY_LIMIT} octets with LF"));
    row("name of ADD-USER", &format!("1 to {LONGEST_NAME} octets"));
    row("password of ADD-USER", &format!("1 to {LONGEST_PASSWORD} octets"));
    let sizes = metp_protocol::BUFFER_SIZES;
    row("size of CHANGE-BUFFER", &format!("{} to {}", sizes.start(), sizes.end()));
    row("sessions with a subscription", &SUBSCRIBERS.to_string());
    row("events kept for all subscribers", &RING_EVENTS.to_string());
    let flowing = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let says = format!("EVERY so many seconds, {} to {}, by", INTERVALS.start(), INTERVALS.end());
    assert!(flowing.contains(&says), "§5.18: {says}");
    row(
        "unsent octets that stop the reading",
        &constant("src/metp/mod.rs", "UNSENT_LIMIT").to_string(),
    );
    for option in options("socks5d") {
        for line in text.lines().filter(|line| line.contains(&format!("({})", option.long))) {
            let value = option.preset().unwrap_or_else(|| panic!("{} has none", option.long));
            let good = line.contains(&format!("| {value} "));
            assert!(good, "§8: {line}: {value}");
        }
    }
}

/// §6: the table of roles is what the parser permits.
#[test]
fn the_roles_of_the_protocol_are_those_of_the_program() {
    let text = read(PROTOCOL);
    let table = between(&text, "| command         |  user  |  admin  |\n", "\n\n");
    let rows = table[0].lines().filter(|line| line.contains('|'));
    let mut verbs = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for (cell, role) in [(cells[2], Role::User), (cells[3], Role::Admin)] {
            let forbidden = Command::parse(cells[1].as_bytes(), role) == Err(Response::Forbidden);
            assert_eq!(cell, if forbidden { "403" } else { "yes" }, "{} {role}", cells[1]);
        }
        verbs.push(cells[1]);
    }
    assert_eq!(verbs, metp_protocol::verbs().collect::<Vec<_>>());
}

#[test]
fn the_protocol_is_plain_text_of_72_columns_and_its_references_lead_somewhere() {
    let text = read(PROTOCOL);
    for (number, line) in text.lines().enumerate() {
        assert!(line.is_ascii() && line.len() <= 72, "line {}: {line}", number + 1);
        assert!(!line.ends_with(' ') && !line.contains('\t'), "line {}: {line:?}", number + 1);
    }
    let headings: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(". ").map(|(number, _)| number))
        .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
        .collect();
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cited: Vec<String> =
        between(&joined, "Section ", " ").into_iter().map(str::to_owned).collect();
    let tests = std::fs::read_dir(file("tests")).expect("it is there").filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.starts_with("metp_").then(|| format!("tests/{name}"))
    });
    for source in [
        "lib",
        "arguments",
        "body",
        "command",
        "opening",
        "connection",
        "event",
        "field",
        "key",
        "record",
        "status",
        "topic",
    ]
    .map(|name| format!("metp/src/{name}.rs"))
    .into_iter()
    .chain(["src/metp/mod.rs", "src/metp/execute.rs"].map(str::to_owned))
    .chain(tests)
    {
        cited.extend(read(&source).split('§').skip(1).map(str::to_owned));
    }
    assert!(cited.len() > 20);
    for section in cited {
        let end = section.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(section.len());
        let number = section[..end].trim_end_matches('.');
        assert!(headings.contains(&number), "there is no section {number}");
    }
}

/// §9: the grammar matches exactly what the parser takes.
#[test]
fn the_grammar_is_complete() {
    let grammar = Grammar::read(&read(PROTOCOL));
    assert_eq!(grammar.missing(), [""; 0]);
    for line in ["GET_METRICS", "CHANGE-BUFFER 4096 ", "ADD-USER a b c", "SET-ROLE  a  admin"] {
        for end in ["\n", "\r\n"] {
            let whole = format!("{line}{end}");
            assert!(grammar.matches("command-line", whole.as_bytes()), "{whole:?}");
        }
        assert!(!grammar.matches("command-line", line.as_bytes()));
    }
}

fn names(keys: &[MetpKey]) -> Vec<&str> {
    keys.iter().map(|key| key.name).collect()
}

/// §5: each line of keys is what the grammar says, key for key and in its order, and neither side has one more.
#[test]
fn the_keys_of_the_grammar_are_those_of_the_program() {
    let text = read(PROTOCOL);
    let grammar = Grammar::read(&text);
    let event = |keys: &[MetpKey]| [&[key::EVENT], keys].concat();
    for (rule, keys) in [
        ("capa-body", Capabilities::KEYS.to_vec()),
        ("info-body", Info::KEYS.to_vec()),
        ("usage-line", UsageLine::KEYS.to_vec()),
        ("connection-line", ConnectionLine::KEYS.to_vec()),
        ("setting-line", SettingLine::KEYS.to_vec()),
        ("trust-line", TrustLine::KEYS.to_vec()),
        ("killed", vec![key::KILLED]),
        ("generated", vec![key::PASSWORD, key::CREATED]),
        (
            "reloaded",
            vec![
                key::ACCOUNTS,
                key::ADDED,
                key::DELETED,
                key::CHANGED,
                key::SETTINGS,
                key::RULES,
                key::CUT,
            ],
        ),
        ("limits-line", LimitsLine::KEYS.to_vec()),
        ("rule-line", RuleLine::KEYS.to_vec()),
        ("verdict-line", VerdictLine::KEYS.to_vec()),
        ("open-event", event(&OpenEvent::KEYS)),
        ("close-event", event(&CloseEvent::KEYS)),
        ("log-event", LogEvent::KEYS.to_vec()),
        ("metrics-event", MetricsEvent::KEYS.to_vec()),
        ("auth-event", AuthEvent::KEYS.to_vec()),
        ("lost-event", vec![key::COUNT]),
    ] {
        assert_eq!(grammar.keys(rule), names(&keys), "{rule}");
    }
    for word in Stage::ALL.map(Stage::word) {
        assert!(grammar.matches("state", word.as_bytes()), "{word}");
    }
    let mut described: Vec<String> = grammar.names().flat_map(|rule| grammar.keys(rule)).collect();
    described.sort_unstable();
    described.dedup();
    let mut known = names(&key::ALL);
    known.sort_unstable();
    assert_eq!(described, known);
}

/// §5.2 and §12.16: the figures, which the grammar does not name.
#[test]
fn the_figures_of_the_protocol_are_those_of_the_program() {
    let text = read(PROTOCOL);
    let example = between(&text, "      C: GET_METRICS ALL\n      S: 200 OK\n", "      S: .\n")[0];
    let shown: Vec<&str> = between(example, "      S: ", ":");
    assert_eq!(shown, names(&figure::ALL));
    assert_eq!(MetricsBody::KEYS, figure::ALL[..MetricsBody::KEYS.len()]);
    let table = between(&text, "\n5.2.  GET_METRICS", "\n5.3.  ")[0];
    for name in names(&figure::ALL) {
        let short = name.replace("CONNECT_TIME", "");
        let row = name.strip_prefix("REPLY_").map_or(short, |_| "REPLY_0 to REPLY_8".to_owned());
        assert!(table.contains(&row), "§5.2 lacks {name}");
    }
}

/// Beginnings of commands that a word can follow.
fn beginnings() -> Vec<&'static str> {
    let more = ["HELLO METP/1.0", "AUTH", "AUTH", "ADD-USER", "SET-ROLE", "CHANGE-BUFFER"];
    let parts = ["GET_LOGS LAST", "KILL USER", "CONFIG GET", "CONFIG SET", "SHUTDOWN GRACE"];
    let networks = ["TRUST ADD", "TRUST DELETE"];
    let rules = ["RULES TEST", "RULES TEST a b", "RULE INSERT 1", "RULE DELETE", "RELOAD"];
    let events = ["SUBSCRIBE logs EVERY", "SUBSCRIBE bob EVERY", "GET_LOGS USER bob LAST"];
    metp_protocol::verbs()
        .chain(more)
        .chain(parts)
        .chain(networks)
        .chain(rules)
        .chain(events)
        .collect()
}

/// Words of the protocol, and things that stand in their way.
fn words() -> Vec<String> {
    let long = [64, 65, 255, 256].map(|count| "n".repeat(count));
    ["bob", ".bob", "b.-@+_9", "-", "user", "admin", "User", "4096", "00000017"]
        .into_iter()
        .chain(["USER", "LAST", "ALL", "EVERY", "logs", "auth", "17.3", "1.", "."])
        .chain(["10.0.0.0/8", "::1", "192.168.1.5/24", "\\x2d", "\\x2D", "\\x20"])
        .chain(["123456789", "\t", "\r", "\0", "\\x41", "\u{e9}", "4096abc", ":", "/", " "])
        .chain(["0", "5", "86401.5", "0.5", ".5", "5.", "1.2.3", "-1", "+1", "1e3"])
        .chain(["00000005", "000000005", "000000001", "0000000001", "00000000001"])
        .chain(["0.00000000001", "000000000.5", "00000001.5", "0000000001.0000000001"])
        .chain(["00000000001.0", "4294967295.0", "4294967296.0", "9999999999.1"])
        .chain(["99999999999", "99999999999.x", "99999999999999999999999", "99999999.9"])
        .map(str::to_owned)
        .chain(long)
        .collect()
}

/// Lines that are nearly commands.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let word = (select(vec![" ", " ", " ", "  ", ""]), select(words()));
    let end = select(vec!["", "", "", " ", "  "]);
    (select(beginnings()), prop::collection::vec(word, 0..4), end).prop_map(|(verb, words, end)| {
        let words: String =
            words.into_iter().map(|(blanks, word)| format!("{blanks}{word}")).collect();
        format!("{verb}{words}{end}").into_bytes()
    })
}

/// Whether the grammar would have it for a network (§5.21).
fn is_like_a_network(word: &[u8]) -> bool {
    let mut parts = word.splitn(2, |byte| *byte == b'/');
    let address = parts.next().unwrap_or_default();
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
    let length = parts.next();
    let good = length.is_none_or(|length| {
        (1..=3).contains(&length.len()) && length.iter().all(u8::is_ascii_digit)
    });
    !address.is_empty() && address.iter().all(is_part) && good
}

/// A line that is one of the server's, as far as grammar goes.
fn taken(line: &[u8]) -> bool {
    match Command::parse(line, Role::Admin) {
        Ok(_) => true,
        // The range is a matter of prose, the number of digits one of grammar.
        Err(Response::BadRequest(Some(Cause::Range))) => {
            let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
            let (verb, last) = (words.next().unwrap_or_default(), words.next_back());
            let mut parts = last.unwrap_or_default().split(|byte| *byte == b'.');
            match verb {
                // A number of LAST, or of a line, with so many digits is in range.
                b"GET_LOGS" | b"RULE" => false,
                b"KILL" => parts.all(|part| part.len() <= 10),
                _ => parts.next().is_some_and(|part| part.len() <= 8),
            }
        }
        // What a network is, and that "-" is no name of an account, are matters of prose.
        Err(Response::BadNetwork(_)) => {
            let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
            words.next_back().is_some_and(is_like_a_network)
        }
        Err(Response::BadRequest(Some(Cause::BadName))) => {
            let text = String::from_utf8_lossy(line);
            let rest = text.strip_prefix("ADD-USER ").map(|rest| rest.trim_start_matches(' '));
            let behind = rest.and_then(|rest| {
                let (name, behind) = rest.split_once(' ')?;
                (*unescape(name.as_bytes()) == *b"-").then_some(behind)
            });
            behind.is_some_and(|behind| taken(format!("ADD-USER x {behind}").as_bytes()))
        }
        Err(_) => false,
    }
}

/// §9: each word behind each beginning, a number with one digit too many among them.
#[test]
fn the_grammar_and_the_parser_agree_on_each_word() {
    let grammar = Grammar::read(&read(PROTOCOL));
    for beginning in beginnings() {
        for word in words() {
            let line = format!("{beginning} {word}");
            let (described, taken) =
                (grammar.matches("command", line.as_bytes()), taken(line.as_bytes()));
            assert_eq!(described, taken, "{line:?}: grammar {described}, parser {taken}");
        }
    }
}

proptest! {
    #![proptest_config(support::property::config(2000))]

    #[test]
    fn the_grammar_takes_the_commands_that_the_parser_takes(line in lines()) {
        thread_local!(static GRAMMAR: Grammar = Grammar::read(&read(PROTOCOL)));
        GRAMMAR.with(|grammar| {
            prop_assert_eq!(grammar.matches("command", &line), taken(&line));
            prop_assert_eq!(grammar.matches("opening", &line), PreAuthCommand::parse(&line).is_some());
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(support::property::config(100))]

    #[test]
    fn the_grammar_describes_what_the_server_says(
        name in prop::collection::vec(any::<u8>(), 1..60),
        host in prop::collection::vec(any::<u8>(), 1..60),
        (address, octets, port) in any::<(IpAddr, u64, u16)>(),
    ) {
        thread_local!(static GRAMMAR: Grammar = Grammar::read(&read(PROTOCOL)));
        GRAMMAR.with(|grammar| {
            let user = user_line(&name, Role::User);
            for octets in [&name[..], &name.repeat(5)] {
                let shown = Field::name(octets);
                prop_assert!(shown.as_str().len() <= 256, "{}", shown);
                prop_assert!(grammar.matches("field", shown.as_str().as_bytes()), "{}", shown);
            }
            prop_assert!(grammar.matches("user-line", user.as_bytes()), "{}", user);
            for host in [Host::Name(host.clone().into()), Host::Ip(address)] {
                let time = std::time::SystemTime::UNIX_EPOCH.into();
                let target = Target { host, port };
                let line = log_line(time, &name, address, &target, octets);
                prop_assert!(grammar.matches("log-line", line.as_bytes()), "{}", line);
                prop_assert!(grammar.matches("body-line", ended(line).as_bytes()));
                let closed = CloseEvent {
                    id: Field::new("17.3"),
                    user: Field::name(&name),
                    source: Field::new(SocketAddr::new(address, port)),
                    destination: Field::new(&target),
                    up: octets,
                    down: 0,
                    duration: Duration::from_millis(octets >> 20),
                    reason: Field::new("finished"),
                    rule: Some(octets),
                };
                let line = format!("650 {}", Event::Close(closed));
                prop_assert!(grammar.matches("event", line.as_bytes()), "{}", line);
            }
            let metrics = MetricsBody { historical: octets, current: u64::from(port), bytes: octets };
            let lines = metrics.lines().map(ended).concat();
            prop_assert!(grammar.matches("metrics-body", lines.as_bytes()), "{}", lines);
            let reply = format!("200 OK\n{lines}.\n");
            prop_assert!(grammar.matches("reply", reply.as_bytes()), "{}", reply);
            Ok(())
        })?;
    }
}

#[test]
fn the_grammar_describes_every_status_line() {
    let grammar = Grammar::read(&read(PROTOCOL));
    let causes = [Cause::Syntax, Cause::Exists, Cause::NoUser, Cause::Range, Cause::BadName]
        .into_iter()
        .chain([Cause::BadRole, Cause::Own, Cause::NoVerb, Cause::Verb, Cause::LongLine])
        .map(|cause| Response::BadRequest(Some(cause)));
    let others = [
        Response::Welcome,
        Response::Done,
        Response::Goodbye,
        Response::BadRequest(None),
        Response::Unauthorized,
        Response::Forbidden,
        Response::Pong(None),
        Response::Pong(Some("word".to_owned())),
        Response::Killed(17),
        Response::Range("buffer-size takes 1 to 1048576 bytes (units: k, M, G, T)".to_owned()),
        Response::BadNetwork(NetworkError::Malformed),
        Response::BadNetwork(NetworkError::HostBits(Network::parse("::/0").expect("a network"))),
        Response::AlreadyClosing,
        Response::TooManyNetworks,
        Response::TooMany,
    ];
    let missing = [Missing::User, Missing::Connection, Missing::Key, Missing::Network]
        .map(Response::NotFound);
    let notices = [Notice::Shutdown, Notice::Slow].map(Response::Closing);
    for response in others.into_iter().chain(causes).chain(missing).chain(notices) {
        let line = response.to_string();
        assert!(grammar.matches("status", line.as_bytes()), "{line}");
        assert!(grammar.matches("status-line", ended(line).as_bytes()));
    }
    for line in ["200 ok", "200", "404 Not Found", "400 Bad Request [OTHER] x"] {
        assert!(!grammar.matches("status", line.as_bytes()), "{line}");
    }
}
