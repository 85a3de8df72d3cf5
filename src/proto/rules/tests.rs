//! The text of rules, and the matcher against a naive reading of them.

use std::net::IpAddr;

use metp_protocol::network::Network;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::proto::addresses::leads_to;

fn rule(text: &str) -> Rule {
    Rule::parse(text.as_bytes()).expect("a good rule").expect("a rule")
}

fn fault(text: &str) -> String {
    Rule::parse(text.as_bytes()).expect_err(text).to_string()
}

fn set(text: &str) -> RuleSet {
    RuleSet::parse(text.as_bytes()).expect("good rules")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Alice at 192.0.2.1 asks to connect.
fn question(asked: Asked<'_>) -> Question<'_> {
    let source = address("192.0.2.1");
    Question { user: b"alice", source, command: Commands::CONNECT, asked }
}

fn to(ip: &str, port: u16) -> Asked<'static> {
    Asked::Address { name: None, address: address(ip), port: Port::Is(port) }
}

fn named<'a>(name: &'a str, ip: &str, port: u16) -> Asked<'a> {
    Asked::Address { name: Some(name), address: address(ip), port: Port::Is(port) }
}

/// The line that decides, and how.
fn verdict(rules: &RuleSet, question: &Question<'_>) -> (u32, bool) {
    let verdict = rules.verdict(question).expect("a verdict");
    (verdict.line, verdict.allow)
}

#[test]
fn clauses_come_in_any_order_and_are_shown_in_one() {
    for (text, shown) in [
        ("allow", "allow"),
        ("  deny\t# all the rest", "deny"),
        ("allow port 443 to Example.COM. user bob", "allow user bob to example.com port 443"),
        (
            "deny command udp,connect from ::ffff:10.0.0.0/104 user a,b-*,-",
            "deny user a,b-*,- from 10.0.0.0/8 command connect,udp",
        ),
        (
            "deny to 10.0.0.1,.corp.example port 1-1,80-90 \r\n",
            "deny to 10.0.0.1/32,.corp.example port 1,80-90",
        ),
        ("deny user a\\x2cb,\\x2a,x\\x20y,*", "deny user a\\x2cb,\\x2a,x\\x20y,*"),
        ("deny to _srv.xn--bcher-kva.example", "deny to _srv.xn--bcher-kva.example"),
    ] {
        assert_eq!(rule(text).to_string(), shown);
        assert_eq!(rule(shown), rule(text));
    }
    for blank in ["", "  ", "# allow", "\t# x", "\r\n", "#"] {
        assert_eq!(Rule::parse(blank.as_bytes()), Ok(None), "{blank:?}");
    }
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    for (text, part) in [
        ("permit", "a rule begins with allow or deny, not \"permit\""),
        ("Allow", "not \"Allow\""),
        ("deny prot 25", "unknown word \"prot\": known are user, from, to, port, command"),
        ("deny port", "port has no value"),
        ("deny port 25 port 26", "port is given twice"),
        ("deny command udp command udp", "command is given twice"),
        ("deny port 80, 443", "port has an empty entry: a list is written a,b without blanks"),
        ("deny port 65536", "\"65536\" is neither a port nor a range"),
        ("deny port 90-80", "\"90-80\""),
        ("deny port +80", "\"+80\""),
        ("deny port https", "\"https\""),
        ("deny from example.com", "\"example.com\" is not a network"),
        (
            "deny to 10.0.0.1/8",
            "\"10.0.0.1/8\" is not a network without bits behind its prefix, such as 10.0.0.0/8",
        ),
        ("deny to 10.0.0", "\"10.0.0\" is not a network"),
        ("deny to [::1]", "is not a network"),
        ("deny to *.example.com", "\"*.example.com\" is neither a network"),
        ("deny to b\u{fc}cher.example", "\"b\\xc3\\xbccher.example\" is neither"),
        ("deny to a..b", "neither"),
        ("deny to .", "is not a network"),
        ("deny user a*b", "\"a*b\" is no user"),
        ("deny user **", "is no user"),
        ("deny command ping", "unknown command \"ping\": known are connect, bind, udp, resolve"),
        ("deny\u{7}", "control character \\x07"),
        ("deny to\u{1b}[2J x", "control character \\x1b"),
    ] {
        let told = fault(text);
        assert!(told.contains(part), "{text}: {told}");
        assert!(told.is_ascii() && !told.contains('\n'));
    }
    assert!(fault(&format!("deny to {}", "a".repeat(5000))).contains("more than 4096 bytes"));
    assert!(fault(&format!("deny {}", "a".repeat(4000))).len() < 200);
}

