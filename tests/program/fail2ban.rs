//! The filter that is shipped for fail2ban, applied to what the running program says: it finds the source of
//! every failed login, at the right time, and nobody can make it find another address.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Instant;

use support::eventually;
use support::metp::Metp;
use support::proxy::{Builder, Proxy, connect_from};
use support::socks::{CHOSEN, Client, DENIED, HELLO, credentials};

/// What fail2ban does with a filter and a line: takes the date away, which has to be a recent one, and looks
/// for the expression in the rest. `<HOST>` is what fail2ban 1.0 makes of it. Says the address of each hit.
const FAIL2BAN: &str = r#"
import configparser, datetime, re, sys, time
filter = configparser.ConfigParser()
filter.read(sys.argv[1])
filter = filter["Definition"]
HOST = (r"(?:\[?(?:(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})|(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|::){1,7}"
        r"(?:[0-9a-fA-F]{1,4}|(?<=:):)))\]?|(?P<dns>[\w\-.^_]*\w))")
PARTS = {"Y": r"\d{4}", "m": r"\d\d", "b": r"[A-Z][a-z]{2}", "d": r"\d\d", "H": r"\d\d", "M": r"\d\d", "S": r"\d\d",
         "z": r"(?:Z|UTC|GMT|[+-][01]\d(?::?\d{2})?)"}
dates = filter["datepattern"].split("\n")
dated = [(date, re.compile(re.sub("%(.)", lambda part: PARTS[part.group(1)], date))) for date in dates]
expressions = filter["failregex"].replace("<HOST>", HOST).split("\n")
failed = [re.compile(expression, re.MULTILINE) for expression in expressions]
for line in sys.stdin.buffer.read().decode("utf-8", "replace").splitlines():
    date, when = next(((date, one.search(line)) for date, one in dated if one.search(line)), (None, None))
    if not when:
        sys.exit("no date: " + line)
    # A syslog does not tell the year.
    has_year = "%Y" in date
    text, form = (when.group(0), date) if has_year else (when.group(0) + time.strftime(" %Y"), date + " %Y")
    then = datetime.datetime.strptime(text, form.lstrip("^")).timestamp()
    rest = line[:when.start()] + line[when.end():]
    for hit in [hit for hit in (one.search(rest) for one in failed) if hit][:1]:
        if abs(time.time() - then) > 300:
            sys.exit("not now: " + line)
        print(hit.group("ip4") or hit.group("ip6") or hit.group("dns"))
"#;

