//! Text from outside cannot forge what people read: in every log, over METP and on the terminal it takes one
//! line of printable ASCII, and two different names never look alike.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use metp_protocol::text::{Escaped, unescape};
use metp_protocol::timestamp::Timestamp;
use metp_protocol::{Role, log_line, user_line};
use proptest::prelude::*;
use socks5d::proto::socks5::{Host, Target};
use support::client::{command, run};
use support::metp::Metp;
use support::origin::Origin;
use support::proxy::{Builder, connect_from};
use support::socks::{CHOSEN, Client, DENIED, HELLO, WELCOME, credentials, name_request};
use support::{eventually, noise};

/// Names that would forge a line, a field, a screen, or look like one another. None holds a NUL or a colon, so
/// that those without other control characters can be given with `-u`.
fn hostile() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "two words",
        "two\twords",
        "two\u{a0}words",
        "two\\x20words",
        "two\\x09words",
        "two\\\\x20words",
        "line\nline",
        "line\r\nline",
        "line\u{2028}line",
        "line\u{85}line",
        "back\\slash",
        "back\\\\slash",
        "\\",
        "\\x",
        "\\x5c",
        "\u{1b}[2J\u{1b}[1;1H",
        "\u{1b}]0;title\u{7}",
        "\u{9b}2J",
        "\u{8}\u{8}\u{8}root",
        "\u{202e}toor",
        "\u{2066}root\u{2069}",
        "\u{200b}root",
        "\u{feff}root",
        "r\u{43e}\u{43e}t",
        "ro\u{301}ot",
        "r\u{f3}ot",
        "\u{7f}",
        " root",
        "root ",
        ".",
        "..",
        ".root",
        "\\x2eroot",
        "-u",
        "\"root\" admin",
        "root admin",
        "200 OK",
        "%s%n",
        "\u{1f600}",
    ]
    .into_iter()
    .map(Vec::from)
    .collect();
    // As many bytes as there is room for in a METP line when each is shown as four.
    names.extend([b"\xff\xfe\xc0\x80".to_vec(), b"\xed\xa0\x80".to_vec(), vec![b'\n'; 200]]);
    names.extend([vec![0x1b; 230], vec![b'a'; 255], [&vec![b'a'; 254][..], b"b"].concat()]);
    names
}