#[test]
fn a_file_is_good_as_a_whole_or_not_at_all() {
    let errors = |text: &[u8]| -> Vec<String> {
        let errors = parse(text).expect_err("errors");
        errors.iter().map(LineError::to_string).collect()
    };
    let told = errors(b"deny prot 1\n# fine\nallow to 10.0.0.0/8\nallow x y\n");
    assert_eq!(told.len(), 2);
    assert!(
        told[0].starts_with("line 1: unknown word \"prot\"") && told[1].starts_with("line 4: ")
    );
    assert_eq!(errors(b""), ["line 1: there is no rule: the last has to be a bare allow or deny"]);
    assert!(errors(b"# nothing\n\n")[0].starts_with("line 2: there is no rule"));
    let told = errors(b"allow\ndeny to 10.0.0.0/8\n# end\n");
    assert_eq!(told, ["line 2: the last rule has to be a bare allow or deny, for all the rest"]);
    assert_eq!(errors(&b"x\n".repeat(1000)).len(), MOST_ERRORS);
    let many = [&b"deny port 1\n".repeat(MOST_RULES)[..], b"allow\n"].concat();
    assert!(errors(&many)[0].contains("more than 100000 rules"));
    // With a byte order mark, CRLF, and no end of the last line.
    let rules = parse(b"\xef\xbb\xbfdeny port 1\r\n\r\nallow").expect("good");
    assert_eq!(rules.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3]);
    let unreachable = |text| set(text).unreachable();
    assert_eq!(unreachable("deny port 1\nallow\n"), None);
    let told = unreachable("deny port 1\ndeny\n\nallow port 2\nallow\n").expect("two of them");
    assert_eq!(told, "line 4 is never reached: line 2 decides about all the rest");
}

/// Trap 20: a name in a rule is what the client asked for, and nothing else.
#[test]
fn names_and_addresses_are_told_apart() {
    let rules = set("deny to example.com\ndeny to .corp.example\ndeny to 10.0.0.0/8\nallow\n");
    fn line(rules: &RuleSet, asked: Asked<'_>) -> u32 {
        verdict(rules, &question(asked)).0
    }
    assert_eq!(line(&rules, named("example.com", "192.0.2.9", 80)), 1);
    // Asked for by its address, a host has no name.
    assert_eq!(line(&rules, to("192.0.2.9", 80)), 4);
    assert_eq!(line(&rules, named("www.example.com", "192.0.2.9", 80)), 4);
    for name in ["corp.example", "a.corp.example", "a.b.corp.example"] {
        assert_eq!(line(&rules, named(name, "192.0.2.9", 80)), 2, "{name}");
    }
    for name in ["xcorp.example", "corp.example.net", "example", ""] {
        assert_eq!(line(&rules, named(name, "192.0.2.9", 80)), 4, "{name}");
    }
    assert_eq!(line(&rules, named("else.example", "10.1.2.3", 80)), 3);
    assert_eq!(line(&rules, to("::ffff:10.1.2.3", 80)), 3);
    for name in ["EXAMPLE.com", "example.com.", "Example.Com."] {
        assert_eq!(line(&rules, named(&normal_name(name), "192.0.2.9", 80)), 1);
    }
    assert_eq!(normal_name("example.com.."), "example.com.");
    let ports = set("deny port 1-65535\nallow\n");
    assert_eq!(verdict(&ports, &question(to("192.0.2.9", 0))).0, 2);
}

