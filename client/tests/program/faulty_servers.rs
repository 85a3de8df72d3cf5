//! Servers that are not what they should be: scripted ones on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::client::{Outcome, client};
use support::origin::{Origin, deaf};

const LOGIN: [&[u8]; 2] = [b"200 Welcome to METP/1.0\n", b"200 OK\n"];

/// A server that reads a line before each of its replies, and closes after the last.
fn scripted(replies: &[&[u8]]) -> Origin {
    let replies: Vec<Vec<u8>> = replies.iter().map(|reply| reply.to_vec()).collect();
    Origin::new(move |stream| {
        let mut stream = BufReader::new(stream);
        for reply in &replies {
            let mut line = Vec::new();
            // The client may be gone, which ends the script.
            let read = stream.read_until(b'\n', &mut line).unwrap_or(0);
            if read == 0 || stream.get_mut().write_all(reply).is_err() {
                return;
            }
        }
        finish(stream.into_inner());
    })
}

/// Closes without a reset.
fn finish(mut stream: TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// A call against a script: the exit code, stdout, and stderr without its first line.
fn call(replies: &[&[u8]], arguments: &[&str]) -> (i32, String, String) {
    let server = scripted(replies);
    let Outcome { code, stdout, stderr } = client(server.address, arguments);
    let connecting = format!("Connecting to {} with user 'admin'\n", server.address);
    let rest = stderr.strip_prefix(&connecting).expect("the first line").to_owned();
    (code, stdout, rest)
}

/// The login succeeds; then come these replies.
fn after_login(replies: &[&[u8]], arguments: &[&str]) -> (i32, String, String) {
    call(&[&LOGIN, replies].concat(), arguments)
}

fn broken(stderr: &str) -> (i32, String, String) {
    (70, String::new(), format!("{stderr}\n"))
}

#[test]
fn no_metp_server_is_70() {
    for reply in [
        &b"SSH-2.0-OpenSSH_9.9\r\n"[..],
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\n",
        b"20\n",
        b"2000 OK\n",
        b"\0\xff\n",
    ] {
        let (code, stdout, stderr) = call(&[reply], &["-m"]);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (70, "", 1), "{stderr}");
        let printable = stderr.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte));
        assert!(printable && stderr.starts_with("No METP"), "{stderr:?}");
    }
}

#[test]
fn a_server_error_is_70() {
    let (code, stdout, stderr) = after_login(&[b"500 Internal Error\n"], &["-m"]);
    assert_eq!((code, stdout.as_str()), (70, ""));
    assert_eq!(stderr, "Server error: 500 Internal Error\n");
    assert_eq!(call(&[LOGIN[0], b"500 no\n"], &["-m"]), broken("Server error: 500 no"));
    assert_eq!(call(&[b"500 no\n"], &["-m"]).0, 70);
}

#[test]
fn closing_early_is_70_wherever_it_happens() {
    let closed = "The server closed the connection";
    let accepting = Origin::new(drop);
    let outcome = client(accepting.address, ["-m"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (70, ""));
    assert_eq!(call(&[b"200 Welc"], &["-m"]), broken(closed));
    assert_eq!(call(&LOGIN[..1], &["-m"]), broken(closed));
    assert_eq!(after_login(&[], &["-m"]), broken(closed));
    assert_eq!(after_login(&[b"200 OK"], &["-m"]), broken(closed));
    assert_eq!(after_login(&[b"200 OK\n"], &["-l"]), broken(closed));
    assert_eq!(after_login(&[b"200 OK\n"], &["-m"]), broken(closed));
    let (code, stdout, stderr) = after_login(&[b"200 OK\nadmin admin\nbob us"], &["-l"]);
    assert_eq!((code, stderr), (70, format!("{closed}\n")));
    assert_eq!(stdout, "admin admin\n", "half a line is not shown");
    // After a command has been done, but before the session's end.
    let (code, stdout, _) = after_login(&[b"200 OK\n"], &["-d", "bob"]);
    assert_eq!((code, stdout.as_str()), (70, "Operation successful\n"));
}

#[test]
fn metrics_that_lack_a_figure_are_70() {
    for body in [
        &b"200 OK\n.\n"[..],
        b"200 OK\nHISTORICAL_CONNECTIONS: 1\nCURRENT_CONNECTIONS: 2\n.\n",
        b"200 OK\nHISTORICAL_CONNECTIONS: 1\nCURRENT_CONNECTIONS: x\nBYTES_TRANSFERRED: 3\n.\n",
    ] {
        assert_eq!(after_login(&[body], &["-m"]), broken("The server's metrics are incomplete"));
    }
}

#[test]
fn unknown_figures_and_crlf_are_tolerated() {
    let body = b"200 fine\r\nNEW: 7\r\nBYTES_TRANSFERRED:3\r\nHISTORICAL_CONNECTIONS: 1\r\nCURRENT_CONNECTIONS: 2\r\n.\r\n";
    let (code, stdout, stderr) = after_login(&[body, b"200 bye\r\n"], &["-m"]);
    let shown = "Historical Connections: 1\nCurrent Connections:    2\nBytes Transferred:      3\nConnection closed\n";
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, shown, ""));
}

