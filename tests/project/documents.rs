//! The documents tell the truth: options, words and codes are those of the program, the grammar of METP is
//! that of the parser, and the examples run.

mod abnf;
mod bounds;
pub mod determinism;
mod dialogue;
mod names;
pub mod options;
mod protocol;
mod quantities;
mod spoken;

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use dialogue::{Example, fits};
use options::options;
use socks5d::args::{self, AccessLogTo, CommandLine, LogFormat};
use support::binary;
use support::origin::Origin;
use support::proxy::{Proxy, connect};
use support::socks::{Client, half_close, name_request};

const README: &str = "README.md";
const PROTOCOL: &str = "protocol_metp.txt";
const NOTES: &str = "selector-notes.md";
const SECURITY: &str = "SECURITY.md";
const CHANGELOG: &str = "CHANGELOG.md";
const ARCHITECTURE: &str = "ARCHITECTURE.md";
const CONTRIBUTING: &str = "CONTRIBUTING.md";
const SERVER_MANUAL: &str = "man/socks5d.8";
const CLIENT_MANUAL: &str = "man/client.1";
const MANUALS: [&str; 4] = [SERVER_MANUAL, CLIENT_MANUAL, "man/socks5d.conf.5", "man/metp.7"];

pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The items of all lists in a manual: the heading without `.It`, and what follows it.
fn items(manual: &str) -> Vec<(String, String)> {
    let text = read(manual);
    let end = |body: &str| body.find("\n.El").unwrap_or(body.len());
    let item = |text: &str| {
        let (head, body) = text.split_once('\n').expect("an item has a body");
        (head.to_owned(), body[..end(body)].to_owned())
    };
    text.split("\n.It ").skip(1).map(item).collect()
}

/// The strings that stand between `before` and `after` in a source.
pub fn between<'a>(source: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    let rest = source.split(before).skip(1);
    rest.filter_map(|rest| rest.split_once(after).map(|(found, _)| found)).collect()
}

#[test]
fn every_option_is_in_its_manual_with_its_default_and_no_other_is() {
    for (program, manual) in [("socks5d", SERVER_MANUAL), ("client", CLIENT_MANUAL)] {
        let (options, items, text) = (options(program), items(manual), read(manual));
        for option in &options {
            let mdoc = option.mdoc();
            let described = |(head, _): &&(String, String)| {
                let value = head.strip_prefix(&mdoc).map(|rest| rest.trim_start_matches(" Op"));
                value.is_some_and(|value| value.is_empty() || value.starts_with(" Ar "))
            };
            let (_, body) = items.iter().find(described).unwrap_or_else(|| {
                panic!("{manual} does not describe {mdoc}");
            });
            if let Some(default) = option.preset() {
                let says = format!("The default is {default}.\n");
                assert!(format!("{body}\n").contains(&says), "{manual}: {mdoc}: {says}");
            }
        }
        for (head, _) in items.iter().filter(|(head, _)| head.starts_with("Fl ")) {
            let known = options.iter().any(|option| head.starts_with(&option.mdoc()));
            assert!(known, "{manual} describes {head}, which {program} does not have");
        }
        for long in between(&text, "Fl -", "\n") {
            let long = format!("--{}", long.split(' ').next().unwrap_or_default());
            assert!(options.iter().any(|option| option.long == long), "{manual}: {long}");
        }
    }
}

/// The README's table has every option of socks5d, and no other, with the default of `-h` and its words.
#[test]
fn every_option_is_in_the_table_of_the_readme() {
    let (text, options) = (read(README), options("socks5d"));
    let table = between(&text, "| option | default | meaning |\n", "\n\n");
    let rows: Vec<&str> = table[0].lines().skip(1).collect();
    assert_eq!(rows.len(), options.len());
    for (row, option) in rows.iter().zip(&options) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let short = option.short.iter().map(|short| format!("`{short}`, ")).collect::<String>();
        assert!(cells[1].starts_with(&format!("{short}`{}", option.long)), "{row}: {option:?}");
        if let Some(default) = option.preset() {
            assert_eq!(cells[2], default, "{row}");
        }
        assert!(cells[3].starts_with(option.says()), "{row}: {option:?}");
    }
}