#[test]
fn every_clause_counts() {
    let rules = set(
        "allow user alice,dev-* from 192.0.2.0/24 to 10.0.0.0/8 port 80,8000-8099 command connect,udp\ndeny\n",
    );
    let good = question(to("10.1.1.1", 8050));
    assert_eq!(verdict(&rules, &good), (1, true));
    assert_eq!(verdict(&rules, &Question { user: b"dev-7", ..good }), (1, true));
    assert_eq!(verdict(&rules, &Question { user: b"Alice", ..good }), (2, false));
    assert_eq!(verdict(&rules, &Question { user: b"dev", ..good }), (2, false));
    assert_eq!(verdict(&rules, &Question { source: address("192.0.3.1"), ..good }), (2, false));
    assert_eq!(verdict(&rules, &Question { command: Commands::UDP, ..good }), (1, true));
    assert_eq!(verdict(&rules, &Question { command: Commands::BIND, ..good }), (2, false));
    assert_eq!(verdict(&rules, &question(to("11.1.1.1", 80))), (2, false));
    assert_eq!(verdict(&rules, &question(to("10.1.1.1", 81))), (2, false));
    // A look-up has no port.
    let asked = Asked::Address { name: None, address: address("10.1.1.1"), port: Port::Nothing };
    assert_eq!(verdict(&rules, &question(asked)), (2, false));
}

/// What is denied is denied in every spelling that leads there; what is allowed is allowed as it is written.
#[test]
fn no_other_spelling_of_an_address_passes() {
    let rules =
        set("deny to 10.0.0.0/8,127.0.0.0/8\nallow to 64:ff9b::/96\ndeny to ::1/128\nallow\n");
    for (address, expected) in [
        ("10.1.2.3", 1),
        ("::ffff:10.1.2.3", 1),
        ("::10.1.2.3", 1),
        ("64:ff9b::10.1.2.3", 1),
        ("64:ff9b:1::a01:203", 1),
        ("2002:a01:203::5", 1),
        ("2001:db8::5efe:10.1.2.3", 1),
        ("127.0.0.1", 1),
        ("0.0.0.0", 1),
        ("64:ff9b::", 1),
        ("::", 1),
        ("::1", 3),
        ("64:ff9b::192.0.2.1", 2),
        ("192.0.2.1", 4),
        ("2001:db8::1", 4),
    ] {
        assert_eq!(verdict(&rules, &question(to(address, 80))).0, expected, "{address}");
    }
    let only = set("allow to 10.0.0.0/8,::1/128\ndeny\n");
    for (address, expected) in
        [("10.1.2.3", 1), ("::10.1.2.3", 2), ("64:ff9b::10.1.2.3", 2), ("::", 2)]
    {
        assert_eq!(verdict(&only, &question(to(address, 80))).0, expected, "{address}");
    }
}

/// A name that is denied whatever its addresses are is not looked up.
#[test]
fn what_is_not_known_yet_is_left_open() {
    let rules = set(
        "allow user bob to 10.0.0.0/8\nallow to .good.example port 443\ndeny to 10.0.0.0/8\nallow user carol\ndeny\n",
    );
    let name = |name, port| question(Asked::Name { name, port: Port::Is(port) });
    let refusal = |question: &Question<'_>| rules.refusal(question).map(|verdict| verdict.line);
    assert_eq!(refusal(&name("a.good.example", 443)), None);
    assert_eq!(refusal(&name("a.good.example", 80)), Some(5));
    assert_eq!(refusal(&name("else.example", 443)), Some(5));
    assert_eq!(refusal(&Question { user: b"bob", ..name("else.example", 443) }), None);
    assert_eq!(refusal(&Question { user: b"carol", ..name("else.example", 443) }), None);
    let unknown = question(Asked::Unknown);
    assert_eq!(refusal(&unknown), None);
    let only = set("allow user bob\ndeny\n");
    assert_eq!(only.refusal(&unknown).map(|verdict| verdict.line), Some(2));
    assert_eq!(only.refusal(&Question { user: b"bob", ..unknown }), None);
    let judge = |question: &Question<'_>| match rules.judge(question).expect("a judgement") {
        Judgement::Decided(Verdict { allow, line, .. }) => (line, Some(allow)),
        Judgement::Depends(line) => (line, None),
    };
    assert_eq!(judge(&name("a.good.example", 443)), (2, Some(true)));
    assert_eq!(judge(&Question { user: b"carol", ..name("x.example", 1) }), (3, None));
    assert_eq!(judge(&Question { user: b"bob", ..name("x.example", 1) }), (1, None));
    assert_eq!(judge(&name("x.example", 1)), (5, Some(false)));
}