#[test]
fn only_the_three_digits_of_a_status_line_are_read() {
    for refusal in ["403", "403 nope", "403-x"] {
        let reply = format!("{refusal}\n");
        let (code, _, stderr) = after_login(&[reply.as_bytes(), b"200 bye\n"], &["-l"]);
        assert_eq!((code, stderr.as_str()), (77, "USERS: Not authorized to execute command\n"));
    }
    let (code, _, stderr) = after_login(&[b"401\n"], &["-l"]);
    assert_eq!((code, stderr.as_str()), (77, "Authentication failed\n"));
    let (code, stdout, _) = after_login(&[b"200\n", b"200\n"], &["-d", "x"]);
    assert_eq!((code, stdout.as_str()), (0, "Operation successful\nConnection closed\n"));
}

/// What the server says could hold sequences that a terminal obeys.
#[test]
fn whatever_a_terminal_would_obey_is_escaped() {
    let evil = b"200 OK\n\x1b]0;owned\x07 user\n\x9b2J\x08\x7f\rx \xe2\x80\xae user\n.\n";
    let (code, stdout, _) = after_login(&[evil, b"200 bye\n"], &["-l"]);
    let shown = "\\x1b]0;owned\\x07 user\n\\x9b2J\\x08\\x7f\\x0dx \\xe2\\x80\\xae user\nConnection closed\n";
    assert_eq!((code, stdout.as_str()), (0, shown));
    let (code, _, stderr) =
        after_login(&[b"400 Bad \x1b[31mRequest\r\x07\n", b"200 bye\n"], &["-d", "x"]);
    assert_eq!((code, stderr.as_str()), (65, "DELETE-USER x: Bad \\x1b[31mRequest\\x0d\\x07\n"));
    let (_, _, stderr) = call(&[b"\x1b[2J\x1b[H\n"], &["-m"]);
    assert_eq!(stderr, "No METP reply: \"\\x1b[2J\\x1b[H\"\n");
    let (_, _, stderr) = after_login(&[b"500 \x1bc\n"], &["-m"]);
    assert_eq!(stderr, "Server error: 500 \\x1bc\n");
}

