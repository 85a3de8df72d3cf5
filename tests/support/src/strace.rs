//! The program with system calls that fail, by strace(1).

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::metp::Metp;
use crate::proxy::{connect, send_signal, wait_for_exit};
use crate::{PATIENCE, binary};

/// socks5d with calls that fail, by strace(1).
pub struct Injected {
    /// The process of socks5d itself.
    pub child: Child,
    /// Where it takes SOCKS.
    pub socks: SocketAddr,
    /// Where it takes METP.
    pub metp: SocketAddr,
    lines: mpsc::Receiver<String>,
}

impl Injected {
    /// Starts it with the option `inject` of strace. `None` where there is no strace that can do this.
    pub fn start(inject: &str) -> Option<Self> {
        Injected::with(inject, &[], &["-u", "alice:secret"])
    }

    /// Starts it with an administrator and these arguments. The calls that fail are those that are about one of these
    /// paths, in all threads; without a path all calls.
    pub fn with<S: AsRef<OsStr>>(inject: &str, paths: &[&Path], arguments: &[S]) -> Option<Self> {
        let with = |program: &Path| {
            let mut command = Command::new("strace");
            command.args(["-D", "-q", "-o", "/dev/null", "-e", "signal=none"]);
            for path in paths {
                command.arg("-f").arg("-P").arg(path);
            }
            command.args(["-e", &format!("inject={inject}")]).arg(program);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        if !with("true".as_ref()).status().is_ok_and(|status| status.success()) {
            println!("skipped: no strace here that injects {inject}");
            return None;
        }
        let mut command = with(&binary("socks5d"));
        command.args(["-l", "127.0.0.1", "-p", "0", "-P", "0"]).args(arguments);
        command.env("PROXY_CTRL_SUPERUSER", "admin:1234");
        command.env_remove("RUST_LOG").stderr(Stdio::piped());
        let mut child = command.spawn().expect("it has been tried");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        let unknown = ([0; 4], 0).into();
        let mut server = Injected { child, socks: unknown, metp: unknown, lines };
        server.socks = server.address("socks");
        server.metp = server.address("metp");
        Some(server)
    }

    /// Where a service listens.
    fn address(&self, service: &str) -> SocketAddr {
        let line = self.wait_for(&format!("service={service} address="));
        let (_, address) = line.split_once("address=").expect("it was found by that");
        address.parse().expect("an address")
    }

    /// An administrator's session.
    pub fn admin(&self) -> Metp {
        Metp::new(connect(self.metp)).logged_in("admin", "1234")
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
