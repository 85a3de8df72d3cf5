use std::ffi::OsString;
use std::fs;

use proptest::prelude::*;

use super::*;
use crate::args::{Args, CommandLine, parse};
use crate::state::knobs::{KNOBS, Source};

/// What a command line means beside a file with this text.
fn read(text: impl AsRef<[u8]>, line: &[&str]) -> Result<Args, Vec<String>> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("conf");
    fs::write(&path, text).expect("written");
    let arguments = [OsString::from("--config"), path.clone().into()];
    let arguments = arguments.into_iter().chain(line.iter().map(OsString::from));
    match parse(arguments, None) {
        Ok(CommandLine::Serve(args)) => Ok(*args),
        Ok(_) => panic!("it is not to serve"),
        Err(error) => {
            let head = format!("--config {}: ", path.display());
            let line = |line: &String| line.strip_prefix(&head).unwrap_or(line).to_owned();
            Err(error.lines().iter().map(line).collect())
        }
    }
}

#[test]
fn lines_are_long_options() {
    let args = read(
        "# c\n\n  port 1081  \nlisten\t::1\r\nhttp-connect\nallow-local off\nidle-timeout 5m\nuser bob:two words\n\
         user eve:x:y\ntrust 10.0.0.0/8\ntrust 2001:db8::/32\nudp off",
        &[],
    )
    .expect("good");
    assert_eq!((args.port, args.listen), (1081, "::1".parse().ok()));
    assert!(args.settings.http_connect && !args.settings.udp.enabled);
    assert_eq!(args.settings.timeouts.idle.map(|time| time.as_secs()), Some(300));
    let users: Vec<_> =
        args.users.iter().map(|user| (&user.name[..], &user.password[..])).collect();
    assert_eq!(users, [(&b"bob"[..], &b"two words"[..]), (b"eve", b"x:y")]);
    assert_eq!(args.settings.trust.networks().len(), 2);
    for (key, source) in
        [("port", Source::File), ("http-connect", Source::File), ("grace", Source::Default)]
    {
        assert_eq!(args.sources.of_key(key), source, "{key}");
    }
}

#[test]
fn the_command_line_wins() {
    let file = "port 1081\ngrace 7\ntrust 10.0.0.0/8\nuser bob:file\nmetp-port 8081\n";
    let line = ["-p", "1082", "--grace=9", "--trust", "::1", "-u", "eve:line"];
    let args = read(file, &line).expect("good");
    assert_eq!((args.port, args.metp_port, args.settings.grace.as_secs()), (1082, 8081, 9));
    let shown: Vec<String> =
        args.settings.trust.networks().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["::1/128"]);
    assert_eq!(args.users.len(), 1);
    assert_eq!(args.users[0].name, b"eve");
    for (key, source) in
        [("port", Source::Option), ("grace", Source::Option), ("metp-port", Source::File)]
    {
        assert_eq!(args.sources.of_key(key), source, "{key}");
    }
}

#[test]
fn all_that_is_wrong_is_told_with_its_lines() {
    let file = "port 99999\nidel-timeout 5\ngrace\nhttp-connect maybe\nport 1\nuser bob\nuser bob:tulip\n\
                user bob:tulip2\nconfig other\ntrust 10.0.0.1/8\nlisten x\0y\nhelp\nusers \n-p 1\n\
                bind-ports 5-1\nusers bob:tulip\nstate \n=x\n";
    let wrong = read(file, &[]).expect_err("all of it");
    let told: Vec<&str> = wrong.iter().map(String::as_str).collect();
    for (told, expected) in told.iter().zip([
        "line 1: -p 99999",
        "line 2: --idel-timeout",
        "line 3: grace: a value expected",
        "line 4: http-connect: on or off expected",
        "line 5: port: given in line 1 already",
        "line 6: -u: NAME:PASS expected",
        "line 8: user: the account of line 7",
        "line 9: config: not in a file",
        "line 10: --trust 10.0.0.1/8",
        "line 11: control character \\x00",
        "line 12: help: not in a file",
        "line 13: users: a value expected",
        "line 14: ",
        "line 15: --bind-ports 5-1",
        "line 16: users: given in line 13 already",
        "line 17: state: a value expected",
        "line 18: ",
    ]) {
        assert!(told.starts_with(expected), "{told:?} {expected:?}");
    }
    assert_eq!(told.len(), 17, "{told:?}");
    assert!(!wrong.concat().contains("tulip"));
    // What does not fit together is found when all is.
    assert_eq!(
        read("users-fixed", &[]),
        Err(vec!["--users-fixed: there is no --users".to_owned()])
    );
    assert!(read("users-fixed", &["--users", "f"]).is_ok());
}

