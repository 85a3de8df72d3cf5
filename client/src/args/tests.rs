use super::options::{ALIASES, Opt};
use super::*;

fn args(line: &[&str]) -> Result<Args, String> {
    args_with(line, &Environment::default())
}

fn args_with(line: &[&str], environment: &Environment) -> Result<Args, String> {
    match parse(line.iter().map(OsString::from), environment) {
        Ok(CommandLine::Run(args)) => Ok(args),
        Ok(CommandLine::Show(text)) => Err(text),
        Err(usage) => Err(usage.to_string()),
    }
}

/// The lines that would be sent.
fn lines(line: &[&str]) -> Result<String, String> {
    let line = [&["-u", "admin:1234"], line].concat();
    let invocations = args(&line)?.invocations;
    let encoded =
        invocations.iter().filter_map(|invocation| match (&invocation.line, &invocation.command) {
            (Some(line), _) => Some([line, &b"\n"[..]].concat()),
            (None, Some(Command::AddUser { name, password })) if password.is_empty() => {
                Some([b"a new account ", &name[..], b"\n"].concat())
            }
            (None, Some(Command::ChangePassword { name, password })) if password.is_empty() => {
                Some([b"a password for ", &name[..], b"\n"].concat())
            }
            (None, command) => command.as_ref()?.encode(),
        });
    let encoded = encoded.collect::<Vec<_>>().concat();
    Ok(String::from_utf8_lossy(&encoded).into_owned())
}