#[test]
fn hits_are_kept_by_the_text_of_a_rule() {
    let rules = set("deny port 1\ndeny port 1\nallow\n");
    let verdict = rules.verdict(&question(to("10.0.0.1", 1))).expect("a verdict");
    rules.count(verdict);
    rules.count(verdict);
    let hits = |rules: &RuleSet| -> Vec<(u32, u64)> {
        rules.from(0).map(|(line, hits, _)| (line, hits)).collect()
    };
    assert_eq!(hits(&rules), [(1, 2), (2, 0), (3, 0)]);
    let changed = set("# new\ndeny port 2\ndeny port 1\ndeny port 1\nallow\n");
    changed.continue_counting(&rules, &changed.compiled().carried(rules.compiled()));
    assert_eq!(hits(&changed), [(2, 0), (3, 2), (4, 0), (5, 0)]);
    assert_eq!((changed.len(), changed.at_line(3)), (4, Some(&rule("deny port 1"))));
    assert_eq!(changed.at_line(1), None);
}

#[test]
fn one_line_comes_or_goes() {
    let file = b"# first\r\ndeny port 1 # why\r\nallow";
    let insert = |line, text| edit(file, &Edit::Insert(line, rule(text)));
    assert_eq!(
        insert(1, "deny port 2").expect("fits"),
        b"deny port 2\r\n# first\r\ndeny port 1 # why\r\nallow"
    );
    assert_eq!(
        insert(3, "deny port 2").expect("fits"),
        b"# first\r\ndeny port 1 # why\r\ndeny port 2\r\nallow"
    );
    assert_eq!(
        insert(4, "deny").expect("fits"),
        b"# first\r\ndeny port 1 # why\r\nallow\r\ndeny\r\n"
    );
    assert_eq!(insert(0, "deny"), Err(BadEdit::NoRule(0)));
    assert_eq!(insert(5, "deny"), Err(BadEdit::NoRule(5)));
    let delete = |line, text| edit(file, &Edit::Delete(line, rule(text)));
    assert_eq!(delete(2, "deny  port 1").expect("fits"), b"# first\r\nallow");
    let other = delete(2, "deny port 2").expect_err("another rule");
    assert_eq!(other.to_string(), "line 2 is: deny port 1");
    assert_eq!(delete(1, "allow"), Err(BadEdit::NoRule(1)));
    assert_eq!(delete(9, "allow"), Err(BadEdit::NoRule(9)));
    let marked = edit(b"\xef\xbb\xbfallow\n", &Edit::Insert(1, rule("deny port 7")));
    assert_eq!(marked.expect("fits"), b"\xef\xbb\xbfdeny port 7\nallow\n");
    assert_eq!(edit(b"", &Edit::Insert(1, rule("allow"))).expect("fits"), b"allow\n");
    let torn = edit(b"deny port 1\r\nallow\r", &Edit::Insert(3, rule("deny")));
    assert_eq!(torn.expect("fits"), b"deny port 1\r\nallow\r\ndeny\r\n");
}

