//! The password question: on the terminal, without echo, and with the terminal restored.

use std::process::Child;

use support::client::{Outcome, command, outcome, run};
use support::eventually;
use support::proxy::{Proxy, send_signal};
use support::terminal::{Terminal, without_terminal};

/// The call whose password is being asked for.
struct Asking {
    terminal: Terminal,
    flags: libc::tcflag_t,
    client: Child,
}

impl Asking {
    fn start(proxy: &Proxy, user: &str) -> Self {
        let mut terminal = Terminal::default();
        let flags = terminal.local_flags();
        let port = proxy.metp_address().port().to_string();
        let mut command = command(["-p", &port, "-u", user, "-l"]);
        terminal.control(&mut command);
        let client = command.spawn().expect("it starts");
        eventually("it asks", || terminal.screen().ends_with(": "));
        terminal.wait_until_hidden();
        Asking { terminal, flags, client }
    }

    /// Presses keys, then waits for the end of the call. Returns what was on the screen.
    fn answer(mut self, keys: &[u8]) -> (Outcome, String) {
        self.terminal.type_keys(keys);
        let outcome = outcome(self.client);
        assert_eq!(self.terminal.local_flags(), self.flags, "the terminal is restored");
        (outcome, self.terminal.screen())
    }
}

#[test]
fn the_password_is_asked_for_and_not_shown() {
    let proxy = Proxy::start();
    let (outcome, screen) = Asking::start(&proxy, "admin").answer(b"1234\r");
    let stderr = format!("Connecting to {} with user 'admin'\n", proxy.metp_address());
    let stdout = "admin admin\nConnection closed\n".to_owned();
    assert_eq!(outcome, Outcome { code: 0, stdout, stderr });
    assert_eq!(screen, "Password for admin: \r\n");
}

#[test]
fn keys_can_be_erased_and_passwords_hold_blanks() {
    let proxy = Proxy::with(&["-u", "alice:two words:"]);
    proxy.admin().say("SET-ROLE alice admin\n").hears("200 OK\n");
    let (outcome, screen) = Asking::start(&proxy, "alice").answer(b"wrong\x15two x\x7fwords:\n");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(screen, "Password for alice: \r\n");
}

#[test]
fn a_wrong_password_is_77() {
    let proxy = Proxy::start();
    let (outcome, screen) = Asking::start(&proxy, "admin").answer(b"secret\r");
    assert_eq!(outcome.code, 77, "{outcome:?}");
    assert!(!format!("{screen}{outcome:?}").contains("secret"));
}

#[test]
fn what_is_no_password_is_64_and_ctrl_c_ends_it_as_its_signal_does() {
    let proxy = Proxy::start();
    for (keys, code, stderr) in [
        (&b"12\x04"[..], 64, "client: no password was given\n"),
        (b"\x04", 64, "client: no password was given\n"),
        (b"\r", 64, "client: the password is empty\n"),
        (b"12\x1b\r", 64, "client: password for admin: the password holds a control character\n"),
        (b"12\x03", -1, ""),
    ] {
        let asking = Asking::start(&proxy, "admin");
        let (outcome, screen) = asking.answer(keys);
        let expected = Outcome { code, stdout: String::new(), stderr: stderr.to_owned() };
        assert_eq!(outcome, expected, "nothing was sent");
        assert!(screen.starts_with("Password for admin: \r\n"), "{screen:?}");
    }
}

#[test]
fn without_a_terminal_it_is_64() {
    let proxy = Proxy::start();
    let port = proxy.metp_address().port().to_string();
    let outcome = run(without_terminal(&mut command(["-p", &port, "-u", "admin", "-l"])));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (64, ""));
    assert!(outcome.stderr.starts_with("client: cannot ask for the password: "), "{outcome:?}");
    let mut command = command(["-p", &port, "-l"]);
    assert_eq!(run(without_terminal(command.env("METP_AUTH", "admin"))).code, 64);
}

/// A signal ends the program, and leaves the terminal as it was.
#[test]
fn a_signal_during_the_question_restores_the_terminal() {
    let proxy = Proxy::start();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let asking = Asking::start(&proxy, "admin");
        send_signal(&asking.client, signal);
        let (outcome, _) = asking.answer(b"");
        assert_eq!(outcome.code, -1, "it died of the signal: {outcome:?}");
    }
}
