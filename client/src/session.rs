//! The protocol as a client speaks it: one command, one answer. Blocking, with a limit on every wait.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::thread;
use metp_protocol::{Command, END_OF_BODY, PreAuthCommand, Status};

use crate::answer::{Answer, AnswerKind};
use crate::output::Output;
use crate::{refusal, render};

/// How long anything may take that the client waits for.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long nothing may come, while events are waited for, until the server is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(5);

/// What is left of a wait that went by while the program was stopped.
const RESUME_TIMEOUT: Duration = Duration::from_millis(1);

/// The longest line that is taken from a server, in octets; METP's own limit is far below.
const LINE_LIMIT_BYTES: u64 = 4096;

/// Why a call did not do what it should. Displays as the line for stderr.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The server refused a command: 400, 404, 409 or 429, with its cause.
    Refused(String),
    /// The server does not know this option's command.
    Lacking(String),
    /// There is no connection, or the server has ended it and said why (421).
    Unreachable(String),
    /// The server has gone away, or has gone silent.
    Lost(String),
    /// The server has failed, or does not speak METP.
    Broken(String),
    /// 401
    Unauthenticated,
    /// 403
    Forbidden,
    /// What the server said cannot be shown.
    Output(io::Error),
    /// Something that the user has been told of already; its exit code.
    Reported(u8),
}

impl Failure {
    /// The exit code, by sysexits(3).
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 64,
            Failure::Refused(_) => 65,
            Failure::Unreachable(_) | Failure::Lacking(_) => 69,
            Failure::Lost(_) | Failure::Broken(_) => 70,
            Failure::Output(_) => 74,
            Failure::Reported(code) => *code,
            Failure::Unauthenticated | Failure::Forbidden => 77,
        }
    }

    /// Whether the server is not there, or not any more, so that it may be worth trying again.
    pub fn is_absence(&self) -> bool {
        matches!(self, Failure::Unreachable(_) | Failure::Lost(_))
    }

    /// Whether no further command can be given.
    pub fn ends_session(&self) -> bool {
        !matches!(self, Failure::Refused(_) | Failure::Lacking(_) | Failure::Forbidden)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) => write!(f, "client: {text}"),
            Failure::Refused(text)
            | Failure::Lacking(text)
            | Failure::Unreachable(text)
            | Failure::Lost(text)
            | Failure::Broken(text) => f.write_str(text),
            Failure::Unauthenticated => f.write_str("Authentication failed"),
            Failure::Forbidden => f.write_str("Not authorized to execute command"),
            Failure::Output(error) => write!(f, "Cannot write the output: {error}"),
            Failure::Reported(code) => write!(f, "exit code {code}"),
        }
    }
}

/// Where a server is, and who talks to it.
#[derive(Clone)]
pub struct Server {
    /// Its name or address.
    pub host: String,
    /// Its METP port.
    pub port: u16,
    /// The account.
    pub name: Vec<u8>,
    /// Its password.
    pub password: Vec<u8>,
    /// How long to try again while it is not there. `None`: not at all at first, without end after a session.
    pub wait: Option<Duration>,
    /// Where to show what it says.
    pub output: Output,
}

impl Server {
    /// Connects and logs in, which may take `time` in all, or [`REPLY_TIMEOUT`] if that is shorter.
    ///
    /// # Errors
    /// Those of [`Session::open`].
    pub fn log_in_once(&self, time: Duration) -> Result<Session, Failure> {
        let (name, password) = (self.name.clone(), self.password.clone());
        let login = PreAuthCommand::Auth { name, password }.encode();
        Session::open(&self.host, self.port, time.min(REPLY_TIMEOUT), login)
    }
}

/// How long an answer may take.
#[derive(Clone, Copy)]
struct Limit {
    deadline: Instant,
    /// All of the time, from when it began to the deadline.
    time: Duration,
}

impl Limit {
    /// A limit that begins now. `time` is at most [`REPLY_TIMEOUT`].
    fn new(time: Duration) -> Self {
        Limit { deadline: Instant::now() + time, time }
    }

