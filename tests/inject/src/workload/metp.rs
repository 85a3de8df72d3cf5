//! An administrator while calls fail.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};

use super::{BadEnd, Outcome, Stage, Whole, connect, ended, nothing_more, say, whole};

/// Commands, and whether a body follows `200`.
const COMMANDS: [(&str, bool); 9] = [
    ("HELLO METP/1.0", false),
    ("AUTH admin 1234", false),
    ("GET_METRICS", true),
    ("INFO", true),
    ("USERS", true),
    ("GET_LOGS", true),
    ("CONFIG SET log-entries 500", false),
    ("CONNECTIONS", true),
    ("QUIT", false),
];

/// A session, from its first command to its end.
pub(super) fn session(stage: &Stage<'_>) -> Outcome {
    whole(|| {
        let mut stream = BufReader::new(connect(stage.metp)?);
        for (command, body) in COMMANDS {
            say(stream.get_mut(), format!("{command}\n").as_bytes())?;
            let status = line(&mut stream, command)?;
            if !status.starts_with("200") {
                return Err(BadEnd(format!("{command}: {status}")));
            }
            while body && line(&mut stream, command)? != "." {}
        }
        Ok(match nothing_more(stream.get_mut()) {
            BadEnd(_) => Whole,
            outcome => outcome,
        })
    })
}

/// A line of METP. A part of one is recognised, since it has no LF.
fn line(stream: &mut BufReader<TcpStream>, what: &str) -> Result<String, Outcome> {
    let mut line = String::new();
    match stream.read_line(&mut line) {
        Ok(_) if line.ends_with('\n') => Ok(line.trim_end().to_owned()),
        Ok(_) => Err(BadEnd(format!("{what}: EOF"))),
        Err(error) => Err(ended(what, &error)),
    }
}

/// The figure of open connections, and what `look` sees while the session that asks is open; nothing if the
/// figure cannot be had. The session is over afterwards: it has said QUIT, and has been closed.
pub fn open_connections<T>(metp: SocketAddr, look: impl FnOnce() -> T) -> Option<(u64, T)> {
    let mut stream = BufReader::new(connect(metp).ok()?);
    say(stream.get_mut(), b"HELLO METP/1.0\nAUTH admin 1234\nGET_METRICS\n").ok()?;
    let mut open = None;
    loop {
        let line = line(&mut stream, "metrics").ok()?;
        match line.strip_prefix("CURRENT_CONNECTIONS:") {
            Some(figure) => open = Some(figure.trim().parse().ok()?),
            None if line == "." => break,
            None => {}
        }
    }
    let seen = look();
    say(stream.get_mut(), b"QUIT\n").ok()?;
    stream.read_to_end(&mut Vec::new()).ok()?;
    Some((open?, seen))
}