/// A word that looks like a long option is one, wherever it stands.
#[test]
fn no_document_tells_of_an_option_that_does_not_exist() {
    let known: Vec<String> =
        ["socks5d", "client"].iter().flat_map(|name| options(name)).map(|opt| opt.long).collect();
    // Options of python3, ncat, chromium, torsocks, cargo, chown and docker, in the examples.
    let foreign = [
        "--bind",
        "--proxy",
        "--proxy-type",
        "--proxy-auth",
        "--proxy-server",
        "--isolate",
        "--test",
        "--workspace",
        "--bins",
        "--reference",
        "--name",
        "--read-only",
        "--cap-drop",
        "--security-opt",
    ];
    for name in [README, PROTOCOL, NOTES, CHANGELOG, SECURITY, ARCHITECTURE, CONTRIBUTING] {
        let text = read(name);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let option = |word: &&str| word.starts_with("--") && word.contains(char::is_alphabetic);
        for word in text.split(|c| !is_part(c)).filter(option) {
            let good = known.iter().any(|long| long == word) || foreign.contains(&word);
            assert!(good, "{name}: {word}");
        }
    }
}

#[test]
fn every_reason_and_reply_of_the_access_log_is_in_the_manual_and_the_readme() {
    let source = read("src/socks/close_reason.rs");
    let reasons = between(&source, "=> \"", "\",");
    assert!(reasons.len() >= 13, "{reasons:?}");
    let (manual, readme) = (items(SERVER_MANUAL), read(README));
    let whole = read(SERVER_MANUAL);
    let field = readme.lines().find(|line| line.starts_with("| 12 |")).expect("the reasons");
    for reason in &reasons {
        let listed = manual.iter().any(|(head, _)| head == reason);
        assert!(listed || whole.contains(&format!(".Ql {reason}")), "{reason}");
        assert_eq!(listed, field.contains(&format!("`{reason}`")), "README: {reason}");
    }
    let source = read("src/proto/socks5.rs");
    let source = source.split("pub enum ReplyCode").nth(1).expect("it is there");
    let replies = between(source, " = 0x0", ",");
    assert_eq!(replies, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
    for reply in replies {
        assert!(manual.iter().any(|(head, _)| head == reply), "reply {reply}");
    }
}

/// Of the three access logs, METP's has no refused requests. That is said, with its reason, where each is described.
#[test]
fn where_refused_requests_are_is_told_of_each_access_log() {
    let (server, client) = (read(SERVER_MANUAL), items(CLIENT_MANUAL));
    let (_, stdout) = server.split_once(".Ss Access log").expect("the section");
    let stdout = stdout.split(".Ss ").next().expect("its text").to_owned();
    let of = |head: &str| {
        let item = client.iter().find(|(known, _)| known == head);
        item.unwrap_or_else(|| panic!("no {head}")).1.clone()
    };
    let (logs, follow) = (of("Fl g , Fl -logs"), of("Fl f , Fl -follow"));
    for text in [&stdout, &logs, &follow, &read(PROTOCOL)] {
        assert!(text.contains("refused"), "{text}");
    }
    for text in [&stdout, &logs, &read(PROTOCOL)] {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("METP/1.0 fixes"), "{text}");
    }
}

/// §12, each example on a server of its own.
#[test]
fn the_examples_of_the_protocol_run() {
    let text = read(PROTOCOL);
    assert!(text.contains(dialogue::START));
    let examples = Example::all(&text);
    assert!(examples.len() >= 10, "only {}", examples.len());
    for example in &examples {
        assert!(example.replies().count() > 0, "{} says nothing", example.title);
        example.run();
    }
}