    /// What is left of it.
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The failure of a read.
    fn lost(&self, error: io::Error) -> Failure {
        Failure::Lost(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let seconds = format!("{:.1}", self.time.as_secs_f64());
                let seconds = seconds.strip_suffix(".0").unwrap_or(&seconds);
                format!("The server did not answer within {seconds} s")
            }
            _ => format!("The connection was lost: {error}"),
        })
    }
}

/// Ends a session from another thread than that which waits for its answers.
pub struct Closer(TcpStream);

impl Closer {
    /// Ends the connection, unless it has ended.
    pub fn close(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// An open session.
pub struct Session {
    stream: BufReader<TcpStream>,
    /// The line that was read last, without its LF.
    line: Vec<u8>,
    /// What the server knows beyond METP/1.0, once it has been asked.
    verbs: Option<Vec<String>>,
}

impl Session {
    /// Connects to the first address of `host` that answers, greets, and logs in with this line: all within `time`.
    ///
    /// Both lines are sent in one segment: the server may evict a session that has greeted and not logged in
    /// when too many connect (METP §8), and never sees this one so.
    ///
    /// # Errors
    /// [`Failure::Unreachable`]; [`Failure::Broken`] if what answers is no METP server;
    /// [`Failure::Unauthenticated`] if the server does not know name and password; [`Failure::Usage`] if they
    /// make no line.
    pub fn open(
        host: &str,
        port: u16,
        time: Duration,
        login: Option<Vec<u8>>,
    ) -> Result<Self, Failure> {
        let limit = Limit::new(time);
        let unreachable = |error: io::Error| {
            Failure::Unreachable(format!(
                "{} to {}: {error}",
                render::NO_CONNECTION,
                render::endpoint(host, port)
            ))
        };
        let stream = connect(host, port, time).map_err(unreachable)?;
        let limits =
            stream.set_write_timeout(Some(REPLY_TIMEOUT)).and_then(|()| stream.set_nodelay(true));
        limits.map_err(unreachable)?;
        let stream = BufReader::new(stream);
        let mut session = Session { stream, line: Vec::new(), verbs: None };
        let greeting = PreAuthCommand::Hello.encode().into_iter();
        session.say(Some(greeting.chain(login.clone()).flatten().collect()))?;
        session.expect_ok_within(limit).map_err(|failure| match failure {
            Failure::Broken(_) | Failure::Lost(_) | Failure::Unreachable(_) => failure,
            other => Failure::Broken(format!("No METP/1.0 server: {other}")),
        })?;
        if login.is_none() {
            session.say(None)?;
        }
        session.expect_ok_within(limit)?;
        Ok(session)
    }

    /// What ends it from another thread.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn closer(&self) -> Result<Closer, Failure> {
        self.stream.get_ref().try_clone().map(Closer).map_err(lost)
    }

    /// Gives a command and reads the status line of its answer. Returns what follows the 200, or nothing.
    ///
    /// # Errors
    /// What the status line says, if it is not 200.
    pub fn command(&mut self, command: &Command) -> Result<String, Failure> {
        self.say(command.encode())?;
        self.expect_ok()?;
        Ok(self.words())
    }

    /// Says a line as it is, and reads the status line of its answer. Returns what follows the 200, or nothing.
    ///
    /// # Errors
    /// What the status line says, if it is not 200.
    pub fn say_line(&mut self, line: &[u8]) -> Result<String, Failure> {
        self.say(Some([line, &b"\n"[..]].concat()))?;
        self.expect_ok()?;
        Ok(self.words())
    }

    /// Makes sure that the server knows these verbs, which METP/1.0 does not have; it is asked once.
    ///
    /// # Errors
    /// [`Failure::Lacking`] if it does not know one; or if there is no answer.
    pub fn require(&mut self, option: &str, verbs: &[&str]) -> Result<(), Failure> {
        let known = match self.verbs.take() {
            Some(known) => known,
            None => self.ask_for_verbs()?,
        };
        let version = if known.is_empty() { " of METP/1.0" } else { "" };
        let lacks = verbs.iter().any(|verb| !known.iter().any(|known| known == verb));
        self.verbs = Some(known);
        match lacks {
            true => {
                let text = format!("{option}: this server{version} does not have it");
                Err(Failure::Lacking(text))
            }
            false => Ok(()),
        }
    }

    /// A server of METP/1.0 knows none, and says 400 to the question.
    fn ask_for_verbs(&mut self) -> Result<Vec<String>, Failure> {
        let text = match self.command(&Command::Capabilities) {
            Ok(text) => text,
            Err(Failure::Refused(_)) => return Ok(Vec::new()),
            Err(failure) => return Err(failure),
        };
        let told = Answer::read(AnswerKind::Pairs, text, self)?;
        let list = told.lines.iter().find_map(|line| line.strip_prefix("verbs="));
        Ok(list.unwrap_or_default().split(',').map(str::to_owned).collect())
    }

    /// Waits for the next event, for as long as it takes: its topic and its fields, made fit to print.
    ///
    /// # Errors
    /// If the connection ends, with what the server said about it.
    pub fn event(&mut self) -> Result<(String, String), Failure> {
        let mut asked = false;
        loop {
            if !self.hears(PING_AFTER)? {
                // Whether it is still there, and we are still somebody to it.
                if std::mem::replace(&mut asked, true) {
                    return Err(lost(io::ErrorKind::TimedOut.into()));
                }
                self.say(Command::Ping(None).encode())?;
                continue;
            }
            self.read_line(Limit::new(REPLY_TIMEOUT))?;
            let text = self.text();
            match Status::parse(&self.line) {
                Some(Status::EVENT) => {
                    let (topic, fields) = text.split_once(' ').unwrap_or((&text, ""));
                    return Ok((topic.to_owned(), fields.to_owned()));
                }
                Some(Status::OK) if asked => asked = false,
                Some(Status::UNAUTHORIZED) => return Err(Failure::Unauthenticated),
                Some(Status::CLOSING) => return Err(self.closing()),
                _ => {
                    let line = render::text(&self.line);
                    return Err(Failure::Broken(format!("No event: \"{line}\"")));
                }
            }
        }
    }

    /// Waits for something to come. `false`: nothing has.
    fn hears(&mut self, patience: Duration) -> Result<bool, Failure> {
        self.stream.get_ref().set_read_timeout(Some(patience)).map_err(lost)?;
        loop {
            return match self.stream.fill_buf() {
                Ok(_) => Ok(true),
                // The program has been stopped and continued, perhaps.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(lost(error)),
            };
        }
    }

    /// What follows the code of a status line.
    fn words(&self) -> String {
        render::text(self.line.get(3..).unwrap_or_default()).trim().to_owned()
    }

    /// What follows the code of a status line; the code where nothing does.
    fn text(&self) -> String {
        let text = self.words();
        if text.is_empty() { render::text(&self.line) } else { text }
    }

    /// Why the server ends the session, in its words.
    fn closing(&self) -> Failure {
        let text = self.text();
        let why = refusal::cause(&text).map(|(_, why)| why).filter(|why| !why.is_empty());
        Failure::Unreachable(why.unwrap_or(&text).to_owned())
    }

    /// Hands each line of a body to `each`.
    ///
    /// # Errors
    /// If the body breaks off, or `each` fails.
    pub fn body(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            self.read_line(Limit::new(REPLY_TIMEOUT))?;
            if self.line == END_OF_BODY.as_bytes() {
                return Ok(());
            }
            // A line that begins with a dot has got another one on its way (METP §3.2).
            each(
                self.line
                    .strip_prefix(b".")
                    .filter(|rest| rest.starts_with(b"."))
                    .unwrap_or(&self.line),
            )?;
        }
    }

