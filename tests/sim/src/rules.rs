//! Rules for destinations: any bytes have an answer; what a good file says of a request is what its lines say one by one;
//! and a change of one line leaves every other as it is.

use std::net::IpAddr;

use socks5d::proto::rules::{
    Asked, BadEdit, Commands, Edit, Judgement, MOST_ERRORS, Port, Question, Rule, RuleSet, edit,
    parse,
};

/// Rules that are looked at one by one.
const SOME: usize = 24;

/// Reads a file, asks what is good about some requests, and changes it.
pub fn rules(data: &[u8]) {
    let rules = match parse(data) {
        Ok(rules) => rules,
        Err(errors) => {
            assert!((1..=MOST_ERRORS).contains(&errors.len()));
            assert!(errors.windows(2).all(|two| two[0].line < two[1].line), "out of order");
            for error in &errors {
                let shown = error.to_string();
                assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{shown:?}");
            }
            return;
        }
    };
    let set = RuleSet::parse(data).expect("the same bytes");
    assert_eq!(set.len(), rules.len());
    for (line, rule) in rules.iter().take(SOME) {
        assert_eq!(Rule::parse(rule.to_string().as_bytes()), Ok(Some(rule.clone())));
        assert_eq!(set.at_line(*line), Some(rule));
    }
    if rules.len() <= SOME {
        questions(data, |question| asked(&set, &rules, question));
    }
    for (line, rule) in rules.iter().take(4) {
        let other = Rule::parse(b"deny port 7").expect("good").expect("a rule");
        let longer = edit(data, &Edit::Insert(*line, other.clone())).expect("the line is there");
        let mut wanted = rules.clone();
        let place = wanted.iter().position(|(at, _)| at == line).expect("it is there");
        wanted.iter_mut().skip(place).for_each(|(at, _)| *at += 1);
        wanted.insert(place, (*line, other.clone()));
        assert_eq!(parse(&longer), Ok(wanted), "{line}");
        // And away again.
        let shorter = edit(&longer, &Edit::Delete(*line, other.clone())).expect("it is there");
        let torn = !data.ends_with(b"\n") && *line as usize > 1;
        assert!(shorter == data || torn, "another line has changed");
        if *rule != other {
            let misfit = edit(data, &Edit::Delete(*line, other)).expect_err("another rule");
            assert_eq!(misfit, BadEdit::Other(*line, Box::new(rule.clone())));
        }
    }
}

/// Some requests, drawn from the bytes of the file, so that they meet its rules.
fn questions(data: &[u8], mut ask: impl FnMut(&Question<'_>)) {
    let text = String::from_utf8_lossy(data).to_ascii_lowercase();
    let words: Vec<&str> = text.split([' ', ',', '\n', '\t', '-', '*']).take(64).collect();
    let networks = words.iter().filter_map(|word| word.split('/').next()?.parse().ok());
    let addresses: Vec<IpAddr> = networks.chain([[10, 1, 2, 3].into()]).take(4).collect();
    let ports = words.iter().filter_map(|word| word.parse().ok()).chain([443]).take(3);
    let ports: Vec<u16> = ports.collect();
    let names = words.iter().map(|word| word.trim_start_matches('.'));
    let is_name = |name: &&str| name.contains('.') && name.parse::<IpAddr>().is_err();
    let names: Vec<&str> = names.filter(is_name).chain(["a.b"]).take(3).collect();
    for user in words.iter().map(|word| word.as_bytes()).chain([&b"x"[..]]).take(4) {
        for (place, address) in addresses.iter().enumerate() {
            let source = addresses[(place + 1) % addresses.len()];
            for port in &ports {
                for command in [Commands::CONNECT, Commands::UDP, Commands::BIND] {
                    let name = names.get(place).copied();
                    let asked = Asked::Address { name, address: *address, port: Port::Is(*port) };
                    ask(&Question { user, source, command, asked });
                }
            }
            let (command, name) = (Commands::RESOLVE, names.get(place).copied());
            let asked = Asked::Address { name, address: *address, port: Port::Nothing };
            ask(&Question { user, source, command, asked });
        }
    }
}

/// Asks about a request of which all is known, and about less.
fn asked(set: &RuleSet, rules: &[(u32, Rule)], question: &Question<'_>) {
    let verdict = set.verdict(question).expect("the last matches");
    let alone = |rule: &Rule| {
        let rest = if rule.allow { "deny" } else { "allow" };
        let one = RuleSet::parse(format!("{rule}\n{rest}\n").as_bytes()).expect("good");
        one.verdict(question).is_some_and(|verdict| verdict.line == 1)
    };
    let (line, rule) = rules.iter().find(|(_, rule)| alone(rule)).expect("the last matches");
    assert_eq!((verdict.line, verdict.allow), (*line, rule.allow), "{question:?}");
    let Asked::Address { name, address, port } = question.asked else { return };
    let mut open = vec![Asked::Unknown];
    open.extend(name.map(|name| Asked::Name { name, port }));
    if port != Port::Nothing {
        open.extend(name.map(|name| Asked::Name { name, port: Port::Unknown }));
        open.push(Asked::Address { name, address, port: Port::Unknown });
    }
    for less in open {
        let less = Question { asked: less, ..*question };
        assert!(set.refusal(&less).is_none() || !verdict.allow, "{less:?}");
        match set.judge(&less).expect("the last matches") {
            Judgement::Decided(early) => assert_eq!(early.allow, verdict.allow, "{less:?}"),
            Judgement::Depends(line) => assert!(set.at_line(line).is_some()),
        }
    }
}
