//! The METP command line `client` in a process of its own.

use std::ffi::OsStr;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use crate::proxy::wait_for_exit;
use crate::{PATIENCE, binary};

/// The outcome of a call.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

/// Variables that change what the client does or prints.
const SURROUNDINGS: [&str; 12] = [
    "METP_AUTH",
    "METP_AUTH_FILE",
    "METP_HOST",
    "METP_PORT",
    "NO_COLOR",
    "COLUMNS",
    "LINES",
    "TZ",
    "LC_ALL",
    "LC_CTYPE",
    "LC_TIME",
    "LANGUAGE",
];

/// A call that has not been made yet: no variable in its environment but UTF-8, nothing on stdin, stdout and stderr
/// piped.
pub fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary("client"));
    command.args(arguments).env("LANG", "C.UTF-8").env("TERM", "xterm");
    for variable in SURROUNDINGS {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Makes a call as `admin:1234` to the server at this address.
pub fn client<S: AsRef<OsStr>>(
    server: SocketAddr,
    arguments: impl IntoIterator<Item = S>,
) -> Outcome {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    run(command(["-H", &host, "-p", &port, "-u", "admin:1234"]).args(arguments))
}

/// Makes a call and waits for its end.
pub fn run(command: &mut Command) -> Outcome {
    outcome(command.spawn().expect("client starts"))
}

/// Waits for the end of a call.
pub fn outcome(mut child: Child) -> Outcome {
    let stdout = gather(child.stdout.take());
    let stderr = gather(child.stderr.take());
    let code = wait_for_exit(&mut child, PATIENCE).code().unwrap_or(-1);
    let text = |gathered: JoinHandle<String>| gathered.join().expect("readable");
    Outcome { code, stdout: text(stdout), stderr: text(stderr) }
}

fn gather(stream: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut stream) = stream {
            stream.read_to_string(&mut text).expect("text");
        }
        text
    })
}
