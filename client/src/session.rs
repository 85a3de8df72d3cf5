//! A METP session as a client holds it: one command, one answer (METP §3).

use std::time::Duration;

use metp_protocol::{Command, END_OF_BODY, PreAuthCommand, Status, split_cause};

use crate::answer::{Answer, AnswerKind};
use crate::connection::{Closer, Deadline, LineStream, REPLY_TIMEOUT, timed_out};
use crate::failure::Failure;
use crate::output::Output;
use crate::render;

/// How long no event may come until a PING asks whether the server is still there.
const PING_AFTER: Duration = Duration::from_secs(5);

/// Lines of an answer that is no list: each is another figure.
const MAX_FIGURES: usize = 256;

/// A server, and the account that is used there.
#[derive(Clone)]
pub struct Server {
    /// Name or address, an IPv6 one without brackets.
    pub host: String,
    /// METP port.
    pub port: u16,
    /// The account's name.
    pub name: Vec<u8>,
    /// The account's password.
    pub password: Vec<u8>,
    /// How long attempts to connect are repeated. `None`: one attempt at the start, without end after a session.
    pub wait: Option<Duration>,
    /// Where its answers and failures are printed.
    pub output: Output,
}

impl Server {
    /// Connects and logs in, once, within `timeout` or [`REPLY_TIMEOUT`], whichever is shorter.
    ///
    /// # Errors
    /// Those of [`Session::open`].
    pub fn log_in_once(&self, timeout: Duration) -> Result<Session, Failure> {
        let (name, password) = (self.name.clone(), self.password.clone());
        let login = PreAuthCommand::Auth { name, password }.encode();
        Session::open(&self.host, self.port, timeout.min(REPLY_TIMEOUT), login)
    }
}

/// An open session.
pub struct Session {
    connection: LineStream,
    /// The verbs that CAPA named; `None` before it was asked. A server of METP/1.0 has none.
    verbs: Option<Vec<String>>,
}

impl Session {
    /// Connects, greets, and logs in with the line `login`: all within `timeout`.
    ///
    /// Both lines are sent in one segment: the server may evict a session that has greeted and not logged in
    /// when too many connect (METP §8), and never sees this one so.
    ///
    /// # Errors
    /// [`Failure::Unreachable`]; [`Failure::Broken`] if what answers is no METP server;
    /// [`Failure::Unauthenticated`] if the server refuses name and password; [`Failure::Usage`] if they make no
    /// line.
    pub fn open(
        host: &str,
        port: u16,
        timeout: Duration,
        login: Option<Vec<u8>>,
    ) -> Result<Self, Failure> {
        let deadline = Deadline::after(timeout);
        let connection = LineStream::connect(host, port, timeout)?;
        let mut session = Session { connection, verbs: None };
        let greeting = PreAuthCommand::Hello.encode().into_iter();
        session.send(Some(greeting.chain(login.clone()).flatten().collect()))?;
        session.expect_ok_by(deadline).map_err(|failure| match failure {
            Failure::Broken(_) | Failure::Lost(_) | Failure::Unreachable(_) => failure,
            other => Failure::Broken(format!("No METP/1.0 server: {other}")),
        })?;
        if login.is_none() {
            session.send(None)?;
        }
        session.expect_ok_by(deadline)?;
        Ok(session)
    }

