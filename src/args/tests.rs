//! Command lines: their meaning, or the error in one line.

use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::*;
use crate::state::settings::{LocalFor, Settings};

fn args_with(superuser: Option<&str>, line: &[&str]) -> Result<Args, String> {
    let line = line.iter().map(OsString::from);
    match parse(line, superuser.map(OsStr::new)) {
        Ok(CommandLine::Serve(args)) => Ok(*args),
        Ok(CommandLine::Show(text)) => Err(text),
        Ok(CommandLine::Check(_)) => Err("a check".to_owned()),
        Ok(CommandLine::HashPassword) => Err("a hash".to_owned()),
        Err(usage) => Err(usage.to_string()),
    }
}

fn args(line: &[&str]) -> Result<Args, String> {
    args_with(None, line)
}

#[test]
fn defaults() {
    let args = args(&[]).expect("nothing is needed");
    assert_eq!((args.listen, args.port), (None, 1080));
    assert_eq!((args.metp_listen, args.metp_port), ([127, 0, 0, 1].into(), 8080));
    assert_eq!((args.settings, args.max_connections_given), (Settings::default(), false));
    assert_eq!((args.superuser, args.users), (None, Vec::new()));
}

#[test]
fn values() {
    let args = args(&[
        "-l",
        "::1",
        "-p1081",
        "--metp-listen=[::]",
        "-P",
        "0",
        "--buffer-size",
        "1048576",
        "--idle-timeout",
        "0",
        "--grace=0.25",
        "--connect-timeout",
        "1.5",
        "--log-entries",
        "0",
        "--log-level=debug",
        "--allow-local",
    ])
    .expect("good values");
    assert_eq!((args.listen, args.port), ("::1".parse().ok(), 1081));
    assert_eq!((args.metp_listen, args.metp_port), ("::".parse().expect("a literal"), 0));
    let settings = args.settings;
    assert_eq!((settings.buffer_size, settings.log_entries), (1_048_576, 0));
    assert_eq!((settings.log_level, settings.local_for), (log::LevelFilter::Debug, LocalFor::All));
    assert_eq!(settings.grace, Duration::from_millis(250));
    assert_eq!(settings.timeouts.idle, None);
    assert_eq!(settings.timeouts.connect, Some(Duration::from_millis(1500)));
}

/// `socks5d(8)`: sizes and times take units, counts and ports take none.
#[test]
fn values_take_units() {
    let line = "--buffer-size 64k --buffer-memory 1GiB --idle-timeout 5m --connect-timeout 250ms";
    let words: Vec<&str> = line.split(' ').collect();
    let settings = args(&words).expect("good values").settings;
    assert_eq!((settings.buffer_size, settings.buffer_memory), (65_536, 1 << 30));
    assert_eq!(settings.timeouts.idle, Some(Duration::from_secs(300)));
    assert_eq!(settings.timeouts.connect, Some(Duration::from_millis(250)));
    for line in [["--max-connections", "1k"], ["-p", "1k"], ["--idle-timeout", "5M"]] {
        assert!(args(&line).is_err(), "{line:?}");
    }
}

#[test]
fn local_targets_are_for_whom_it_says() {
    for (line, choice) in [
        (&[][..], LocalFor::Loopback),
        (&["--local-for=loopback"], LocalFor::Loopback),
        (&["--local-for", "nobody"], LocalFor::Nobody),
        (&["--local-for=all"], LocalFor::All),
        (&["--allow-local"], LocalFor::All),
        (&["--allow-local", "--local-for=all"], LocalFor::All),
    ] {
        assert_eq!(args(line).expect("good values").settings.local_for, choice, "{line:?}");
    }
}