    /// Ends the session.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn quit(&mut self) -> Result<(), Failure> {
        self.command(&Command::Quit).map(drop)
    }

    fn say(&mut self, line: Option<Vec<u8>>) -> Result<(), Failure> {
        let Some(line) = line else {
            return Err(Failure::Usage("the password is empty or holds a line end".to_owned()));
        };
        self.stream.get_mut().write_all(&line).map_err(lost)
    }

    fn expect_ok(&mut self) -> Result<(), Failure> {
        self.expect_ok_within(Limit::new(REPLY_TIMEOUT))
    }

    fn expect_ok_within(&mut self, limit: Limit) -> Result<(), Failure> {
        self.read_line(limit)?;
        while Status::parse(&self.line) == Some(Status::EVENT) {
            // Somebody has subscribed to events by a line of their own.
            self.read_line(limit)?;
        }
        match Status::parse(&self.line) {
            Some(Status::OK) => Ok(()),
            Some(Status::BAD_REQUEST | Status::NOT_FOUND | Status::CONFLICT | Status::TOO_MANY) => {
                Err(Failure::Refused(self.text()))
            }
            Some(Status::CLOSING) => Err(self.closing()),
            Some(Status::UNAUTHORIZED) => Err(Failure::Unauthenticated),
            Some(Status::FORBIDDEN) => Err(Failure::Forbidden),
            Some(_) => Err(Failure::Broken(format!("Server error: {}", render::text(&self.line)))),
            None => {
                Err(Failure::Broken(format!("No METP reply: \"{}\"", render::text(&self.line))))
            }
        }
    }

    /// Reads a line that ends in LF or CRLF. All of it has to come in time: a server that sends an octet now
    /// and then does not hold up anybody.
    fn read_line(&mut self, limit: Limit) -> Result<(), Failure> {
        self.line.clear();
        let mut interrupted = false;
        while self.line.last() != Some(&b'\n') {
            if self.stream.buffer().is_empty() {
                let mut left = limit.left();
                if interrupted {
                    // If the program was stopped, the answer has come meanwhile.
                    left = left.max(RESUME_TIMEOUT);
                }
                if left.is_zero() {
                    return Err(limit.lost(io::ErrorKind::TimedOut.into()));
                }
                self.stream.get_ref().set_read_timeout(Some(left)).map_err(lost)?;
                match self.stream.fill_buf() {
                    Ok([]) => break,
                    Ok(_) => interrupted = false,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        interrupted = true;
                        continue;
                    }
                    Err(error) => return Err(limit.lost(error)),
                }
            }
            let room = LINE_LIMIT_BYTES.saturating_sub(self.line.len() as u64);
            if room == 0 {
                break;
            }
            let ready = self.stream.buffer().len() as u64;
            let mut limited = Read::by_ref(&mut self.stream).take(room.min(ready));
            limited.read_until(b'\n', &mut self.line).map_err(lost)?;
        }
        match self.line.pop() {
            Some(b'\n') => {}
            Some(_) if self.line.len() as u64 + 1 >= LINE_LIMIT_BYTES => {
                return Err(Failure::Broken("The server's line is too long".to_owned()));
            }
            _ => return Err(Failure::Lost("The server closed the connection".to_owned())),
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(())
    }
}

fn lost(error: io::Error) -> Failure {
    Limit::new(REPLY_TIMEOUT).lost(error)
}

/// Connects to one address after the other; the look-up and all attempts share the time.
fn connect(host: &str, port: u16, time: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + time;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for address in look_up(host, port, time)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The stack of a thread that looks up a name, in bytes: getaddrinfo(3) puts buffers of 64 KiB and more on it.
const STACK_BYTES: usize = 256 * 1024;

/// A look-up cannot be interrupted: it is left behind in its thread when it takes too long. An address needs none.
fn look_up(host: &str, port: u16, time: Duration) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, receiver) = mpsc::channel();
    let host = host.to_owned();
    thread::start(c"dns", STACK_BYTES, move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // The receiver may have given up.
        let _ = sender.send(addresses);
    })?;
    receiver.recv_timeout(time).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