    /// A handle that ends the session from another thread.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn closer(&self) -> Result<Closer, Failure> {
        self.connection.closer()
    }

    /// Sends a command and reads the status line of its answer. Returns what follows the 200, or nothing.
    ///
    /// # Errors
    /// What the status line says, if it is not 200.
    pub fn command(&mut self, command: &Command) -> Result<String, Failure> {
        self.send(command.encode())?;
        self.expect_ok()?;
        Ok(self.status_text())
    }

    /// Sends a command whose answer is read later, by [`answered`](Session::answered).
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn send_ahead(&mut self, command: &Command) -> Result<(), Failure> {
        self.send(command.encode())
    }

    /// Reads the status line that answers the oldest command of those that were sent ahead.
    ///
    /// # Errors
    /// What the status line says, if it is not 200.
    pub fn answered(&mut self) -> Result<(), Failure> {
        self.expect_ok()
    }

    /// Sends a line as it is, and reads the status line of its answer. Returns what follows the 200, or nothing.
    ///
    /// # Errors
    /// What the status line says, if it is not 200.
    pub fn raw_command(&mut self, line: &[u8]) -> Result<String, Failure> {
        self.send(Some([line, &b"\n"[..]].concat()))?;
        self.expect_ok()?;
        Ok(self.status_text())
    }

    /// Sends a command whose answer is no list, and reads all of the answer.
    ///
    /// # Errors
    /// Those of [`command`](Session::command) and of [`read_answer`](Session::read_answer).
    pub fn query(&mut self, command: &Command) -> Result<Answer, Failure> {
        let text = self.command(command)?;
        self.read_answer(AnswerKind::of(command), text)
    }

    /// Reads what follows a status line that was 200, unless that is a list. `text` is what stood behind the 200.
    ///
    /// # Errors
    /// If the body breaks off, does not end, or lacks what its kind has to have.
    pub fn read_answer(&mut self, kind: AnswerKind, text: String) -> Result<Answer, Failure> {
        let mut lines = Vec::new();
        if kind.has_body() {
            self.read_body(|line| {
                if lines.len() >= MAX_FIGURES {
                    let text = "The server's metrics are too long".to_owned();
                    return Err(Failure::Broken(text));
                }
                lines.push(render::text(line));
                Ok(())
            })?;
        }
        Answer { kind, text, lines }.checked()
    }

    /// Reads a body of any length, and passes each of its lines to `each`.
    ///
    /// # Errors
    /// If the body breaks off, or `each` fails.
    pub fn read_body(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            self.connection.read_line(Deadline::after(REPLY_TIMEOUT))?;
            let line = self.connection.line();
            if line == END_OF_BODY.as_bytes() {
                return Ok(());
            }
            // A line that begins with a dot has got another one on its way (METP §3.2).
            each(line.strip_prefix(b".").filter(|rest| rest.starts_with(b".")).unwrap_or(line))?;
        }
    }

    /// Makes sure that the server has these verbs, which METP/1.0 does not have. CAPA is sent once in a session.
    ///
    /// # Errors
    /// [`Failure::Lacking`] if it lacks one; or if there is no answer.
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

    /// The verbs that CAPA names. A server of METP/1.0 answers 400: it has none of those that are asked for.
    fn ask_for_verbs(&mut self) -> Result<Vec<String>, Failure> {
        let answer = match self.query(&Command::Capabilities) {
            Ok(answer) => answer,
            Err(Failure::Refused(_)) => return Ok(Vec::new()),
            Err(failure) => return Err(failure),
        };
        let list = answer.lines.iter().find_map(|line| line.strip_prefix("verbs="));
        Ok(list.unwrap_or_default().split(',').map(str::to_owned).collect())
    }

    /// Waits for the next event, without a limit. Returns its topic and its fields, made fit to print.
    ///
    /// # Errors
    /// If the session ends, with the reason of the server if it gave one.
    pub fn next_event(&mut self) -> Result<(String, String), Failure> {
        let mut pinged = false;
        loop {
            if !self.connection.wait_readable(PING_AFTER)? {
                if pinged {
                    return Err(timed_out());
                }
                pinged = true;
                self.send(Command::Ping(None).encode())?;
                continue;
            }
            self.connection.read_line(Deadline::after(REPLY_TIMEOUT))?;
            let text = self.text();
            match self.status() {
                Some(Status::EVENT) => {
                    let (topic, fields) = text.split_once(' ').unwrap_or((&text, ""));
                    return Ok((topic.to_owned(), fields.to_owned()));
                }
                Some(Status::OK) if pinged => pinged = false,
                // The account has been deleted.
                Some(Status::UNAUTHORIZED) => return Err(Failure::Unauthenticated),
                Some(Status::CLOSING) => return Err(self.closing()),
                _ => return Err(Failure::Broken(format!("No event: \"{}\"", self.line()))),
            }
        }
    }

    /// Ends the session.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn quit(&mut self) -> Result<(), Failure> {
        self.command(&Command::Quit).map(drop)
    }

    fn send(&mut self, line: Option<Vec<u8>>) -> Result<(), Failure> {
        let Some(line) = line else {
            return Err(Failure::Usage("the password is empty or holds a line end".to_owned()));
        };
        self.connection.send(&line)
    }

    fn expect_ok(&mut self) -> Result<(), Failure> {
        self.expect_ok_by(Deadline::after(REPLY_TIMEOUT))
    }

    fn expect_ok_by(&mut self, deadline: Deadline) -> Result<(), Failure> {
        self.connection.read_line(deadline)?;
        while self.status() == Some(Status::EVENT) {
            // The user has sent SUBSCRIBE as a line of METP.
            self.connection.read_line(deadline)?;
        }
        match self.status() {
            Some(Status::OK) => Ok(()),
            Some(Status::BAD_REQUEST | Status::NOT_FOUND | Status::CONFLICT | Status::TOO_MANY) => {
                Err(Failure::Refused(self.text()))
            }
            Some(Status::FAILED) if split_cause(&self.text()).is_some() => {
                Err(Failure::NotDone(self.text()))
            }
            Some(Status::CLOSING) => Err(self.closing()),
            Some(Status::UNAUTHORIZED) => Err(Failure::Unauthenticated),
            Some(Status::FORBIDDEN) => Err(Failure::Forbidden),
            Some(_) => Err(Failure::Broken(format!("Server error: {}", self.line()))),
            None => Err(Failure::Broken(format!("No METP reply: \"{}\"", self.line()))),
        }
    }

    /// The code of the status line that was read last; `None` if it is none.
    fn status(&self) -> Option<Status> {
        Status::parse(self.connection.line())
    }

    /// The line that was read last, made fit to print.
    fn line(&self) -> String {
        render::text(self.connection.line())
    }

    /// What follows the code of a status line.
    fn status_text(&self) -> String {
        let text = self.connection.line().get(3..).unwrap_or_default();
        render::text(text).trim().to_owned()
    }

    /// What follows the code of a status line; the code where nothing does.
    fn text(&self) -> String {
        let text = self.status_text();
        if text.is_empty() { self.line() } else { text }
    }

    /// Why the server ends the session (421), in its words.
    fn closing(&self) -> Failure {
        let text = self.text();
        let why = split_cause(&text).map(|(_, why)| why).filter(|why| !why.is_empty());
        Failure::Unreachable(why.unwrap_or(&text).to_owned())
    }
}