/// One line of text that a terminal shows and does not obey.
fn is_plain(line: &str) -> bool {
    line.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A word that stands for exactly these bytes.
fn stands_for(word: &str, name: &[u8]) {
    assert!(is_plain(word) && !word.contains(' '), "{word:?}");
    assert_eq!(*unescape(word.as_bytes()), *name, "{word:?}");
}

fn account(name: &[u8]) -> [OsString; 2] {
    ["-u".into(), OsString::from_vec([name, b":secret"].concat())]
}

/// Whether `-u` takes it.
fn can_be_given(name: &[u8]) -> bool {
    !name.iter().any(u8::is_ascii_control)
}

/// Access log and diagnostics of the program, and METP's USERS: of accounts that a command line can hold, and of
/// failed logins and destinations in all names.
#[test]
fn hostile_names_are_one_word_in_every_log() {
    let names = hostile();
    let given: Vec<&Vec<u8>> = names.iter().filter(|name| can_be_given(name)).collect();
    assert!(given.len() > 25 && names.len() - given.len() > 8, "some of both");
    let proxy = Builder::default().args(given.iter().flat_map(|name| account(name))).start();
    for (number, name) in names.iter().enumerate() {
        // Of one source ten failures a second have a line each.
        let source = [127, 0, 2, u8::try_from(number).expect("few")].into();
        let mut client = Client::new(connect_from(source, proxy.socks_address()));
        client.say(HELLO).hears(CHOSEN).say(&credentials(name, b"wrong")).hears(DENIED);
        let login = match can_be_given(name) {
            true => credentials(name, b"secret"),
            false => credentials(b"admin", b"1234"),
        };
        let mut client = Client::new(proxy.socks());
        client.say(HELLO).hears(CHOSEN).say(&login).hears(WELCOME);
        // The blank at its end keeps it from every resolver.
        let target = [&name[..name.len().min(254)], b" "].concat();
        client.say(&name_request(&target, 80)).refused(4);
        drop(client);
        let lines = || (proxy.stdout.all().len(), proxy.stderr.all().len());
        eventually("both are told", || lines() >= (number + 1, number + 3));
    }
    proxy.wait_until_idle();
    let log = proxy.stdout.all();
    assert_eq!(log.len(), names.len(), "a line for each");
    for (line, name) in log.iter().zip(&names) {
        are_one_word(line, if can_be_given(name) { name } else { b"admin" }, name);
    }
    let failed: Vec<String> =
        proxy.stderr.all().into_iter().filter(|l| l.contains("auth")).collect();
    assert_eq!(failed.len(), names.len(), "a line for each");
    for (number, (line, name)) in failed.iter().zip(&names).enumerate() {
        assert!(is_plain(line), "{line:?}");
        let before = format!(" remote=127.0.2.{number} user=\"");
        let (_, user) = line.split_once(&before).expect("the fixed form");
        stands_for(user.strip_suffix('"').expect("a quote"), name);
    }
    assert!(proxy.stderr.all().iter().all(|line| is_plain(line)));
    let given: Vec<Vec<u8>> = given.into_iter().cloned().collect();
    are_listed(proxy.metp_address(), &mut proxy.admin(), &given);
}

/// Access log, USERS and the command line, for accounts that no command line can hold.
#[test]
fn hostile_accounts_are_one_word_in_every_log() {
    let (names, log) = (hostile(), crate::inprocess::Written::default());
    let mut builder = crate::inprocess::Builder::default().access_log(&log);
    for name in &names {
        builder = builder.account(name, b"secret");
    }
    let server = builder.start();
    for (number, name) in names.iter().enumerate() {
        let mut client = server.stranger();
        client.say(HELLO).hears(CHOSEN).say(&credentials(name, b"secret")).hears(WELCOME);
        let target = [&name[..name.len().min(254)], b" "].concat();
        client.say(&name_request(&target, 80)).refused(4);
        drop(client);
        eventually("it is told", || log.lines().len() > number);
    }
    assert_eq!(log.lines().len(), names.len(), "a line for each");
    for (line, name) in log.lines().iter().zip(&names) {
        are_one_word(line, name, name);
    }
    are_listed(server.metp_address(), &mut server.admin(), &names);
}

/// A line of the access log, for a request of this account to a destination that begins like a name.
fn are_one_word(line: &str, user: &[u8], destination: &[u8]) {
    let fields: Vec<&str> = line.split('\t').collect();
    assert_eq!(fields.len(), 12, "{line:?}");
    assert!(fields.iter().all(|field| is_plain(field)), "{line:?}");
    stands_for(fields[1], user);
    stands_for(fields[5], &[&destination[..destination.len().min(254)], b" "].concat());
}

/// METP lists these accounts behind the administrator's, and so does the command line, which shows the same when
/// one of them calls.
fn are_listed(metp: SocketAddr, admin: &mut Metp, names: &[Vec<u8>]) {
    let users = admin.ask("USERS");
    assert_eq!(users.len(), names.len() + 1);
    for (line, name) in users[1..].iter().zip(names) {
        stands_for(line.strip_suffix(" user").expect("its role"), name);
    }
    let port = metp.port().to_string();
    for (name, listed) in names.iter().zip(&users[1..]) {
        let shown = listed.strip_suffix(" user").expect("its role");
        let login = [shown.as_bytes(), b":secret"].concat();
        let login = [OsStr::new("-p"), port.as_ref(), "-u".as_ref(), OsStr::from_bytes(&login)];
        let outcome = run(command(login).arg("-l"));
        assert_eq!((outcome.code, outcome.stdout.as_str()), (77, "Connection closed\n"));
        let said: Vec<&str> = outcome.stderr.lines().collect();
        let [connecting, "USERS: Not authorized to execute command"] = said[..] else {
            panic!("{said:?}")
        };
        let (_, user) = connecting.split_once(" with user '").expect("who");
        stands_for(user.strip_suffix('\'').expect("a quote"), name);
    }
    let outcome = run(&mut command(["-p", &port, "-u", "admin:1234", "-l"]));
    let expected: Vec<&str> =
        users.iter().map(String::as_str).chain(["Connection closed"]).collect();
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), expected);
}