/// A shape that is wrong must not pass for the right one.
#[test]
fn placeholders_are_no_blank_cheques() {
    assert!(fits("[2026-11-22T14:25:34Z] a 127.0.0.1:80 1", "[<time>] a 127.0.0.1:<port> 1"));
    for heard in ["[2026-11-22 14:25:34Z] a:80 1", "[2026-11-22T14:25:34Z] a: 1", "", "[<time>]"] {
        assert!(!fits(heard, "[<time>] a:<port> 1"), "{heard}");
    }
    assert!(fits("a=0.125 b=0.000125 c=17", "a=<seconds> b=<micros> c=<number>"));
    for (heard, expected) in [
        ("a=0.125000", "a=<seconds>"),
        ("a=0.125", "a=<micros>"),
        (".000125", "<micros>"),
        ("a=", "a=<number>"),
        ("a=-1", "a=<number>"),
        ("a=1.5", "a=<number>"),
    ] {
        assert!(!fits(heard, expected), "{heard} for {expected}");
    }
}

/// The README's administration by example: what it shows is what the client says.
#[test]
fn the_examples_of_the_readme_run() {
    let proxy = Proxy::start();
    let port = proxy.metp_address().port().to_string();
    assert_eq!(proxy.admin().command("ADD-USER user pass"), "200 OK");
    // The first request of the README: 78 bytes up and 1187 down, to a name.
    let origin = Origin::new(|mut stream| {
        let mut request = Vec::new();
        let _ = stream.read_to_end(&mut request);
        let _ = stream.write_all(&[b'x'; 1187]);
    });
    let mut client = Client::new(proxy.socks()).logged_in("user", "pass");
    let (code, _) = client.say(&name_request(b"localhost", origin.address.port())).reply();
    assert_eq!(code, 0);
    client.stream.write_all(&[b'x'; 78]).expect("taken");
    half_close(&client.stream);
    assert_eq!(support::read_to_end(&mut client.stream).len(), 1187);
    proxy.wait_until_idle();

    let text = read(README);
    // Columns and connections vary; the heading and the end do not.
    for call in between(&text, "$ ./bin/client ", "\n```").iter().flat_map(|b| b.split("\n$ ")) {
        let end = call.lines().last().unwrap_or_default();
        assert!(["Connection closed", "Authentication failed"].contains(&end), "{call}");
    }
    let heading = text.lines().find(|line| line.starts_with("ID ")).expect("the connections");
    let mut client = Process::new(binary("client"));
    client.args(["-p", &port, "-u", "admin:1234", "--connections"]).env_remove("METP_AUTH");
    let output = client.output().expect("it starts").stdout;
    let output = String::from_utf8(output).expect("text");
    let columns = output.lines().next().expect("a heading").split_whitespace();
    assert!(columns.eq(heading.split_whitespace()), "{output}");

    let mut count = 0;
    for block in between(&text, "```console\n", "```") {
        for call in block.split("$ ").skip(1) {
            let (command, expected) = call.split_once('\n').expect("a command and its output");
            let said = if let Some(arguments) = command.strip_prefix("./bin/client ") {
                let mut client = Process::new(binary("client"));
                client.args(["-p", &port]).args(arguments.split(' ')).env_remove("METP_AUTH");
                let output = client.output().expect("it starts");
                let said = [output.stderr, output.stdout].concat();
                let said = String::from_utf8(said).expect("text");
                let (connecting, said) = said.split_once('\n').expect("a line");
                assert!(connecting.starts_with("Connecting to "), "{connecting}");
                said.to_owned()
            } else {
                let lines = command.strip_prefix("printf '").and_then(|c| c.split_once("' | nc "));
                let (lines, _) = lines.unwrap_or_else(|| panic!("nobody knows how to: {command}"));
                let mut stream = connect(proxy.metp_address());
                let lines = lines.replace("\\n", "\n");
                stream.write_all(lines.as_bytes()).expect("taken");
                stream.shutdown(Shutdown::Write).expect("it is open");
                String::from_utf8(support::read_to_end(&mut stream)).expect("text")
            };
            let expected = expected
                .replace("2026-11-22T14:25:34Z", "<time>")
                .replace("localhost:8000", &format!("localhost:{}", origin.address.port()));
            assert_eq!(said.lines().count(), expected.lines().count(), "{command}: {said}");
            for (said, expected) in said.lines().zip(expected.lines()) {
                assert!(fits(said, expected), "{command}: {said:?} instead of {expected:?}");
            }
            count += 1;
        }
    }
    assert!(count >= 9, "only {count} calls were found");
}

