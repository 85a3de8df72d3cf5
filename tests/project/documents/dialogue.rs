//! The examples of `protocol_metp.txt` §12, run against a server.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

use metp_protocol::verbs;
use support::origin::Origin;
use support::proxy::{Proxy, connect};
use support::read_exactly;
use support::socks::Client;

/// How every example's server is started, as the text says it.
pub const START: &str = "PROXY_CTRL_SUPERUSER=admin:1234 socks5d -u alice:wonderland";

/// One example.
pub struct Example {
    /// Its number and name.
    pub title: String,
    steps: Vec<Step>,
}

enum Step {
    /// A line of the client with this mark.
    Say(String, String),
    /// A line that the client with this mark is told.
    Hear(String, String),
    /// Something that happens besides.
    Stage(String),
}

impl Example {
    /// All examples of the text.
    pub fn all(text: &str) -> Vec<Example> {
        let mut examples: Vec<Example> = Vec::new();
        for line in text.lines() {
            if line.starts_with("12.") && !line.starts_with("12. ") {
                examples.push(Example { title: line.to_owned(), steps: Vec::new() });
            } else if line.starts_with("13.") {
                break;
            } else if let (Some(example), Some(line)) =
                (examples.last_mut(), line.strip_prefix("      "))
            {
                example.read(line);
            }
        }
        examples
    }

    fn read(&mut self, line: &str) {
        let (mark, rest) = line.split_once(':').unwrap_or((line, ""));
        let rest = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
        let step = match (mark, self.steps.last_mut()) {
            (mark, _) if mark.starts_with('C') => Step::Say(mark.replace('C', ""), rest),
            (mark, _) if mark.starts_with('S') => Step::Hear(mark.replace('S', ""), rest),
            (mark, _) if mark.starts_with("--") => Step::Stage(line.replace("-- ", "")),
            (_, Some(Step::Stage(text) | Step::Hear(_, text))) if line.starts_with("   ") => {
                text.push(' ');
                return text.push_str(line.trim());
            }
            _ => panic!("{}: what is {line:?}?", self.title),
        };
        self.steps.push(step);
    }

    /// The lines that the server says.
    pub fn replies(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match step {
            Step::Hear(_, line) => Some(line.as_str()),
            _ => None,
        })
    }

    /// Runs it on a server of its own.
    pub fn run(&self) {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, rules) = (directory.path().join("users"), directory.path().join("rules"));
        let at_first = self.steps.iter().find_map(|step| match step {
            Step::Stage(what) => what.strip_prefix("RULES has one line: "),
            _ => None,
        });
        if let Some(line) = at_first {
            fs::write(&rules, format!("{line}\n")).expect("written");
        }
        let mut options = vec!["-u", "alice:wonderland"];
        if let Some(Step::Stage(what)) = self.steps.first()
            && let Some(more) = what.strip_prefix("the server was started with ")
        {
            let more = more.strip_suffix(" as well").expect("what else");
            let path = file.to_str().expect("UTF-8");
            options.extend(more.split(' ').map(|word| match word {
                "FILE" => path,
                "RULES" => rules.to_str().expect("UTF-8"),
                word => word,
            }));
        }
        let proxy = Proxy::with(&options);
        let (mut sessions, mut tunnels, mut id) = (BTreeMap::new(), Vec::new(), String::new());
        for (number, step) in self.steps.iter().enumerate() {
            let place = format!("{}, step {}", self.title, number + 1);
            match step {
                Step::Say(mark, line) => {
                    let new = || BufReader::new(connect(proxy.metp_address()));
                    say(sessions.entry(mark).or_insert_with(new), &line.replace("<id>", &id));
                }
                Step::Hear(mark, line) => {
                    let session = sessions.get_mut(mark).expect("the client speaks first");
                    let heard = hear(session, line, &place);
                    if let Some((_, rest)) =
                        heard.split_once("id=").filter(|_| line.contains("<id>"))
                    {
                        rest.split(' ').next().unwrap_or_default().clone_into(&mut id);
                    }
                }
                Step::Stage(what) if what.starts_with("the server was started with ") => {}
                Step::Stage(what) if what.starts_with("RULES has one line: ") => {}
                Step::Stage(what) => match what.strip_prefix("somebody writes to ") {
                    Some(text) => {
                        let (name, line) = text.split_once(": ").expect("a line");
                        let path = if name == "RULES" { &rules } else { &file };
                        let mut file =
                            OpenOptions::new().append(true).open(path).expect("it is there");
                        writeln!(file, "{line}").expect("written");
                    }
                    None => tunnels.extend(stage(what, &proxy)),
                },
            }
        }
    }
}

