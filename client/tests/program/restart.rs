//! Restarts of the server under `-f`, and `-w` where it shows no screen.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdout};

use support::client::{command, outcome};
use support::eventually;
use support::exchange;
use support::origin::{Origin, closed_port};
use support::place::Place;
use support::proxy::{Proxy, send_signal};
use support::socks::{connect_request, half_close};

/// A call that shows something as it happens.
struct Live {
    client: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Live {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let server = place.address().to_string();
        let mut call = command(["-H", &server, "-u", "admin:1234"]);
        let mut client = call.args(arguments).spawn().expect("it starts");
        let stdout = BufReader::new(client.stdout.take().expect("piped"));
        let stderr = BufReader::new(client.stderr.take().expect("piped"));
        Live { client, stdout, stderr }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("text");
        line
    }

    /// Reads stderr up to a line that has this in it.
    fn says(&mut self, what: &str) {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            let count = self.stderr.read_line(&mut line).expect("text");
            assert!(count > 0, "never said: {what}");
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

fn ends(mut proxy: Proxy, signal: i32) {
    proxy.signal(signal);
    proxy.wait();
}

fn subscribed(proxy: &Proxy) {
    let mut admin = proxy.admin();
    eventually("it has subscribed", || admin.info("subscribers") == "1");
}

/// However the server ends: with a word, or without one.
#[test]
fn following_goes_on_after_a_restart() {
    let (_guard, closed) = closed_port();
    for (signal, words) in [
        (libc::SIGTERM, "the server is closing down; connecting again"),
        (libc::SIGKILL, "; connecting again"),
    ] {
        let first = Proxy::start();
        let place = Place::new(&first);
        let mut live = Live::start(&place, &["-f"]);
        subscribed(&first);
        first.client().say(&connect_request(closed)).refused(5);
        assert!(live.line().contains(&closed.to_string()));
        place.is_now(None);
        ends(first, signal);
        live.says(words);
        let second = Proxy::start();
        place.is_now(Some(&second));
        live.says("Connected again");
        subscribed(&second);
        let echo = Origin::echo();
        let mut tunnel = second.tunnel(echo.address);
        exchange(&mut tunnel, 100);
        half_close(&tunnel);
        let line = live.line();
        assert!(line.contains(&format!(" {} succeeded 100 100 ", echo.address)), "{line}");
    }
}

/// A quiet call names what fails, and not that it is over.
#[test]
fn a_quiet_call_does_not_mention_that_it_is_connected_again() {
    let first = Proxy::start();
    let place = Place::new(&first);
    let mut live = Live::start(&place, &["-q", "-f"]);
    subscribed(&first);
    place.is_now(None);
    ends(first, libc::SIGTERM);
    live.says("; connecting again");
    let second = Proxy::start();
    place.is_now(Some(&second));
    // A line of the second session comes after all that is said of its beginning.
    subscribed(&second);
    let (_guard, closed) = closed_port();
    second.client().say(&connect_request(closed)).refused(5);
    assert!(live.line().contains(&closed.to_string()));
    send_signal(&live.client, libc::SIGKILL);
    let mut rest = String::new();
    live.stderr.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "");
}

#[test]
fn lines_and_objects_go_on_after_a_restart() {
    for arguments in [&["-w", "0.1"][..], &["-w", "0.1", "--json"]] {
        let first = Proxy::start();
        let place = Place::new(&first);
        let mut live = Live::start(&place, arguments);
        assert!(!live.line().is_empty());
        place.is_now(None);
        ends(first, libc::SIGKILL);
        live.says("; connecting again");
        let second = Proxy::start();
        place.is_now(Some(&second));
        live.says("Connected again");
        let mut tunnel = second.tunnel(Origin::echo().address);
        exchange(&mut tunnel, 1_000_000);
        eventually("it counts again", || {
            let line = live.line();
            assert!(!line.is_empty(), "it goes on");
            // No rate is below zero, or the whole of what the server had counted before.
            line.split(|c: char| !c.is_ascii_digit()).any(|word| word.len() >= 5)
        });
    }
}

/// Nobody is waited for who would be there and does not let the client in any more.
#[test]
fn a_login_that_does_not_work_any_more_is_the_end() {
    let first = Proxy::start();
    let place = Place::new(&first);
    let live = Live::start(&place, &["-f"]);
    subscribed(&first);
    let second = Proxy::with(&["-u", "other:x"]);
    let mut admin = second.admin();
    assert_eq!(admin.command("CHANGE-PASSWORD admin other"), "200 OK");
    place.is_now(Some(&second));
    ends(first, libc::SIGKILL);
    assert_eq!(exit_code(live), 77);
}

fn exit_code(mut live: Live) -> i32 {
    let mut code = None;
    eventually("it ends", || {
        code = live.client.try_wait().expect("a child can be asked");
        code.is_some()
    });
    code.and_then(|status| status.code()).expect("no signal")
}

#[test]
fn waiting_for_a_restart_has_the_limit_that_was_asked_for() {
    for (wait, option) in [("0", "-f"), ("0.2", "-f"), ("0", "-w"), ("0.2", "-w")] {
        let first = Proxy::start();
        let place = Place::new(&first);
        let mut live = Live::start(&place, &["--wait", wait, option, "--json"]);
        match option {
            "-f" => subscribed(&first),
            _ => assert!(!live.line().is_empty()),
        }
        place.is_now(None);
        ends(first, libc::SIGKILL);
        assert_eq!(exit_code(live), 70, "{wait} {option}");
    }
}

/// A server that takes every session and ends it at once is not asked without a pause.
#[test]
fn pauses_grow_while_sessions_end_at_once() {
    let (sender, sessions) = std::sync::mpsc::channel();
    let server = Origin::new(move |stream| {
        let mut stream = BufReader::new(stream);
        for reply in ["200 Welcome\n", "200 OK\n", "200 OK\nverbs=SUBSCRIBE\n.\n", "200 OK\n"] {
            let mut line = String::new();
            if !stream.read_line(&mut line).is_ok_and(|count| count > 0)
                || stream.get_mut().write_all(reply.as_bytes()).is_err()
            {
                return;
            }
        }
        let _ = sender.send(std::time::Instant::now());
    });
    let address = server.address.to_string();
    let follower = command(["-H", &address, "-u", "admin:1234", "-f"]).spawn().expect("it starts");
    let began: Vec<_> = sessions.iter().take(5).collect();
    let pauses: Vec<_> = began.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, least) in pauses.iter().zip([100, 200, 400, 800]) {
        assert!(pause.as_millis() + 5 >= least, "{pauses:?}");
    }
    send_signal(&follower, libc::SIGTERM);
    let outcome = outcome(follower);
    assert!(outcome.stderr.matches("Connected again").count() >= 3, "{outcome:?}");
}