#[test]
fn bad_values_are_named_with_their_option() {
    for (line, says) in [
        (&["-p", "65536"][..], "-p 65536: 0 to 65535 expected"),
        (&["-p", "-1"], "-p -1: 0 to 65535 expected"),
        (&["--port", "+1"], "-p +1: 0 to 65535 expected"),
        (&["-P", "8080x"], "-P 8080x: 0 to 65535 expected"),
        (&["-P", ""], "-P \"\": 0 to 65535 expected"),
        (&["-l", "localhost"], "-l localhost: an IP address expected"),
        (&["-L", "1.2.3"], "-L 1.2.3: an IP address expected"),
        (
            &["--buffer-size", "0"],
            "--buffer-size 0: 1 to 1048576 bytes (units: k, M, G, T) expected",
        ),
        (
            &["--buffer-size", "1048577"],
            "--buffer-size 1048577: 1 to 1048576 bytes (units: k, M, G, T) expected",
        ),
        (
            &["--buffer-size", "64kB"],
            "--buffer-size 64kB: 1 to 1048576 bytes (units: k, M, G, T) expected",
        ),
        (
            &["--grace", "5M"],
            "--grace 5M: 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d) expected",
        ),
        (&["--dns-threads", "0"], "--dns-threads 0: 1 to 1024 expected"),
        (
            &["--grace", "inf"],
            "--grace inf: 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d) expected",
        ),
        (
            &["--idle-timeout", "1e3"],
            "--idle-timeout 1e3: 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d) expected",
        ),
        (
            &["--idle-timeout", "0.0004"],
            "--idle-timeout 0.0004: 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d) expected",
        ),
        (
            &["--idle-timeout", "."],
            "--idle-timeout .: 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d) expected",
        ),
        (
            &["--log-level", "LOUD"],
            "--log-level LOUD: off, error, warn, info, debug, trace expected",
        ),
        (&["--allow-local=on"], "--allow-local: takes no value"),
        (&["--local-for", "me"], "--local-for me: loopback, nobody, all expected"),
        (
            &["--allow-local", "--local-for", "nobody"],
            "--allow-local: means --local-for all, not nobody",
        ),
        (
            &["--local-for=loopback", "--allow-local"],
            "--allow-local: means --local-for all, not loopback",
        ),
        (&["-x"], "-x: unknown option; socks5d -h lists all"),
        (&["--nonsense"], "--nonsense: unknown option; socks5d -h lists all"),
        (&["-V"], "-V: unknown option; did you mean -v? socks5d -h lists all"),
        (
            &["--idle-timout", "9"],
            "--idle-timout: unknown option; did you mean --idle-timeout? socks5d -h lists all",
        ),
        (&["-p"], "-p: needs a value"),
        (&["-p", "1", "-p", "2"], "-p: given more than once"),
        (&["--help=x"], "-h: takes no value"),
        (&["serve\n"], UNEXPECTED),
    ] {
        assert_eq!(args(line), Err(says.to_owned()), "{line:?}");
    }
}

/// Every option of the help, with a letter too many.
#[test]
fn every_option_is_found_by_what_is_nearly_its_name() {
    let help = args(&["-h"]).expect_err("shows");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let longs = help.split(|c| !is_part(c)).filter(|word| word.starts_with("--"));
    let mut count = 0;
    for long in longs {
        let says = format!("{long}x: unknown option; did you mean {long}? socks5d -h lists all");
        assert_eq!(args(&[&format!("{long}x")]), Err(says));
        count += 1;
    }
    assert!(count >= KNOBS.len() + PLAIN_OPTIONS.len(), "only {count}");
}

#[test]
fn users() {
    let args = args(&["-u", "alice:p:q ", "--user", "bob:\u{e9}"]).expect("good accounts");
    let names: Vec<_> = args.users.iter().map(|user| user.name.as_slice()).collect();
    assert_eq!(names, [&b"alice"[..], b"bob"]);
    assert_eq!(args.users[0].password, b"p:q ");
    assert_eq!(args.users[1].password, "\u{e9}".as_bytes());

    let bytes = OsString::from_vec(b"\xff\x80:\xfe".to_vec());
    let Ok(CommandLine::Serve(args)) = parse(["-u".into(), bytes], None) else {
        panic!("not every name is UTF-8");
    };
    assert_eq!(args.users, [Login { name: b"\xff\x80".into(), password: b"\xfe".into() }]);
}