/// GET_LOGS, for names that resolve, and for accounts that no command line can hold.
#[test]
fn hostile_names_are_one_word_in_metps_log() {
    let origin = Origin::echo();
    let resolvable = |name: &Vec<u8>| {
        name.len() < 100
            && name != b"*"
            && name.iter().all(|byte| !matches!(byte, 0..=0x20 | b'\\' | 0x7f))
    };
    let targets =
        hostile().into_iter().filter(resolvable).filter_map(|name| String::from_utf8(name).ok());
    let targets: Vec<String> = targets.collect();
    assert!(targets.len() > 15, "{targets:?}");
    let user = b"\0\n:\x1b[2J\xe2\x80\xae";
    let server = crate::inprocess::Builder::default().account(user, b"secret").start();
    for target in &targets {
        server.names().add(&target.to_ascii_lowercase(), &[origin.address]);
        let mut client = server.stranger();
        client.say(HELLO).hears(CHOSEN).say(&credentials(user, b"secret")).hears(WELCOME);
        let (code, _) = client.say(&name_request(target.as_bytes(), 7)).reply();
        assert_eq!(code, 0, "{target:?}");
    }
    let mut admin = server.admin();
    let records = admin.ask("GET_LOGS");
    assert_eq!(records.len(), targets.len(), "a line for each");
    for (line, target) in records.iter().zip(&targets) {
        let words: Vec<&str> = line.split(' ').collect();
        let [time, who, "127.0.0.1", place, "0"] = words[..] else { panic!("{line:?}") };
        assert!(is_plain(time));
        stands_for(who, user);
        stands_for(place.strip_suffix(":7").expect("its port"), target.as_bytes());
    }
    let shown: HashSet<&String> = records.iter().collect();
    assert_eq!(shown.len(), records.len(), "no two look alike");
    let listed = admin.ask("USERS");
    stands_for(listed[1].strip_suffix(" user").expect("its role"), user);
    let port = server.metp_address().port().to_string();
    let outcome = run(&mut command(["-p", &port, "-u", "admin:1234", "-g"]));
    let expected = format!("{}\nConnection closed\n", records.join("\n"));
    assert_eq!((outcome.code, outcome.stdout), (0, expected));
}

/// METP lines are read as bytes: those that are no names come back nowhere, others as one word.
#[test]
fn metp_repeats_nothing_that_it_did_not_escape() {
    let proxy = Builder::default().start();
    let mut admin = proxy.admin();
    for name in hostile() {
        let flat =
            |bytes: &[u8]| bytes.iter().copied().filter(|byte| *byte != b'\n').collect::<Vec<_>>();
        for verb in ["ADD-USER", "DELETE-USER", "SET-ROLE", ""] {
            let line = [verb.as_bytes(), b" ", &flat(&name), b" x\n"].concat();
            admin.say_bytes(&line);
            let answer = admin.line();
            // A few of these are good names.
            assert!(answer == "200 OK" || answer.starts_with("400 Bad Request ["), "{answer:?}");
        }
    }
    assert!(admin.ask("USERS").iter().all(|line| is_plain(line) && line.split(' ').count() == 2));
}

/// A hostile server: whatever it says, the terminal gets plain lines.
#[test]
fn the_client_shows_no_byte_that_a_terminal_obeys() {
    let every: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    for (welcome, answer) in [
        (&b"200 x\n"[..], [&b"200 "[..], &every, b"\n", &every, b"\n.\n200 bye\n"].concat()),
        (b"200 x\n", [&b"400 "[..], &every, b"\n200 \x1b[2J\n"].concat()),
        (b"200 x\n", [&b"500 "[..], &every, b"\n"].concat()),
        (b"200 x\n", [&every[..], b"\n"].concat()),
        (b"500 \x1b[2J\n", Vec::new()),
        (b"400 \x1b]0;x\x07\n", Vec::new()),
        (b"\x1b[2J\xe2\x80\xae\n", Vec::new()),
    ] {
        let welcome = welcome.to_vec();
        let server = Origin::new(move |stream| {
            let mut lines = BufReader::new(stream);
            for say in [&welcome[..], b"200 \x1b\n", &answer] {
                let mut line = Vec::new();
                let read = lines.read_until(b'\n', &mut line);
                if !read.is_ok_and(|count| count > 0) || lines.get_mut().write_all(say).is_err() {
                    return;
                }
            }
            // Whatever else it is asked.
            let _ = lines.read_until(b'\n', &mut Vec::new());
        });
        for flag in ["-m", "-g", "-l", "-c1"] {
            let port = server.address.port().to_string();
            let outcome = run(&mut command(["-p", &port, "-u", "\\x1b[2J:x", flag]));
            for text in [&outcome.stdout, &outcome.stderr] {
                assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
                assert!(text.split_terminator('\n').all(is_plain), "{text:?}");
            }
            assert!(outcome.stderr.contains("with user '\\x1b[2J'"), "{}", outcome.stderr);
        }
    }
}