#[test]
fn an_endless_line_is_70() {
    let endless = Origin::new(|mut stream| while stream.write_all(&[b'2'; 65536]).is_ok() {});
    let outcome = client(endless.address, ["-m"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (70, ""));
    assert!(outcome.stderr.ends_with("The server's line is too long\n"), "{}", outcome.stderr);
}

/// Metrics are three lines; a server that goes on for ever fills neither memory nor time.
#[test]
fn endless_metrics_are_70() {
    let endless = Origin::new(|mut stream| {
        let _ = stream.write_all(b"200 Welcome\n200 OK\n200 OK\n");
        while stream.write_all(&b"UNKNOWN: 1\n".repeat(4096)).is_ok() {}
    });
    let outcome = client(endless.address, ["-m"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (70, ""));
    assert!(outcome.stderr.ends_with("The server's metrics are too long\n"), "{}", outcome.stderr);
}

/// How long a call takes against a server that does not go on, and its exit code.
fn hanging(server: std::net::SocketAddr) -> (Duration, i32, String) {
    let began = Instant::now();
    let Outcome { code, stderr, .. } = client(server, ["-m"]);
    (began.elapsed(), code, stderr)
}

#[test]
fn what_hangs_ends_after_10_seconds() {
    let silent = Origin::new(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let stalling = Origin::new(|mut stream| {
        let _ = stream.write_all(b"200 Welcome\n200 OK\n200 OK\nHISTORICAL_CONNECTIONS: 1\nCURR");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let dripping = Origin::new(|mut stream| {
        while stream.write_all(b"2").is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let (_guard, deaf) = deaf();
    let cases = [(silent.address, 70), (stalling.address, 70), (dripping.address, 70), (deaf, 69)];
    let calls = cases.map(|(server, code)| (std::thread::spawn(move || hanging(server)), code));
    for (call, code) in calls {
        let (time, ended, stderr) = call.join().expect("no panic");
        assert_eq!(ended, code, "{stderr}");
        assert_eq!(stderr.lines().count(), 2, "{stderr}");
        // No call is waited for longer than 20 s.
        assert!(time >= Duration::from_millis(9_900), "{time:?}: {stderr}");
    }
}

/// A server of METP/1.0: it answers 400 to CAPA, once, and does the rest.
#[test]
fn what_a_server_of_metp_1_0_lacks_is_named_and_the_rest_is_done() {
    let bad: &[u8] = b"400 Bad Request [SYNTAX] unknown verb or wrong arguments\n";
    let users: &[u8] = b"200 OK\nadmin admin\n.\n";
    let (code, stdout, stderr) = after_login(
        &[bad, users, b"200 bye\n"],
        &["--info", "-l", "--metrics-all", "--kill", "1.2"],
    );
    assert_eq!((code, stdout.as_str()), (69, "admin admin\nConnection closed\n"));
    assert_eq!(
        stderr,
        "--info: this server of METP/1.0 does not have it\n\
         --metrics-all: this server of METP/1.0 does not have it\n\
         --kill: this server of METP/1.0 does not have it\n"
    );
    let (code, _, stderr) = after_login(&[bad], &["-f"]);
    assert_eq!((code, stderr.as_str()), (69, "-f: this server of METP/1.0 does not have it\n"));
}

/// METP/1.0 clients say HELLO, AUTH, the command and QUIT: so does this one for their commands, and no more.
#[test]
fn nothing_new_is_said_for_an_old_command() {
    let (sender, said) = std::sync::mpsc::channel();
    let server = Origin::new(move |stream| {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|count| count > 0) {
            let body = if line.starts_with("USERS") { "admin admin\n.\n" } else { "" };
            let _ = stream.get_mut().write_all(format!("200 OK\n{body}").as_bytes());
            let _ = sender.send(std::mem::take(&mut line));
        }
    });
    assert_eq!(client(server.address, ["-l"]).code, 0);
    let said: Vec<String> = said.iter().take(4).collect();
    assert_eq!(said, ["HELLO METP/1.0\n", "AUTH admin 1234\n", "USERS\n", "QUIT\n"]);
}

/// Greeting and login come in one segment, so that no server sees the one without the other.
#[test]
fn greeting_and_login_come_together() {
    let (sender, said) = std::sync::mpsc::channel();
    let server = Origin::new(move |mut stream| {
        let mut bytes = [0; 100];
        let count = stream.read(&mut bytes).unwrap_or(0);
        let _ = sender.send(bytes[..count].to_vec());
        let _ = stream.write_all(&LOGIN.concat());
        let _ = stream.read(&mut bytes);
        let _ = stream.write_all(b"401 Unauthorized\n");
        finish(stream);
    });
    let Outcome { code, stdout, .. } = client(server.address, ["-m"]);
    assert_eq!((code, stdout.as_str()), (77, ""));
    assert_eq!(said.recv().expect("it came"), b"HELLO METP/1.0\nAUTH admin 1234\n");
}

/// What the grammar of METP/1.1 does not allow ends the call with one line, never with a panic or a wrong figure.
#[test]
fn answers_that_cannot_be_right_are_70() {
    let capabilities: &[u8] = b"200 OK\nverbs=INFO,CONNECTIONS,CONFIG,KILL\n.\n";
    let escapes = [&b"200 OK\nid="[..], &[0x1b; 20_000], b" user=a\n.\n"].concat();
    let endless = [&b"200 OK\n"[..], &b"x=1\n".repeat(10_000)].concat();
    let incomplete = "The server's answer is incomplete";
    for (reply, option, says) in [
        (&escapes[..], &["--connections"][..], "The server's line is too long"),
        (&endless[..], &["--info"], "The server's metrics are too long"),
        (b"200 OK\n.\n", &["--info"], incomplete),
        (b"200 OK\n", &["--kill", "1.2"], incomplete),
        (b"200 OK killed=-1\n", &["--kill", "1.2"], incomplete),
    ] {
        for json in [&[][..], &["--json"]] {
            let (code, _, stderr) = after_login(&[capabilities, reply], &[json, option].concat());
            assert_eq!((code, stderr), (70, format!("{says}\n")), "{option:?} {json:?}");
        }
    }
    let (code, _, stderr) = after_login(&[&endless], &["--info"]);
    assert_eq!((code, stderr.as_str()), (70, "The server's metrics are too long\n"), "of CAPA");
    let wrong: &[u8] = b"200 OK\nHISTORICAL_CONNECTIONS: -5\n.\n";
    let (code, stdout, stderr) = after_login(&[wrong], &["--json", "-m"]);
    assert_eq!((code, stderr.as_str()), (70, "The server's metrics are incomplete\n"));
    assert!(stdout.contains("\"error\""), "{stdout}");
}

/// Events that nobody has asked for do not keep a call going.
#[test]
fn events_in_place_of_an_answer_are_waited_for_no_longer_than_an_answer() {
    let server = Origin::new(|mut stream| {
        let login = stream.write_all(b"200 Welcome to METP/1.0\n200 OK\n");
        while login.is_ok() && stream.write_all(b"650 logs user=a\n").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let Outcome { code, stderr, .. } = client(server.address, ["-l"]);
    assert_eq!(code, 70, "{stderr}");
    assert!(stderr.ends_with("The server did not answer within 10 s\n"), "{stderr}");
}

/// `--wait` holds where the connection is accepted and nothing is said, too; and there is no second attempt if
/// the first has taken all of the time.
#[test]
fn a_server_that_says_nothing_is_waited_for_as_long_as_was_asked() {
    let silent = Origin::new(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let greets = Origin::new(|mut stream| {
        // The client may be gone.
        let _ = stream.write_all(LOGIN[0]);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for server in [silent, greets] {
        let Outcome { code, stderr, .. } = client(server.address, ["--wait", "1", "-l"]);
        let connecting = format!("Connecting to {} with user 'admin'\n", server.address);
        assert_eq!((code, stderr), (70, connecting + "The server did not answer within 1 s\n"));
    }
}

/// METP §2.1: a server that closes down says so in every state.
#[test]
fn a_server_that_closes_down_is_69_from_the_first_word_on() {
    for (reply, says) in
        [(&b"421 Closing\n"[..], "Closing\n"), (b"421 [X]\n", "[X]\n"), (b"421\n", "421\n")]
    {
        let (code, _, stderr) = call(&[reply], &["-l"]);
        assert_eq!((code, stderr.as_str()), (69, says));
    }
    let closing: &[u8] = b"421 Closing [SHUTDOWN] the server is closing down\n";
    for replies in [&[closing][..], &[LOGIN[0], closing], &[LOGIN[0], LOGIN[1], closing]] {
        let (code, _, stderr) = call(replies, &["-l"]);
        assert_eq!((code, stderr.as_str()), (69, "the server is closing down\n"));
    }
}

/// §3.2: a dot that was doubled is taken off; a status line without words is told by its number.
#[test]
fn doubled_dots_and_bare_codes() {
    let users: &[u8] = b"200 OK\n..x user\n.y admin\n.\n";
    assert_eq!(
        after_login(&[users, b"200\n"], &["-l"]).1,
        ".x user\n.y admin\nConnection closed\n"
    );
    for reply in [&b"200\n"[..], b"200 \n", b"200\r\n"] {
        let (code, stdout, _) = after_login(&[reply, b"200\n"], &["--", "PING"]);
        assert_eq!((code, stdout.as_str()), (0, "200\nConnection closed\n"));
    }
    let body: &[u8] = b"200\nadmin admin\n.\n";
    let (_, stdout, _) = after_login(&[body, b"200\n"], &["--", "USERS"]);
    assert_eq!(stdout, "200\nadmin admin\nConnection closed\n");
    let (code, _, stderr) = after_login(&[b"400\n", b"200\n"], &["-l"]);
    assert_eq!((code, stderr.as_str()), (65, "USERS: 400\n"));
}

/// `-f`: what was missed is told, and topics of later versions are passed over.
#[test]
fn lost_requests_are_told_and_other_topics_are_not_shown() {
    let capabilities: &[u8] = b"200 OK\nverbs=SUBSCRIBE\n.\n";
    let events: &[u8] = b"200 OK\n650 future a=b\n650 lost count=17\n650 logs user=a up=1\n\
        421 Closing [SLOW] events were not read\n";
    let (code, stdout, stderr) = after_login(&[capabilities, events], &["-f", "--wait", "0"]);
    assert_eq!((code, stdout.as_str()), (69, "[-] a - - - 1 0 - -\n"));
    assert_eq!(stderr, "17 requests were missed\nevents were not read\n");
    let (_, stdout, _) = after_login(&[capabilities, events], &["-f", "--json", "--wait", "0"]);
    assert_eq!(stdout, "{\"lost\":17}\n{\"user\":\"a\",\"up\":1}\n");
}

/// The first failure decides, also when something is shown live behind it.
#[test]
fn a_command_that_failed_is_not_forgotten() {
    let refused: &[u8] = b"400 Bad Request [NOUSER] no such user\n";
    let server = [LOGIN[0], LOGIN[1], refused, b"200 Goodbye\n"];
    let (code, _, stderr) = call(&server, &["-d", "nobody", "-f", "--wait", "0"]);
    assert_eq!(code, 65, "{stderr}");
    assert!(stderr.starts_with("DELETE-USER nobody: no such user\n"), "{stderr}");
}