#[test]
fn bad_users_are_named_without_their_password() {
    let long = "x".repeat(256);
    for (value, says) in [
        ("alice", "-u: NAME:PASS expected, no colon (not shown: it may be a password)"),
        ("", "-u \"\": NAME:PASS expected"),
        (":secret", "-u : the name before the colon is empty"),
        ("alice:", "-u alice: the password after the colon is empty"),
        (&format!("alice:{long}"), "-u alice: the password is longer than 255 bytes"),
        (&format!("{long}:secret"), &format!("-u {long}: the name is longer than 255 bytes")),
    ] {
        assert_eq!(args(&["-u", value]), Err(says.to_owned()));
    }
    assert_eq!(
        args(&["-u", "alice:secret", "-u", "alice:secret2"]),
        Err("-u alice: given twice".to_owned())
    );
    assert_eq!(
        args_with(Some("admin"), &[]),
        Err("PROXY_CTRL_SUPERUSER: NAME:PASS expected, no colon (not shown: it may be a password)"
            .to_owned())
    );
}

#[test]
fn the_superuser_wins_over_a_user_of_the_same_name() {
    let args = args_with(Some("admin:12:34"), &["-u", "admin:other", "-u", "bob:x"])
        .expect("good accounts");
    assert!(args.superuser_repeated);
    assert_eq!(args.superuser, Some(Login { name: b"admin".into(), password: b"12:34".into() }));
    assert_eq!(args.users.len(), 1);
}

#[test]
fn help_and_version_win_over_bad_values() {
    assert!(args(&["-p", "x", "-h"]).expect_err("shows").starts_with("Usage: socks5d [options]"));
    assert!(args(&["-v"]).expect_err("shows").starts_with("socks5d 0."));
}

#[test]
fn the_help_tells_the_real_defaults() {
    let help = args(&["-h"]).expect_err("shows");
    for knob in KNOBS.iter().filter(|knob| knob.key != "max-connections" && !knob.is_flag()) {
        let line = help.lines().position(|line| line.contains(&format!("--{} ", knob.key)));
        let told = help.lines().skip(line.expect("a line")).take(3).collect::<Vec<_>>().join(" ");
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(&format!("default {}", knob.get(&Settings::default()))), "{told}");
    }
}

#[test]
fn debug_output_has_no_password() {
    let args = args_with(Some("admin:hunter2"), &["-u", "bob:hunter3"]).expect("good accounts");
    assert!(!format!("{args:?}").contains("hunter"));
}

#[test]
fn the_users_file_is_a_path() {
    let users = |arguments: &[&str]| match parse(arguments.iter().map(OsString::from), None) {
        Ok(CommandLine::Serve(args)) => Ok((args.users_file, args.users_fixed)),
        Ok(_) => panic!("it does not serve"),
        Err(error) => Err(error.to_string()),
    };
    assert_eq!(users(&[]), Ok((None, false)));
    assert_eq!(users(&["--users", "u"]), Ok((Some("u".into()), false)));
    assert_eq!(users(&["--users=/a:b", "--users-fixed"]), Ok((Some("/a:b".into()), true)));
    for (arguments, error) in [
        (&["--users", ""][..], "--users \"\": the name of a file expected"),
        (&["--users-fixed"], "--users-fixed: there is no --users"),
        // As likely as not it should have been --user.
        (
            &["--users", "bob:tulip"],
            "--users: the name of a file expected, with a slash if it holds a colon (not shown: it may be a password)",
        ),
        (&["--users", "a", "--users", "b"], "--users: given more than once"),
    ] {
        assert_eq!(users(arguments).err().as_deref(), Some(error));
    }
}