#[test]
fn the_commands_of_the_readme_are_targets_of_the_makefile() {
    let (text, makefile) = (read(README), read("Makefile"));
    let mut targets = vec!["all"];
    for code in text.split('`').skip(1).filter(|code| code.contains("make ")) {
        targets.extend(between(code, "make ", " ").iter().filter(|word| **word != "&&"));
        targets.extend(code.trim().rsplit_once("make ").map(|(_, word)| word));
    }
    targets.retain(|target| target.bytes().all(|byte| byte.is_ascii_lowercase()));
    assert!(targets.contains(&"test") && targets.contains(&"install"), "{targets:?}");
    for target in targets {
        assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
    }
    assert!(text.contains("PROXY_CTRL_SUPERUSER=admin:1234 ./bin/socks5d -p 1080 -P 8080"));
    assert!(makefile.contains("bin/socks5d") && makefile.contains("bin/client"));
}

/// What the README gives to systemd is a command line that the server takes, and paths that it names itself.
#[test]
fn the_unit_of_systemd_starts_the_server() {
    let (unit, readme) = (read("contrib/systemd/socks5d.service"), read(README));
    let line = between(&unit, "\nExecStart=/usr/local/bin/socks5d ", "\n")[0];
    let arguments = line.split(' ').map(std::ffi::OsString::from);
    let parsed = args::parse(arguments, Some("admin:1234".as_ref())).expect("a good line");
    let CommandLine::Serve(args) = parsed else { panic!("it is to serve") };
    let stop = between(&unit, "\nTimeoutStopSec=", "\n")[0].parse().expect("a number");
    // A server that closes down has 2 s more for its administrators, and 1 s for its logs.
    assert!(args.settings.grace + Duration::from_secs(3) < Duration::from_secs(stop));
    // %L is /var/log.
    let AccessLogTo::File(log) = &args.logs.access_log else { panic!("it is a file") };
    let path = log.display().to_string().replace("%L", "/var/log");
    assert!(read("contrib/logrotate/socks5d").contains(&format!("\n{path} {{")), "{path}");
    assert!(readme.contains(&format!("`{path}`")), "{path}");
    let credential = between(&unit, "\nLoadCredential=superuser:", "\n")[0];
    assert!(readme.contains(&format!("/etc/credstore/{credential}\n")), "{credential}");
    assert_eq!(args.logs.format, LogFormat::Journal);
    assert!(read("contrib/fail2ban/jail.d/socks5d.conf").contains("\nbackend  = systemd\n"));
}

/// Tables apart, which cannot be broken.
#[test]
fn no_line_of_a_text_is_longer_than_120_characters() {
    for name in [README, SECURITY, NOTES, ARCHITECTURE, CONTRIBUTING] {
        for line in read(name).lines().filter(|line| !line.starts_with('|')) {
            assert!(line.chars().count() <= 120, "{name}: {line}");
        }
    }
}

#[test]
fn relative_links_lead_to_files() {
    for name in [README, NOTES, CHANGELOG, SECURITY, ARCHITECTURE, CONTRIBUTING] {
        let text = read(name);
        for link in between(&text, "](", ")") {
            let outside = link.starts_with("http") || link.starts_with('#');
            assert!(outside || file(link).exists(), "{name}: {link}");
        }
    }
    assert!(between(&read(README), "](", ")").len() > 10);
}

/// mandoc is not everywhere: where it is missing, a note says that this was not checked.
#[test]
fn manuals_are_clean() {
    for manual in MANUALS {
        let lint = Process::new("mandoc").args(["-Tlint", "-Wall"]).arg(file(manual)).output();
        let Ok(lint) = lint else {
            // Unlike eprintln, this is shown although the test succeeds.
            let note = format!("NOTE: mandoc is not installed, {manual} was not checked\n");
            return std::io::stderr().write_all(note.as_bytes()).expect("somebody reads it");
        };
        let said = [lint.stdout, lint.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // Whether other manuals are installed is no matter of these ones.
        let foreign = |line: &&str| {
            !line.contains("referenced manual not found") && !line.contains("outdated mandoc.db")
        };
        assert_eq!(said.lines().filter(foreign).collect::<Vec<_>>(), [""; 0]);
    }
}