/// A key is a long option, whole and alone.
#[test]
fn a_key_is_a_long_option() {
    for (line, expected) in [
        ("port=5", "line 1: port: a blank before its value expected, no ="),
        ("user=bob:tulip", "line 1: user: a blank before its value expected, no ="),
        ("http-connect=on", "line 1: http-connect: a blank before its value expected, no ="),
        ("udp=tulip on", "line 1: udp: a blank before its value expected, no ="),
        ("pasword=tulip", "line 1: --pasword: unknown option"),
        ("bob:tulip=x", "line 1: --bob: unknown option"),
        ("config=tulip", "line 1: config: not in a file"),
        ("p 5", "line 1: -p: unknown option"),
        ("h", "line 1: -h: unknown option"),
        ("v", "line 1: -v: unknown option"),
        ("-", "line 1: "),
        ("--port 5", "line 1: "),
        ("=", "line 1: "),
    ] {
        // Twice is twice the same fault.
        for (line, count) in [(line.to_owned(), 1), (format!("{line}\n{line}\n"), 2)] {
            let wrong = read(&line, &[]).expect_err(&line);
            assert_eq!(wrong.len(), count, "{line}: {wrong:?}");
            assert!(wrong[0].starts_with(expected), "{line}: {wrong:?}");
            assert!(!wrong.concat().contains("tulip"), "{line}: {wrong:?}");
        }
    }
}

/// What lines say together is wrong in the first line that does not go with those before it.
#[test]
fn what_does_not_fit_together_has_its_line() {
    let networks: String =
        (0..300).map(|n| format!("trust 10.{}.{}.0/24\n", n / 256, n % 256)).collect();
    for (text, expected) in [
        (format!("port 5\n{networks}grace 5\n"), "line 258: --trust 10.1.0.0/24"),
        ("local-for nobody\n# x\nallow-local\n".to_owned(), "line 3: --allow-local: "),
        ("bind-out ::1\nbind-out 127.0.0.1\nbind-out ::2\n".to_owned(), "line 3: --bind-out ::2"),
    ] {
        let wrong = read(text, &[]).expect_err(expected);
        assert!(wrong.len() == 1 && wrong[0].starts_with(expected), "{wrong:?}");
    }
}

#[test]
fn odd_files_have_a_verdict() {
    for text in ["", "\n", "\u{feff}port 5\r\n", "port 5", "#\0", "port 5\r"] {
        assert!(read(text, &[]).is_ok(), "{text:?}");
    }
    let long = format!("user bob:{}\nport 5\nlisten z\n", "x".repeat(5000));
    let wrong = read(long, &[]).expect_err("two lines");
    assert_eq!(wrong[0], "line 1: more than 4096 bytes");
    assert!(wrong[1].starts_with("line 3: "), "{wrong:?}");
    assert_eq!(
        read(vec![b'#'; (1 << 20) + 1], &[]),
        Err(vec!["cannot read it: it has more than 1048576 bytes".to_owned()])
    );
    assert_eq!(read("x\n".repeat(1000), &[]).expect_err("each line").len(), MOST_ERRORS);
    // Bytes that are no UTF-8 are those of a name, as on the command line.
    let args = read(b"user \xe4:\xff\n", &[]).expect("good");
    assert_eq!(
        (&args.users[0].name[..], &args.users[0].password[..]),
        (&b"\xe4"[..], &b"\xff"[..])
    );
}

