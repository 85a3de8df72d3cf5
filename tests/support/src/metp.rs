//! A METP client in literal lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

/// A connection to a METP server.
pub struct Metp {
    stream: BufReader<TcpStream>,
}

impl Metp {
    /// A client that has said nothing yet.
    pub fn new(stream: TcpStream) -> Self {
        Metp { stream: BufReader::new(stream) }
    }

    /// Greets and logs in.
    pub fn logged_in(mut self, name: &str, password: &str) -> Self {
        self.say("HELLO METP/1.0\n").hears("200 Welcome to METP/1.0\n");
        self.say(&format!("AUTH {name} {password}\n")).hears("200 OK\n");
        self
    }

    /// Sends text as it is; lines end where it says so.
    pub fn say(&mut self, text: &str) -> &mut Self {
        self.say_bytes(text.as_bytes())
    }

    /// Sends bytes.
    pub fn say_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.stream.get_mut().write_all(bytes).expect("the server listens");
        self
    }

    /// Expects exactly this text.
    pub fn hears(&mut self, expected: &str) -> &mut Self {
        let mut heard = vec![0; expected.len()];
        let result = self.stream.read_exact(&mut heard);
        assert!(result.is_ok(), "{expected:?} expected: {result:?}");
        assert_eq!(String::from_utf8_lossy(&heard), expected);
        self
    }

    /// Reads one line, without its LF.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        assert!(line.ends_with('\n') && !line.ends_with("\r\n"), "not a METP line: {line:?}");
        line.pop();
        line
    }

    /// Reads a body up to its terminator.
    pub fn body(&mut self) -> Vec<String> {
        std::iter::repeat_with(|| self.line()).take_while(|line| line != ".").collect()
    }

    /// Gives a command; expects `200 OK` and a body.
    pub fn ask(&mut self, command: &str) -> Vec<String> {
        self.say(&format!("{command}\n")).hears("200 OK\n");
        self.body()
    }

    /// Gives a command; expects one line and returns it.
    pub fn command(&mut self, command: &str) -> String {
        self.say(&format!("{command}\n"));
        self.line()
    }

    /// The figures of GET_METRICS: historical, current, bytes.
    pub fn metrics(&mut self) -> [u64; 3] {
        let figures: Vec<u64> = self
            .ask("GET_METRICS")
            .iter()
            .map(|line| line.split(':').nth(1).expect("a value").trim().parse().expect("a number"))
            .collect();
        figures.try_into().expect("three figures")
    }

    /// A figure of GET_METRICS ALL.
    pub fn figure(&mut self, key: &str) -> u64 {
        let lines = self.ask("GET_METRICS ALL");
        let value = lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let value = value.unwrap_or_else(|| panic!("no {key} in {lines:?}"));
        value.trim().parse().expect("a number")
    }

    /// The value of a key in INFO.
    pub fn info(&mut self, key: &str) -> String {
        let lines = self.ask("INFO");
        let value = lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {key} in {lines:?}")).to_owned()
    }

    /// The value of a setting.
    pub fn setting(&mut self, key: &str) -> String {
        let lines = self.ask(&format!("CONFIG GET {key}"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        value(&lines[0], "value").to_owned()
    }

    /// Changes a setting.
    pub fn set(&mut self, key: &str, value: impl std::fmt::Display) {
        assert_eq!(self.command(&format!("CONFIG SET {key} {value}")), "200 OK", "{key} {value}");
    }

    /// The connection that comes from there, as CONNECTIONS shows it now.
    pub fn connection_from(&mut self, source: &TcpStream) -> Option<String> {
        let source = format!(" source={} ", source.local_addr().expect("connected"));
        self.ask("CONNECTIONS").into_iter().find(|line| line.contains(&source))
    }

    /// Expects EOF, and no reset.
    pub fn hears_eof(&mut self) {
        assert_eq!(self.rest(), "", "nothing more");
    }

    /// All that comes before EOF.
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).expect("EOF, not a reset");
        rest
    }

    /// Ends the writing direction.
    pub fn half_close(&mut self) -> &mut Self {
        self.stream.get_ref().shutdown(Shutdown::Write).expect("it is open");
        self
    }
}

/// The value of a field in a line of `key=value` fields.
pub fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let value = line.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key} in {line}"))
}