/// It stays at the beginning of the file, whatever becomes of the first line.
#[test]
fn a_byte_order_mark_becomes_no_part_of_a_rule() {
    let deny = rule("deny port 1");
    let delete = |line| Edit::Delete(line, deny.clone());
    for (file, change, wanted) in [
        ("^deny port 1\r\nallow", delete(1), "^allow"),
        ("^# c\ndeny port 1\nallow\n", delete(2), "^# c\nallow\n"),
        ("^allow", Edit::Insert(1, deny.clone()), "^deny port 1\nallow"),
        ("^allow\r\n", Edit::Insert(2, rule("deny")), "^allow\r\ndeny\r\n"),
        ("^", Edit::Insert(1, rule("allow")), "^allow\n"),
    ] {
        let [file, wanted] = [file, wanted].map(|text| text.replace('^', "\u{feff}"));
        let text = edit(file.as_bytes(), &change).expect("fits");
        assert_eq!(String::from_utf8_lossy(&text), wanted);
        assert!(parse(&text).is_ok(), "{wanted:?}");
    }
}

/// A few of each, so that they meet.
fn any_rule() -> impl Strategy<Value = Rule> {
    let user = select(vec!["a", "b", "ab", "a*", "ab*", "*", "c*"]);
    let network = select(vec![
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.1.1/32",
        "192.0.2.0/24",
        "0.0.0.0/0",
        "::/0",
        "127.0.0.0/8",
        "2001:db8::/32",
    ]);
    let name = select(vec!["a.example", "b.example", ".a.example", ".example", "x.a.example"]);
    let destination = prop_oneof![network.clone(), name];
    let port = select(vec!["1", "2", "3", "1-2", "2-200", "0-65535"]);
    let command = select(vec!["connect", "bind", "udp", "resolve"]);
    let clause = |word: &'static str, entries: BoxedStrategy<Vec<&'static str>>| {
        option::of(entries).prop_map(move |entries| match entries {
            Some(entries) => format!(" {word} {}", entries.join(",")),
            None => String::new(),
        })
    };
    let clauses = (
        any::<bool>(),
        clause("user", vec(user, 1..3).boxed()),
        clause("from", vec(network, 1..3).boxed()),
        clause("to", vec(destination, 1..3).boxed()),
        clause("port", vec(port, 1..3).boxed()),
        clause("command", vec(command, 1..3).boxed()),
    );
    clauses.prop_map(|(allow, user, from, to, port, command)| {
        rule(&format!("{}{user}{from}{to}{port}{command}", if allow { "allow" } else { "deny" }))
    })
}

fn any_question()
-> impl Strategy<Value = (&'static str, IpAddr, Commands, Option<&'static str>, IpAddr, u16)> {
    let ips = [
        "10.1.1.1",
        "10.1.2.3",
        "10.9.9.9",
        "192.0.2.1",
        "2001:db8::1",
        "::1",
        "::ffff:10.1.1.1",
        "0.0.0.0",
        "::",
        "64:ff9b::a01:101",
        "2002:c000:201::",
    ];
    let ips = ips.map(address);
    let names = ["a.example", "b.example", "x.a.example", "y.x.a.example", "example", "else"];
    let commands = [Commands::CONNECT, Commands::BIND, Commands::UDP, Commands::RESOLVE];
    (
        select(vec!["a", "b", "ab", "abc", "c", "-"]),
        select(ips.to_vec()),
        select(commands.to_vec()),
        option::of(select(names.to_vec())),
        select(ips.to_vec()),
        select(vec![0_u16, 1, 2, 3, 150, 65535]),
    )
}