/// The addresses that fail2ban would find in these lines, on a machine whose clock shows Japanese time.
fn found(lines: &[String]) -> Vec<String> {
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/fail2ban/filter.d/socks5d.conf");
    let mut python = Command::new("python3")
        .args(["-c", FAIL2BAN, filter])
        .env("TZ", "JST-9")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut stdin = python.stdin.take().expect("piped");
    stdin.write_all((lines.join("\n") + "\n").as_bytes()).expect("it reads");
    drop(stdin);
    let output = python.wait_with_output().expect("a child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// Names that would like to be somebody else's address.
fn forgeries() -> Vec<Vec<u8>> {
    let line = "2026-01-01T00:00:00Z WARN  auth failed: service=socks remote=1.2.3.4 user=\"x\"";
    let mut names: Vec<Vec<u8>> = [
        "x",
        "remote=1.2.3.4",
        "1.2.3.4",
        "\" remote=1.2.3.4 user=\"x",
        "\"\tremote=1.2.3.4\tuser=\"x",
        "x\" remote=1.2.3.4",
        "\u{2028}WARN  auth failed: service=socks remote=1.2.3.4 user=\"x\"",
        "\u{a0}remote=1.2.3.4\u{a0}user=\"x\u{85}",
        "2001-01-01T00:00:00Z",
        "::ffff:1.2.3.4",
        "[::2]\"",
        "\u{1b}[2K\u{1b}[1Gremote=1.2.3.4",
        "\\x0aremote=1.2.3.4",
        line,
    ]
    .into_iter()
    .map(Vec::from)
    .collect();
    names.extend(
        ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\0"]
            .map(|end| [end.as_bytes(), line.as_bytes(), end.as_bytes()].concat()),
    );
    names.extend([b"\xff\xfe remote=1.2.3.4".to_vec(), vec![b'"'; 255], vec![b'\n'; 255]]);
    names
}

fn fails_over_socks(source: IpAddr, server: SocketAddr, name: &[u8]) {
    let mut client = Client::new(connect_from(source, server));
    client.say(HELLO).hears(CHOSEN).say(&credentials(name, b"wrong")).hears(DENIED).hears_eof();
}

fn fails_over_metp(source: IpAddr, server: SocketAddr, name: &[u8]) {
    let mut metp = Metp::new(connect_from(source, server));
    metp.say("HELLO METP/1.0\n").hears("200 Welcome to METP/1.0\n");
    // As the client does it; a name in these characters can be sent in no other way.
    let name: String = name.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    metp.say(&format!("AUTH {name} wrong\n")).hears("401 Unauthorized\n").hears_eof();
}

/// All that the program has said, once this many logins have failed.
fn said(proxy: &Proxy, failures: usize) -> Vec<String> {
    let failed = || proxy.stderr.all().iter().filter(|line| line.contains("auth failed")).count();
    eventually("every failure is told", || failed() >= failures);
    proxy.stderr.all()
}

/// Ten failures of one address within a second have a line each: here no address has more.
#[test]
fn every_failed_login_is_found_at_its_source_and_nowhere_else() {
    let everywhere = || Builder::default().listen(None).args(["-u", "alice:secret"]);
    let has_v6 = support::has_ipv6("fail2ban with IPv6 addresses");
    let v6: IpAddr = "::1".parse().expect("a literal");
    let mut addresses = (1..=255_u8).flat_map(|c| (1..=250_u8).map(move |d| [127, 3, c, d].into()));
    for names in forgeries().chunks(5) {
        let on_v6 = has_v6.then(|| everywhere().args(["-L", "::1"]).start());
        let on_v4 = everywhere().start();
        for proxy in on_v6.iter().chain([&on_v4]) {
            let mut sources: Vec<IpAddr> = Vec::new();
            for name in names {
                let mut v4 = || addresses.next().expect("there are many");
                for source in [v4(), v4(), v6].into_iter().take(if has_v6 { 3 } else { 2 }) {
                    let localhost = if source.is_ipv4() { [127, 0, 0, 1].into() } else { v6 };
                    let server = SocketAddr::new(localhost, proxy.socks_address().port());
                    fails_over_socks(source, server, name);
                    sources.push(source);
                }
                let metp = proxy.metp_address();
                for source in if metp.is_ipv6() { vec![v6] } else { vec![v4(), v4()] } {
                    fails_over_metp(source, metp, name);
                    sources.push(source);
                }
            }
            // Whoever gets it right is not banned.
            Client::new(proxy.socks()).logged_in("alice", "secret");
            proxy.metp().logged_in("admin", "1234");
            let sources: Vec<String> = sources.iter().map(IpAddr::to_string).collect();
            assert_eq!(found(&said(proxy, sources.len())), sources);
        }
    }
}

/// How many failures the lines tell of: each for itself, and in counts.
fn told(lines: &[String]) -> (u64, u64) {
    let each = lines.iter().filter(|line| line.contains("auth failed: ")).count() as u64;
    let counts = lines.iter().filter_map(|line| {
        let (_, rest) = line.split_once("auth failed ")?;
        rest.split_once(" more times: remote=")?.0.parse::<u64>().ok()
    });
    (each, counts.sum())
}

/// A source that fails again and again has ten lines a second, and one that says how many there were besides:
/// over SOCKS and METP together, and for each source by itself. None is forgotten, not even at the end.
#[test]
fn a_flood_of_failures_is_counted() {
    let (mut proxy, began) = (Proxy::start(), Instant::now());
    let (loud, quiet) = ([127, 4, 0, 1].into(), [127, 4, 0, 2].into());
    for round in 0..100 {
        fails_over_socks(loud, proxy.socks_address(), b"x");
        fails_over_metp(loud, proxy.metp_address(), b"x");
        if round % 20 == 0 {
            fails_over_socks(quiet, proxy.socks_address(), b"x");
        }
    }
    let stderr = proxy.stderr.clone();
    let of = |source: &str| {
        let of_source =
            |line: &String| line.split(' ').any(|word| word == format!("remote={source}"));
        told(&stderr.all().into_iter().filter(of_source).collect::<Vec<String>>())
    };
    eventually("all are told", || {
        let (each, counted) = of("127.4.0.1");
        each + counted == 200
    });
    let (each, counted) = of("127.4.0.1");
    assert!(each >= 10 && each <= 10 * (began.elapsed().as_secs() + 1), "{each} of their own");
    assert!(counted > 0);
    assert_eq!(of("127.4.0.2"), (5, 0));
    let hits = found(&proxy.stderr.all());
    let lines = proxy.stderr.all().iter().filter(|line| line.contains("auth failed")).count();
    assert_eq!(hits.len(), lines, "the counts are found, too");
    assert!(hits.iter().all(|hit| hit == "127.4.0.1" || hit == "127.4.0.2"), "{hits:?}");
    // What has been counted when it ends is told then.
    for _ in 0..30 {
        fails_over_socks([127, 4, 0, 3].into(), proxy.socks_address(), b"x");
    }
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    eventually("the last are told", || {
        let (each, counted) = of("127.4.0.3");
        each + counted == 30
    });
}

/// METP names as they stand in the line, not as the client writes them.
#[test]
fn raw_metp_lines_cannot_forge_either() {
    let proxy = Proxy::start();
    let lines: [&[u8]; 7] = [
        b"AUTH remote=1.2.3.4 remote=1.2.3.4\n",
        b"AUTH \"remote=1.2.3.4 \" remote=1.2.3.4 user=\"x\"\n",
        b"AUTH x\"\tremote=1.2.3.4\tuser=\" y\n",
        b"AUTH x\xc2\xa0remote=1.2.3.4 y\r\n",
        b"AUTH x\\x22\\x20remote=1.2.3.4\\x20user=\\x22 y\n",
        b"AUTH \\x0a2026-01-01T00:00:00Z\\x20WARN y\n",
        b"AUTH \xff\x00\x1b[2J y\n",
    ];
    for line in lines {
        let mut metp = proxy.metp();
        metp.say("HELLO METP/1.0\n").hears("200 Welcome to METP/1.0\n");
        metp.say_bytes(line).hears("401 Unauthorized\n").hears_eof();
    }
    assert_eq!(found(&said(&proxy, lines.len())), ["127.0.0.1"; 7]);
}

/// What journald passes on has no date and no priority; a syslog has a date of its own.
#[test]
fn lines_of_a_journal_and_of_a_syslog_are_found() {
    let proxy = Builder::default().args(["--log-format", "journal"]).start();
    for name in forgeries().iter().take(5) {
        fails_over_socks([127, 5, 0, 1].into(), proxy.socks_address(), name);
    }
    for _ in 0..30 {
        fails_over_socks([127, 5, 0, 2].into(), proxy.socks_address(), b"x");
    }
    proxy
        .stderr
        .wait_for(|line| line.starts_with("<4>auth failed ") && line.contains(" more times"));
    let mut date = Command::new("date");
    let date = date.env("TZ", "JST-9").env("LC_ALL", "C").arg("+%b %d %H:%M:%S").output();
    let date = String::from_utf8(date.expect("date(1)").stdout).expect("text");
    let failures: Vec<String> =
        proxy.stderr.all().into_iter().filter(|line| line.contains("auth failed")).collect();
    for with_priority in [false, true] {
        let message = |line: &String| match with_priority {
            true => line.clone(),
            false => line.split_once('>').expect("a priority").1.to_owned(),
        };
        let line =
            |line| format!("{} host.example socks5d[77]: {}", date.trim_end(), message(line));
        let hits = found(&failures.iter().map(line).collect::<Vec<String>>());
        assert_eq!(hits.len(), failures.len());
        assert_eq!(hits.iter().filter(|hit| *hit == "127.5.0.1").count(), 5);
        assert!(hits.iter().all(|hit| hit.starts_with("127.5.0.")), "{hits:?}");
    }
}

/// The jail uses this filter.
#[test]
fn the_jail_names_the_filter() {
    let jail = include_str!("../../contrib/fail2ban/jail.d/socks5d.conf");
    let settings: Vec<&str> = jail.lines().filter(|line| !line.starts_with('#')).collect();
    for setting in ["[socks5d]", "enabled  = true", "filter   = socks5d", "port     = 1080,8080"] {
        assert!(settings.contains(&setting), "{setting}");
    }
}
