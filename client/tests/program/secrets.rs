//! Passwords that the client was given leave its environment and its command line before it says a word to the
//! server: both are in /proc, the latter for everybody.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc;

use support::PATIENCE;
use support::client::command;
use support::origin::Origin;

/// A call to a server that never answers, once it has said HELLO.
struct Call {
    child: Child,
    _server: Origin,
}

impl Call {
    fn begin(environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let (sender, said) = mpsc::channel();
        let server = Origin::new(move |stream| {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            let _ = stream.read_line(&mut line);
            let _ = sender.send(line);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let port = server.address.port().to_string();
        let mut command = command(["-p", &port]);
        command.args(arguments).envs(environment.iter().copied());
        let child = command.spawn().expect("it starts");
        assert_eq!(said.recv_timeout(PATIENCE).as_deref(), Ok("HELLO METP/1.0\n"));
        Call { child, _server: server }
    }

    fn file(&self, name: &str) -> String {
        let bytes = std::fs::read(format!("/proc/{}/{name}", self.child.id())).expect("it runs");
        bytes.escape_ascii().to_string()
    }

    /// The arguments behind the port.
    fn line(&self) -> String {
        let line = self.file("cmdline");
        let arguments: Vec<&str> = line.split("\\x00").skip(3).collect();
        arguments.join(" ").trim_end().to_owned()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn metp_auth_is_taken_out_of_the_environment() {
    let call = Call::begin(&[("METP_AUTH", "root:swordfish"), ("METP_KEPT", "yes")], &["-l"]);
    let environment = call.file("environ");
    assert!(!environment.contains("swordfish") && !environment.contains("root:"), "{environment}");
    assert!(environment.contains("METP_KEPT=yes"), "{environment}");
    // Also where it is not used.
    let call = Call::begin(&[("METP_AUTH", "root:swordfish")], &["-u", "admin:trout", "-l"]);
    assert!(!call.file("environ").contains("swordfish"));
    assert_eq!(call.line(), "-u admin:***** -l");
}

#[test]
fn passwords_are_erased_from_the_command_line() {
    for (arguments, shows) in [
        (&["-u", "admin:sword:fish", "-m"][..], "-u admin:********** -m"),
        (&["-uadmin:swordfish", "-m"], "-uadmin:********* -m"),
        (&["-mu", "admin:swordfish"], "-mu admin:*********"),
        (&["--user=admin:swordfish", "-w", "2"], "--user=admin:********* -w 2"),
        (
            &["-u", "a:swordfish", "-a", "bob", "swordfish", "-l"],
            "-u a:********* -a bob ********* -l",
        ),
        (&["-u", "a:swordfish", "--au", "bob", "swordfish"], "-u a:********* --au bob *********"),
        (
            &["-u", "a:swordfish", "-l", "--", "ADD-USER", "bob", "swordfish"],
            "-u a:********* -l -- ******** *** *********",
        ),
        (
            &["-u", "a:swordfish", "--", "CHANGE-PASSWORD bob swordfish"],
            "-u a:********* -- *****************************",
        ),
        (
            &["-u", "a:swordfish", "--", "GET_LOGS", "LAST", "5"],
            "-u a:********* -- GET_LOGS LAST 5",
        ),
        (&["-u", "a:swordfish", "-r", "bob", "admin"], "-u a:********* -r bob admin"),
    ] {
        let call = Call::begin(&[], arguments);
        assert_eq!(call.line(), shows, "{arguments:?}");
    }
}

/// Nothing that is in memory gets into a core, and nothing that is started gets new privileges.
#[test]
fn it_gives_up_cores_and_privileges() {
    let call = Call::begin(&[], &["-u", "admin:swordfish", "-l"]);
    let limits = call.file("limits");
    let core = limits.split("\\n").find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(words, ["Max", "core", "file", "size", "0", "0", "bytes"]);
    assert!(call.file("status").contains("NoNewPrivs:\\t1\\n"));
}