#[test]
fn defaults() {
    let args = args(&["-u", "admin:12:34", "-m"]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(args.servers, [ServerAddress { host: "127.0.0.1".to_owned(), port: 8080 }]);
    assert_eq!((args.wait, args.quiet, args.json), (None, false, false));
    assert_eq!(args.login.name, b"admin");
    assert_eq!(args.login.password, PasswordSource::Given(b"12:34".to_vec()));
}

#[test]
fn every_option_and_every_alias() {
    for (line, says) in [
        (&["-m"][..], "GET_METRICS\n"),
        (&["--metrics"], "GET_METRICS\n"),
        (&["--gm"], "GET_METRICS\n"),
        (&["-g"], "GET_LOGS\n"),
        (&["--logs"], "GET_LOGS\n"),
        (&["--gl"], "GET_LOGS\n"),
        (&["-l"], "USERS\n"),
        (&["--users"], "USERS\n"),
        (&["-a", "bob", "pass"], "ADD-USER bob pass\n"),
        (&["--add-user", "bob", "pass"], "ADD-USER bob pass\n"),
        (&["--au", "bob", "pass"], "ADD-USER bob pass\n"),
        (&["-a", "bob", "-secret"], "ADD-USER bob -secret\n"),
        (&["-H", "fe80::1%lo", "-m"], "GET_METRICS\n"),
        (&["-a", "bob", "two words"], "ADD-USER bob two words\n"),
        (&["-a", "a", "1", "-a", "b", "2"], "ADD-USER a 1\nADD-USER b 2\n"),
        (&["-d", "bob"], "DELETE-USER bob\n"),
        (&["--delete-user=bob"], "DELETE-USER bob\n"),
        (&["--du", "bob"], "DELETE-USER bob\n"),
        (&["--du=bob"], "DELETE-USER bob\n"),
        (&["-d", "a b"], "DELETE-USER a\\x20b\n"),
        (&["-d", "a\\x20b"], "DELETE-USER a\\x20b\n"),
        (&["-r", "bob", "admin"], "SET-ROLE bob admin\n"),
        (&["--set-role", "bob", "user"], "SET-ROLE bob user\n"),
        (&["--sr", "bob", "user"], "SET-ROLE bob user\n"),
        (&["-c", "4096"], "CHANGE-BUFFER 4096\n"),
        (&["--change-buffer", "1"], "CHANGE-BUFFER 1\n"),
        (&["-c", "64k"], "CHANGE-BUFFER 65536\n"),
        (&["-c", "1MiB"], "CHANGE-BUFFER 1048576\n"),
        (&["--set", "idle-timeout=5m"], "CONFIG SET idle-timeout 5m\n"),
        (&["--cb", "1048576"], "CHANGE-BUFFER 1048576\n"),
        (&["-g", "-n", "20"], "GET_LOGS LAST 20\n"),
        (&["--last=0", "--logs"], "GET_LOGS LAST 0\n"),
        (&["-a", "bob", "pass\r\n"], "ADD-USER bob pass\n"),
        (&["-a", "bob"], "a new account bob\n"),
        (&["-a", "bob", "-"], "a new account bob\n"),
        (&["--add-user=bob"], "a new account bob\n"),
        (&["--au", "bob", "-l"], "a new account bob\nUSERS\n"),
        (&["-a", "bob", "--au", "amy", "pw"], "a new account bob\nADD-USER amy pw\n"),
        (&["-a", "bob", "--kill=1.2"], "a new account bob\nKILL 1.2\n"),
        (&["-a", "bob", "--", "PING"], "a new account bob\nPING\n"),
        (
            &["-c", "1", "-m", "-d", "x", "-g"],
            "CHANGE-BUFFER 1\nGET_METRICS\nDELETE-USER x\nGET_LOGS\n",
        ),
        (&["--info"], "INFO\n"),
        (&["--capabilities"], "CAPA\n"),
        (&["--metrics-all"], "GET_METRICS ALL\n"),
        (&["--user-metrics"], "USER-METRICS\n"),
        (&["--user-metrics", "bob"], "USER-METRICS bob\n"),
        (&["--user-metrics=a b", "--user-metrics"], "USER-METRICS a\\x20b\nUSER-METRICS\n"),
        (&["--connections", "--info"], "CONNECTIONS\nINFO\n"),
        (&["--connections", "bob"], "CONNECTIONS USER bob\n"),
        (&["--kill", "17.3"], "KILL 17.3\n"),
        (&["--kill-user", "bob"], "KILL USER bob\n"),
        (&["--password", "bob"], "a password for bob\n"),
        (&["--config"], "CONFIG GET\n"),
        (&["--config", "grace"], "CONFIG GET grace\n"),
        (&["--set", "idle-timeout=90"], "CONFIG SET idle-timeout 90\n"),
        (&["--set=a=b=c"], "CONFIG SET a b=c\n"),
        (&["--shutdown"], "SHUTDOWN\n"),
        (&["--shutdown", "2.5"], "SHUTDOWN GRACE 2.5\n"),
        (&["--shutdown", "500ms"], "SHUTDOWN GRACE 0.5\n"),
        (&["--shutdown", "24h"], "SHUTDOWN GRACE 86400\n"),
        (&["-m", "--", "GET_LOGS", "LAST", "3"], "GET_METRICS\nGET_LOGS LAST 3\n"),
        (&["--", "-m"], "-m\n"),
    ] {
        assert_eq!(lines(line).as_deref(), Ok(says), "{line:?}");
    }
}

#[test]
fn bad_usage_is_named_without_passwords() {
    for (line, says) in [
        (&["-m"][..], "no user: -u USER:PASS or METP_AUTH expected"),
        (&["-u", "a:b"], "no command given; client -h lists them"),
        (&["-u", ":b", "-m"], "-u: the name is empty"),
        (&["-u", "a:", "-m"], "-u a: the password is empty"),
        (&["-u", "a:b\nQUIT", "-m"], "-u a: the password holds a control character"),
        (&["-u", "a:b\t", "-m"], "-u a: the password holds a control character"),
        (&["-u", "a:b\n\n", "-m"], "-u a: the password holds a control character"),
        (&["-u", "a:\n", "-m"], "-u a: the password is empty"),
        (
            &["-u", "a\tb:c", "-m"],
            "-u a\\x09b: the name holds a control character, which is written \\xHH",
        ),
        (&["x", "-u", "a:b", "-m"], UNEXPECTED),
        (
            &["-u", "a:b", "-m", "x"],
            "unexpected argument (not shown: it may be a password) after -m",
        ),
        (&["-u", "a:b", "--set", "grace", "9"], "--set grace: KEY=VALUE expected"),
        (&["-u", "a:b", "-x"], "-x: unknown option; client -h lists all"),
        (
            &["-u", "a:b", "--metrisc"],
            "--metrisc: unknown option; did you mean --metrics? client -h lists all",
        ),
        (
            &["-u", "a:b", "-metrics"],
            "-e: unknown option; did you mean --metrics? client -h lists all",
        ),
        (&["-u", "a:b", "-a"], "-a: needs a value"),
        (&["-u", "a:b", "-r", "bob"], "-r: needs two values"),
        (&["-u", "a:b", "-r", "bob", "-l"], "-r: needs two values"),
        (&["-u", "a:b", "--set-role=bob"], "-r: needs two values"),
        (
            &["-u", "a:b", "--add-user=bob", "secret"],
            "unexpected argument (not shown: it may be a password) after -a",
        ),
        (&["-u", "a:b", "-a", "bob:secret"], "-a bob: USER PASS expected, no colon"),
        (&["-u", "a:b", "-a", "-", "x"], &format!("-a -: {NAME_RULE}")),
        (&["-u", "a:b", "-a", "", "x"], &format!("-a : {NAME_RULE}")),
        (
            &["-u", "a:b", "--trust-add", "everybody"],
            "--trust-add everybody: a network, such as 10.0.0.0/8 or 2001:db8::/32 expected",
        ),
        (
            &["-u", "a:b", "--trust-delete", "10.1.0.0/8"],
            "--trust-delete 10.1.0.0/8: a network without bits behind its prefix, such as 10.0.0.0/8 expected",
        ),
        (&["-u", "a:b", "-a", "bob", &"x".repeat(256)], &format!("-a bob: {PASSWORD_RULE}")),
        (&["-u", "a:b", "-a", "bob", ""], "-a bob: the password is empty"),
        (&["-u", "a:b", "-a", "bob", "a\nb"], "-a bob: the password holds a control character"),
        (
            &["-u", "a:b", "-H", "127.0.0.1:0", "-m"],
            "-H 127.0.0.1:0: HOST, HOST:PORT or [IPV6]:PORT expected",
        ),
        (&["-u", "a:b", "-H", "a,,b", "-m"], "-H \"\": HOST, HOST:PORT or [IPV6]:PORT expected"),
        (&["-u", "a:b", "-H", "a,b", "-w"], "-w: one server expected, not 2"),
        (&["-u", "a:b", "-H", "a", "-H", "b", "-w"], "-w: one server expected, not 2"),
        (&["-u", "a:b", "-w", "-n", "3"], "-n: -g or -f expected with it"),
        (&["-u", "a:b", "-f", "-n", "all"], "-n all: 0 to 1000000 expected"),
        (
            &["-u", "a:b", "-m", "--wait", "x"],
            "--wait x: 0 to 86400 seconds (units: ms, s, m, h, d) expected",
        ),
        (&["-u", "a:b", "-r", "bob", "root"], "-r root: user or admin expected"),
        (
            &["-u", "a:b", "-c", "4096abc"],
            "-c 4096abc: 1 to 1048576 bytes (units: k, M, G, T) expected",
        ),
        (&["-u", "a:b", "-c", "1kB"], "-c 1kB: 1 to 1048576 bytes (units: k, M, G, T) expected"),
        (&["-u", "a:b", "-c", "2m"], "-c 2m: 1 to 1048576 bytes (units: k, M, G, T) expected"),
        (&["-u", "a:b", "-c", "-1"], "-c -1: 1 to 1048576 bytes (units: k, M, G, T) expected"),
        (&["-u", "a:b", "--cb", "0"], "-c 0: 1 to 1048576 bytes (units: k, M, G, T) expected"),
        (
            &["-u", "a:b", "-c", "1048577"],
            "-c 1048577: 1 to 1048576 bytes (units: k, M, G, T) expected",
        ),
        (&["-u", "a:b", "-p", "0", "-m"], "-p 0: 1 to 65535 expected"),
        (&["-u", "a:b", "-H", "", "-m"], "-H \"\": HOST, HOST:PORT or [IPV6]:PORT expected"),
        (&["-u", "a:b", "-u", "c:d", "-m"], "-u: given more than once"),
        (&["-u", "a:b", "--kill", "17"], "--kill 17: an id as --connections shows it expected"),
        (&["-u", "a:b", "--set", "grace"], "--set grace: KEY=VALUE expected"),
        (&["-u", "a:b", "--set", "grace="], "--set grace=: KEY=VALUE expected"),
        (
            &["-u", "a:b", "--shutdown", "86401"],
            "--shutdown 86401: 0 to 86400 seconds (units: ms, s, m, h, d) expected",
        ),
        (&["-u", "a:b", "-w", "0"], "-w 0: 0.1 to 3600 seconds (units: ms, s, m, h, d) expected"),
        (&["-u", "a:b", "-w", "-f"], "-w and -f: one of them expected"),
        (
            &["-u", "a:b", "-w", "5min"],
            "-w 5min: 0.1 to 3600 seconds (units: ms, s, m, h, d) expected",
        ),
        (&["-u", "a:b", "-c", "1.5k"], "-c 1.5k: 1 to 1048576 bytes (units: k, M, G, T) expected"),
        (
            &["-u", "a:b", "--", "PING", &"x".repeat(4091)],
            "--: the line has 4096 bytes, the most is 4095",
        ),
        (&["-u", "a:b", "--"], "--: one line of METP expected"),
        (&["-u", "a:b", "--", "PING\nQUIT"], "--: one line of METP expected"),
        (
            &["-u", "a:b", "--password-file", "x", "-m"],
            "-u and --password-file both give a password",
        ),
        (&["-u", "a:b", "--password", ""], "--password: the name is empty"),
    ] {
        assert_eq!(args(line).err().as_deref(), Some(says), "{line:?}");
    }
}

/// With one letter more.
#[test]
fn every_option_is_found_by_what_is_nearly_its_name() {
    for Opt { long, .. } in options::all() {
        let says = format!("{long}x: unknown option; did you mean {long}? client -h lists all");
        assert_eq!(args(&["-u", "a:b", &format!("{long}x")]).err(), Some(says));
    }
}

#[test]
fn the_variable_stands_in_for_the_option() {
    let parse = |line: &[&str], variable: &str| {
        let environment = Environment { login: Some(variable.into()), ..Environment::default() };
        let args = args_with(line, &environment).expect("a good call");
        (args.login.name, args.login.password)
    };
    assert_eq!(parse(&["-m"], "bob:x"), (b"bob".to_vec(), PasswordSource::Given(b"x".to_vec())));
    assert_eq!(parse(&["-m"], "bob"), (b"bob".to_vec(), PasswordSource::Prompt));
    assert_eq!(parse(&["-m", "-u", "amy:y"], "bob:x").0, b"amy");
    for end in ["\n", "\r\n"] {
        let given = PasswordSource::Given(b"x ".to_vec());
        assert_eq!(parse(&["-m"], &format!("bob:x {end}")), (b"bob".to_vec(), given));
        assert_eq!(parse(&["-m"], &format!("bob{end}")).0, b"bob");
        assert_eq!(parse(&["-m", "-u", &format!("amy:y{end}")], "bob").0, b"amy");
    }
    for login in ["bob:x\t", "bob:x\r", "bob:x\r\r\n", "bob:x\n\n"] {
        let environment = Environment { login: Some(login.into()), ..Environment::default() };
        let wrong = "METP_AUTH bob: the password holds a control character";
        assert_eq!(args_with(&["-m"], &environment).err().as_deref(), Some(wrong), "{login:?}");
    }
    for empty in ["", "\n", "\r\n"] {
        assert_eq!(parse(&["-m", "-u", "amy:y"], empty).0, b"amy");
        let environment = Environment { login: Some(empty.into()), ..Environment::default() };
        let wrong = "no user: -u USER:PASS or METP_AUTH expected";
        assert_eq!(args_with(&["-m"], &environment).err().as_deref(), Some(wrong));
    }
}

#[test]
fn servers_are_those_of_the_options_then_those_of_the_environment() {
    let servers = |line: &[&str], host: &str, port: &str| {
        let variable = |text: &str| (!text.is_empty()).then(|| text.into());
        let environment = Environment {
            login: Some("a:b".into()),
            host: variable(host),
            port: variable(port),
            ..Environment::default()
        };
        let servers = args_with(&[&["-m"], line].concat(), &environment).map(|args| args.servers);
        servers.map(|servers| {
            let shown = servers.iter().map(|server| format!("{} {}", server.host, server.port));
            shown.collect::<Vec<_>>().join(", ")
        })
    };
    for (line, host, port, expected) in [
        (&[][..], "", "", "127.0.0.1 8080"),
        (&[], "a", "", "a 8080"),
        (&[], "a", "81", "a 81"),
        (&[], "", "81", "127.0.0.1 81"),
        (&[], "a:82,[::1]:83,::1", "81", "a 82, ::1 83, ::1 81"),
        (&[], "a\r\n", "81\n", "a 81"),
        (&["-H", "b"], "a:82", "81", "b 81"),
        (&["-p", "84"], "a:82,c", "81", "a 84, c 84"),
        (&["-p", "84"], "", "81", "127.0.0.1 84"),
        (&["-p", "84"], "", "http", "127.0.0.1 84"),
        (&["-H", "b,c:85", "-H", "[::1]:86", "-p", "84"], "a", "", "b 84, c 85, ::1 86"),
        (&["--host=b:1,b:2"], "", "", "b 1, b 2"),
        (&["--host=b:1,[::1]:2"], "", "http", "b 1, ::1 2"),
        (&[], "b:1,c:2", "http", "b 1, c 2"),
    ] {
        assert_eq!(servers(line, host, port).as_deref(), Ok(expected), "{line:?} {host} {port}");
    }
    for (host, port, says) in [
        ("a:x", "", "METP_HOST a:x: HOST, HOST:PORT or [IPV6]:PORT expected"),
        ("", "0", "METP_PORT 0: 1 to 65535 expected"),
        ("b:1,c", "http", "METP_PORT http: 1 to 65535 expected"),
    ] {
        assert_eq!(servers(&[], host, port).err().as_deref(), Some(says));
    }
}

#[test]
fn help_shows_every_option_and_no_alias() {
    let help = args(&["-h"]).err().unwrap_or_default();
    for Opt { short, long, help: text, .. } in options::all() {
        let name = if short.is_empty() { (*long).to_owned() } else { format!("{short}, {long}") };
        let is_its = |line: &str| line.trim_start().starts_with(&name) && line.ends_with(text);
        assert!(help.lines().any(is_its), "{long}");
    }
    assert!(help.lines().all(|line| line.len() <= 80), "{help}");
    assert!(ALIASES.iter().all(|(alias, _)| !help.contains(alias)));
    assert!(args(&["-v"]).err().unwrap_or_default().starts_with("client 0."));
}

#[test]
fn what_is_shown_live() {
    let live = |line: &[&str]| args(&[&["-u", "a:b"], line].concat()).map(|args| args.live);
    assert!(matches!(live(&["-f"]), Ok(Some(Live::Follow(0)))));
    assert!(matches!(live(&["-f", "-n", "7"]), Ok(Some(Live::Follow(7)))));
    for (line, millis) in [
        (&["-w"][..], 1000),
        (&["--watch", "-m"], 1000),
        (&["-w", "5"], 5000),
        (&["-w5"], 5000),
        (&["--watch=0.25"], 250),
        (&["--watch", "250ms"], 250),
        (&["-w", "1h"], 3_600_000),
    ] {
        let every = match live(line) {
            Ok(Some(Live::Watch(every))) => every,
            _ => panic!("{line:?}"),
        };
        assert_eq!(every, Duration::from_millis(millis), "{line:?}");
    }
    assert!(
        args(&["-u", "a:b", "-m", "--json"]).is_ok_and(|args| args.json && args.live.is_none())
    );
}

#[test]
fn a_password_may_come_from_a_file() {
    let login = |line: &[&str]| args(line).map(|args| args.login.password);
    let file = Ok(PasswordSource::File("/run/secret".into()));
    assert_eq!(login(&["-u", "a", "--password-file", "/run/secret", "-m"]), file);
}