/// Arguments come back escaped when they are wrong.
#[test]
fn complaints_about_arguments_are_plain() {
    let evil = "\u{1b}[2J\n\u{202e}x";
    let option = format!("--{evil}");
    for arguments in [
        &["-u", evil, "-H", "\u{1b}[2J\u{202e}", "-p", "0"][..],
        &["-u", "a:b", "-p", evil],
        &["-u", "a:b", "-m", evil],
        &["-u", "a:b", "-r", "x", evil],
        &["-u", "a:b", "-c", evil],
        &["-u", "a:b", "-a", evil, ""],
        &["-u", "\u{1b}\n:", "-m"],
        &[&option],
        &["-\u{1b}"],
    ] {
        let outcome = run(&mut command(arguments));
        assert_eq!((outcome.code, outcome.stdout.as_str()), (64, ""), "{arguments:?}");
        assert!(outcome.stderr.ends_with('\n'), "{arguments:?}");
        assert!(outcome.stderr.split_terminator('\n').all(is_plain), "{:?}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{:?}", outcome.stderr);
    }
}

/// Many names at once: each stands for itself.
#[test]
fn random_names_never_look_alike() {
    let random = |seed: u64| {
        let mut name = noise(1 + usize::try_from(seed % 40).expect("small"), seed * 7919 + 1);
        name.iter_mut().filter(|byte| matches!(**byte, 0 | b':')).for_each(|byte| *byte = b'\\');
        name
    };
    let mut names: Vec<Vec<u8>> = (1..200).map(random).collect();
    // And as each is shown.
    let shown: Vec<Vec<u8>> = names.iter().map(|name| Escaped(name).to_string().into()).collect();
    names.extend(shown.into_iter().filter(|name| name.len() <= 200));
    names.sort();
    names.dedup();
    let mut builder = crate::inprocess::Builder::default();
    for name in &names {
        builder = builder.account(name, b"secret");
    }
    let users = builder.start().admin().ask("USERS");
    for (line, name) in users[1..].iter().zip(&names) {
        stands_for(line.strip_suffix(" user").expect("its role"), name);
    }
    assert_eq!(users.iter().collect::<HashSet<_>>().len(), names.len() + 1);
}

/// Two names that may be close to one another: equal, one edit apart, or one as the other is shown.
fn pairs() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\\x0259acef .\n\x1b\"".to_vec())];
    let name = prop::collection::vec(byte, 0..12);
    (name.clone(), name, any::<prop::sample::Index>(), 0..4).prop_map(|(a, b, at, how)| match how {
        0 => (a, b),
        1 => (Escaped(&a).to_string().into_bytes(), a),
        2 => (unescape(&a).into_owned(), a),
        _ => {
            let mut close = a.clone();
            close.splice(at.index(a.len() + 1).., b);
            (a, close)
        }
    })
}

/// A way to show a name.
type View<'a> = &'a dyn Fn(&[u8]) -> String;

proptest! {
    #![proptest_config(support::property::config(2000))]

    #[test]
    fn different_names_never_look_alike((one, other) in pairs()) {
        let time = Timestamp::from(std::time::UNIX_EPOCH);
        let source = IpAddr::from(Ipv4Addr::LOCALHOST);
        let to = |name: &[u8]| Target { host: Host::Name(name.into()), port: 80 };
        let views: [View; 5] = [
            &|name| Escaped(name).to_string(),
            &|name| to(name).to_string(),
            &|name| user_line(name, Role::User),
            &|name| log_line(time, name, source, to(b"x"), 1),
            &|name| log_line(time, b"x", source, to(name), 1),
        ];
        for view in views {
            let (shown, another) = (view(&one), view(&other));
            prop_assert!(is_plain(&shown));
            prop_assert_eq!(shown == another, one == other, "{} {}", shown, another);
        }
        // Nor does one that is a name look like an address.
        let address: SocketAddr = "[::1]:80".parse().expect("a literal");
        let target = Target { host: Host::Ip(address.ip()), port: 80 };
        prop_assert!(target.to_string() != to(&one).to_string() || one == b"[::1]");
    }
}