fn say(session: &mut BufReader<TcpStream>, line: &str) {
    let stream = session.get_mut();
    if line == "<close>" {
        return stream.shutdown(Shutdown::Write).expect("it is open");
    }
    let line = line.replace("<CR>", "\r").replace("<5000 x>", &"x".repeat(5000));
    assert!(!line.contains('<'), "an unknown placeholder: {line}");
    // The server may have said goodbye already; what it says then is what counts.
    let _ = stream.write_all(format!("{line}\n").as_bytes());
}

fn hear(session: &mut BufReader<TcpStream>, expected: &str, place: &str) -> String {
    if expected == "<close>" {
        let mut rest = Vec::new();
        session.read_to_end(&mut rest).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(String::from_utf8_lossy(&rest), "", "{place}: the end");
        return String::new();
    }
    let mut line = String::new();
    session.read_line(&mut line).unwrap_or_else(|error| panic!("{place}: {error}"));
    let heard = line.strip_suffix('\n').unwrap_or_else(|| panic!("{place}: no LF: {line:?}"));
    assert!(fits(heard, expected), "{place}: {heard:?} instead of {expected:?}");
    heard.to_owned()
}

/// Whether a line is the expected one, placeholders replaced.
pub fn fits(heard: &str, expected: &str) -> bool {
    let Some((before, placeholder)) = expected.split_once('<') else { return heard == expected };
    let Some(rest) = heard.strip_prefix(before) else { return false };
    let (name, after) = placeholder.split_once('>').expect("a placeholder ends in >");
    let length = match name {
        "time" => "0000-00-00T00:00:00Z".len(),
        "id" | "seconds" | "micros" => {
            rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count()
        }
        "verbs" => rest.len(),
        "password" => rest.bytes().take_while(u8::is_ascii_alphanumeric).count(),
        "port" | "number" => rest.bytes().take_while(u8::is_ascii_digit).count(),
        other => panic!("an unknown placeholder: <{other}>"),
    };
    let Some((value, rest)) = rest.split_at_checked(length) else { return false };
    let shape: String = value.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let decimal = |digits| {
        value.split_once('.').is_some_and(|(whole, part)| {
            whole.parse::<u32>().is_ok() && part.len() == digits && part.parse::<u32>().is_ok()
        })
    };
    let good = match name {
        "id" => value.split('.').filter(|part| part.parse::<u32>().is_ok()).count() == 2,
        "seconds" => decimal(3),
        "micros" => decimal(6),
        "number" => value.parse::<u64>().is_ok(),
        "password" => value.len() == 32,
        "verbs" => value == verbs().collect::<Vec<_>>().join(","),
        "time" => shape == "0000-00-00T00:00:00Z",
        _ => value.parse::<u16>().is_ok(),
    };
    good && fits(rest, after)
}

/// What happens besides. Returns connections that are to stay open.
fn stage(what: &str, proxy: &Proxy) -> Vec<TcpStream> {
    if what == "alice relays 1024 octets through a tunnel, which stays open" {
        let client = Client::new(proxy.socks()).logged_in("alice", "wonderland");
        let mut tunnel = client.connected(Origin::echo().address);
        tunnel.write_all(&[b'x'; 512]).expect("taken");
        read_exactly(&mut tunnel, 512);
        return vec![tunnel];
    }
    if let Some(count) = what.strip_suffix(" other sessions subscribe") {
        let subscriber = |_| {
            let mut session = BufReader::new(connect(proxy.metp_address()));
            for (line, answer) in [
                ("HELLO METP/1.0", "200 Welcome to METP/1.0"),
                ("AUTH admin 1234", "200 OK"),
                ("SUBSCRIBE logs", "200 OK"),
            ] {
                say(&mut session, line);
                hear(&mut session, answer, what);
            }
            session.into_inner()
        };
        return (0..count.parse().expect("a number")).map(subscriber).collect();
    }
    let line = what.strip_prefix("the diagnostics say: ");
    let line = line.unwrap_or_else(|| panic!("nobody knows how to: {what}"));
    proxy.stderr.wait_for(|said| said.ends_with(line));
    Vec::new()
}
