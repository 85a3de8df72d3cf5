//! `socks5d --hash-password`: a secret for the users file.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use support::proxy::wait_for_exit;
use support::socks::{DENIED, WELCOME};
use support::terminal::Terminal;
use support::{PATIENCE, binary, eventually};

use super::{UsersFile, login};

fn hash(input: &[u8], more: &[&str]) -> Output {
    let mut child = Command::new(binary("socks5d"))
        .arg("--hash-password")
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    // A wrong command line is refused before anything is read.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_hash_is_a_secret_of_the_users_file() {
    for (input, password) in [
        (&b"secret\n"[..], "secret"),
        (b"two words\r\nmore\n", "two words"),
        (b"\xc3\xa4", "\u{e4}"),
    ] {
        let output = hash(input, &[]);
        let said = String::from_utf8(output.stdout).expect("text");
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
        assert!(said.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{said}");
        let file = UsersFile::new(&format!("alice:{said}"));
        let proxy = file.proxy();
        assert_eq!(login(&proxy, "alice", password), WELCOME);
        assert_eq!(login(&proxy, "alice", "Secret"), DENIED);
    }
}

#[test]
fn what_is_no_password_is_refused() {
    let long = [b'x'; 256];
    for input in [&b""[..], b"\n", b"a\0b\n", b"a\rb\n", &long] {
        let output = hash(input, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout), (Some(64), Vec::new()));
        assert_eq!(said, "socks5d: --hash-password: passwords are 1 to 255 bytes\n");
    }
    for more in [&["-p", "0"][..], &["secret"]] {
        let output = hash(b"secret\n", more);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64));
        assert_eq!(said, "socks5d: --hash-password stands alone\n");
    }
}

/// The program with a terminal of its own.
fn on_a_terminal() -> (Terminal, std::process::Child) {
    let terminal = Terminal::default();
    let mut command = Command::new(binary("socks5d"));
    command.arg("--hash-password").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(terminal.line());
    terminal.control(&mut command);
    let child = command.spawn().expect("it runs");
    terminal.wait_until_hidden();
    (terminal, child)
}

/// Waits for the second question.
fn asked_again(terminal: &mut Terminal) {
    eventually("it asks again", || terminal.screen().contains("Repeat the password: "));
    terminal.wait_until_hidden();
}

fn echoes(terminal: &Terminal) -> bool {
    terminal.local_flags() & libc::ECHO != 0
}

#[test]
fn the_terminal_asks_twice_and_shows_nothing() {
    let (mut terminal, child) = on_a_terminal();
    terminal.type_keys(b"tulip\r");
    asked_again(&mut terminal);
    terminal.type_keys(b"tulip\r");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.starts_with(b"$argon2id$"));
    assert!(!terminal.screen().contains("tulip") && echoes(&terminal));
    let (mut terminal, child) = on_a_terminal();
    terminal.type_keys(b"tulip\r");
    asked_again(&mut terminal);
    terminal.type_keys(b"rose\r");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stdout), (Some(64), Vec::new()));
    assert_eq!(output.stderr, b"socks5d: --hash-password: the passwords differ\n");
    assert!(echoes(&terminal));
}

#[test]
fn the_terminal_is_restored_whatever_ends_the_question() {
    for (keys, signal, code) in
        [("tul\x03", None, 130), ("tul", Some(libc::SIGTERM), 143), ("\x04", None, 64)]
    {
        let (mut terminal, mut child) = on_a_terminal();
        terminal.type_keys(keys.as_bytes());
        if let Some(signal) = signal {
            support::proxy::send_signal(&child, signal);
        }
        assert_eq!(wait_for_exit(&mut child, PATIENCE).code(), Some(code));
        assert!(echoes(&terminal));
    }
}
