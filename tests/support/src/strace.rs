//! The program with system calls that fail, by strace(1).

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::proxy::{send_signal, wait_for_exit};
use crate::{PATIENCE, binary};

/// socks5d with calls that fail, by strace(1).
pub struct Injected {
    /// The process of socks5d itself.
    pub child: Child,
    /// Where it takes SOCKS.
    pub socks: SocketAddr,
    lines: mpsc::Receiver<String>,
}

impl Injected {
    /// Starts it with the option `inject` of strace. `None` where there is no strace that can do this.
    pub fn start(inject: &str) -> Option<Self> {
        let with = |program: &std::path::Path| {
            let mut command = Command::new("strace");
            command.args(["-D", "-q", "-o", "/dev/null", "-e", "signal=none"]);
            command.args(["-e", &format!("inject={inject}")]).arg(program);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        if !with("true".as_ref()).status().is_ok_and(|status| status.success()) {
            println!("skipped: no strace here that injects {inject}");
            return None;
        }
        let mut command = with(&binary("socks5d"));
        command.args(["-l", "127.0.0.1", "-p", "0", "-P", "0", "-u", "alice:secret"]);
        command.env_remove("RUST_LOG").stderr(Stdio::piped());
        let mut child = command.spawn().expect("it has been tried");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        let mut server = Injected { child, socks: ([0; 4], 0).into(), lines };
        let line = server.wait_for("service=socks address=");
        let (_, address) = line.split_once("address=").expect("it was found by that");
        server.socks = address.parse().expect("an address");
        Some(server)
    }

    /// Waits for a line of the diagnostics that has this part.
    pub fn wait_for(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("no line with {part:?}: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Expects that SIGTERM ends it, as it should.
    pub fn ends_by_sigterm(mut self) {
        send_signal(&self.child, libc::SIGTERM);
        let status = wait_for_exit(&mut self.child, PATIENCE);
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