/// Every setting is one of the file, with the values that it shows.
#[test]
fn each_setting_has_a_line() {
    let defaults = read("", &[]).expect("good").settings;
    for knob in &KNOBS {
        let line = format!("{} {}\n", knob.key, knob.get(&defaults));
        let args = read(&line, &[]).expect(&line);
        assert_eq!(args.settings, defaults, "{line}");
    }
}

#[test]
fn passwords_that_others_may_read_are_noticed() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("conf");
    for (text, mode, exposed) in [
        ("user bob:pw\n", 0o600, false),
        ("user bob:pw\n", 0o640, true),
        ("user bob:pw\n", 0o604, true),
        ("port 5\n", 0o644, false),
    ] {
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        let line = [OsString::from("--config"), path.clone().into()];
        let Ok(CommandLine::Serve(args)) = parse(line, None) else { panic!("{text}") };
        assert_eq!(args.config_exposed, exposed, "{text} {mode:o}");
    }
}

/// A value that a line would not hold is not printed as if it did.
#[test]
fn what_no_file_can_hold_is_not_printed() {
    let print = |path: &str| {
        let line = ["--users", path, "--print-config"].map(OsString::from);
        match parse(line, None) {
            Ok(CommandLine::Show(text)) => Ok(text.contains(&format!("users {path}\n"))),
            Ok(_) => panic!("it is not to serve"),
            Err(error) => Err(error.to_string()),
        }
    };
    for path in ["a\tb", "a b", "#", "a=b", "\u{e4}"] {
        assert_eq!(print(path), Ok(true), "{path:?}");
    }
    for path in ["a\nudp off", " a", "a ", "\ta", "a\r", "a\u{7f}"] {
        let wrong = print(path).expect_err(path);
        assert!(wrong.starts_with("--users: a file cannot hold this value"), "{wrong}");
    }
}

proptest! {
    #![proptest_config(support::property::config(256))]

    /// Print, read: what is in force is a file, and means the same.
    #[test]
    fn what_is_in_force_is_a_file(
        port in 1..=65535_u16,
        grace in 0..1000_u32,
        size in 1..=1_048_576_u32,
        (switch, connect) in (any::<bool>(), any::<bool>()),
        networks in prop::collection::vec(any::<[u8; 4]>(), 0..4),
    ) {
        let mut text = format!("port {port}\ngrace {grace}\nbuffer-size {size}\n");
        text.push_str(if switch { "udp on\n" } else { "udp off\n" });
        if connect {
            text.push_str("http-connect\n");
        }
        for network in networks {
            text.push_str(&format!("trust {}\n", std::net::Ipv4Addr::from(network)));
        }
        let first = read(&text, &[]).expect("good");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("conf");
        fs::write(&path, &text).expect("written");
        let arguments = [OsString::from("--config"), path.into(), "--print-config".into()];
        let Ok(CommandLine::Show(printed)) = parse(arguments, None) else { panic!("not printed") };
        let second = read(&printed, &[]).expect("what is printed is good");
        prop_assert_eq!(
            Args { sources: first.sources.clone(), command_line: None, max_connections_given: false, buffer_memory_given: false, ..second.clone() },
            Args { command_line: None, max_connections_given: false, buffer_memory_given: false, ..first }
        );
    }

    #[test]
    fn any_bytes_have_an_answer(content in prop::collection::vec(
        prop_oneof![3 => Just(b'\n'), 3 => Just(b' '), 6 => b'a'..=b'z', 1 => Just(b'='), 1 => any::<u8>()], 0..200))
    {
        let (lines, faults) = lines(&content);
        let count = content.split(|byte| *byte == b'\n').count();
        prop_assert!(lines.len() + faults.len() <= count);
        for line in &lines {
            let shown = argument(line).unwrap_or_else(Some);
            prop_assert!(shown.is_none_or(|shown| !shown.contains('\n')));
        }
        let _ = read(&content, &[]);
    }
}