/// Reads the words of a rule each time, as somebody would who has nothing but its text.
fn matches_naively(
    text: &str,
    (user, source, command, name, ip, port): (&str, IpAddr, Commands, Option<&str>, IpAddr, u16),
) -> bool {
    let words: Vec<&str> = text.split(' ').skip(1).collect();
    words.chunks(2).all(|clause| {
        let within = |network: &str| Network::parse(network).expect("a network");
        let denies = text.starts_with("deny");
        clause[1].split(',').any(|entry| match clause[0] {
            "user" => match entry.strip_suffix('*') {
                Some(prefix) => user.starts_with(prefix),
                None => user == entry,
            },
            "from" => within(entry).contains(source),
            "to" if entry.contains('/') => {
                let leads =
                    denies && leads_to(ip.to_canonical()).any(|ip| within(entry).contains(ip));
                leads || within(entry).contains(ip)
            }
            "to" => name.is_some_and(|name| match entry.strip_prefix('.') {
                Some(suffix) => name == suffix || name.ends_with(entry),
                None => name == entry,
            }),
            "port" => match entry.split_once('-') {
                Some((first, last)) => {
                    (first.parse().expect("a port")..=last.parse().expect("a port")).contains(&port)
                }
                None => entry.parse() == Ok(port),
            },
            _ => Commands::find(entry.as_bytes()) == Some(command),
        })
    })
}

proptest! {
    #![proptest_config(support::property::config(512))]

    #[test]
    fn the_first_rule_that_matches_decides(
        mut rules in vec(any_rule(), 0..40), asked in any_question(), last in any::<bool>(),
    ) {
        rules.push(rule(if last { "allow" } else { "deny" }));
        let text = rules.iter().map(|rule| format!("{rule}\n")).collect::<String>();
        let set = set(&text);
        let place = text.lines().position(|line| matches_naively(line, asked)).expect("the last");
        let (user, source, command, name, address, port) = asked;
        let full_address = address;
        let address = Asked::Address { name, address, port: Port::Is(port) };
        let full = Question { user: user.as_bytes(), source, command, asked: address };
        let expected = (place as u32 + 1, rules[place].allow);
        prop_assert_eq!(verdict(&set, &full), expected);
        prop_assert!(set.refusal(&full).is_some() != expected.1);
        // What is refused before all is known is refused.
        let open = Asked::Address { name, address: full_address, port: Port::Unknown };
        let mut less = vec![Asked::Unknown, open];
        less.extend(name.map(|name| Asked::Name { name, port: Port::Is(port) }));
        for asked in less {
            let question = Question { asked, ..full };
            if set.refusal(&question).is_some() {
                prop_assert!(!expected.1, "{:?} {}", question, text);
            }
            if let Some(Judgement::Decided(verdict)) = set.judge(&question) {
                prop_assert_eq!(verdict.allow, expected.1, "{:?} {}", question, text);
            }
        }
    }

    /// Nothing is left open for no reason: if all addresses and ports that make a difference end alike, so does the name.
    #[test]
    fn a_name_that_no_address_helps_is_refused(
        mut rules in vec(any_rule(), 0..12), asked in any_question(),
    ) {
        rules.push(rule("deny"));
        let set = set(&rules.iter().map(|rule| format!("{rule}\n")).collect::<String>());
        let (user, source, command, _, _, port) = asked;
        let name = Asked::Name { name: "x.a.example", port: Port::Is(port) };
        let question = Question { user: user.as_bytes(), source, command, asked: name };
        let may_help = rules.iter().any(|rule| rule.allow && rule.destinations.iter().any(|entry| {
            matches!(entry, Destination::Network(_))
        }));
        let has_verdict = set.refusal(&question).is_some();
        let verdict = set.judge(&question);
        prop_assert_eq!(
            has_verdict,
            matches!(verdict, Some(Judgement::Decided(verdict)) if !verdict.allow)
        );
        if !may_help {
            prop_assert!(has_verdict || set.verdict(&question).is_some_and(|verdict| verdict.allow));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in vec(any::<u8>(), 0..200)) {
        if let Ok(Some(rule)) = Rule::parse(&text) {
            let shown = rule.to_string();
            prop_assert_eq!(Rule::parse(shown.as_bytes()), Ok(Some(rule)));
        }
        let _ = RuleSet::parse(&text);
    }

    #[test]
    fn rules_are_shown_as_they_are_read(rule in any_rule()) {
        prop_assert_eq!(Rule::parse(rule.to_string().as_bytes()), Ok(Some(rule)));
    }
}
