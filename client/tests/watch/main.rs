//! The live screen of `--watch` in a terminal of its own, against a live proxy.

#![cfg(test)]

mod dialogue;
mod jobs;
mod lines;
mod places;
mod plain;
mod restart;
mod sizes;

use std::net::TcpStream;
use std::num::NonZero;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

use support::client::command;
use support::metp::value;
use support::origin::Origin;
use support::proxy::{Proxy, send_signal, wait_for_exit};
use support::socks::Client;
use support::terminal::Terminal;
use support::{PATIENCE, eventually, exchange};

const BLOCKS: &str = "▁▂▃▄▅▆▇█";

/// A screen that is being watched.
struct Watch {
    terminal: Terminal,
    flags: libc::tcflag_t,
    emulator: vt100::Parser,
    seen: usize,
    client: Child,
}

impl Watch {
    fn start(proxy: &Proxy, columns: u16, rows: u16) -> Self {
        Watch::with(proxy, "admin:1234", &[("TERM", "xterm-256color")], columns, rows)
    }

    fn with(
        proxy: &Proxy,
        user: &str,
        environment: &[(&str, &str)],
        columns: u16,
        rows: u16,
    ) -> Self {
        let port = proxy.metp_address().port().to_string();
        let mut command = command(["-p", &port, "-u", user, "-w", "0.2", "--wait", "0"]);
        for variable in ["LC_CTYPE", "LANG", "NO_COLOR", "TZ"] {
            command.env_remove(variable);
        }
        command.env("LC_ALL", "C.UTF-8").envs(environment.iter().copied());
        Watch::run(command, columns, rows)
    }

    /// Has a program run in a terminal.
    fn run(mut command: Command, columns: u16, rows: u16) -> Self {
        let terminal = Terminal::default();
        terminal.resize(columns, rows);
        let flags = terminal.local_flags();
        terminal.attach(&mut command);
        let client = command.spawn().expect("it starts");
        let emulator = vt100::Parser::new(size(rows), size(columns), 0);
        Watch { terminal, flags, emulator, seen: 0, client }
    }

    /// The screen as it is now.
    fn screen(&mut self) -> &vt100::Screen {
        let shown = self.terminal.shown();
        self.emulator.process(&shown[self.seen..]);
        self.seen = shown.len();
        self.emulator.screen()
    }

    /// Some columns of some rows.
    fn part(&mut self, columns: std::ops::Range<u16>, rows: std::ops::Range<usize>) -> String {
        let lines = self.screen().rows(columns.start, columns.end - columns.start);
        lines.skip(rows.start).take(rows.len()).map(|line| line + "\n").collect()
    }

    /// Waits until all of these can be read.
    fn shows(&mut self, parts: &[&str]) {
        for part in parts {
            eventually(part, || self.screen().contents().contains(part));
        }
    }

    fn press(&mut self, keys: &str) {
        self.terminal.type_keys(keys.as_bytes());
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        self.screen();
        self.emulator.screen_mut().set_size(size(rows), size(columns));
        self.terminal.resize(columns, rows);
    }

    /// Waits for the end, which leaves the terminal as it was before. Returns exit code or signal, and what
    /// is left on the screen.
    fn ends(mut self) -> (i32, String) {
        let mut status = None;
        eventually("it ends", || {
            // What it still has to show needs room.
            self.terminal.shown();
            status = self.client.try_wait().expect("a child can be asked");
            status.is_some()
        });
        assert_eq!(self.terminal.local_flags(), self.flags, "the terminal is restored");
        assert!(!self.screen().alternate_screen(), "the alternate screen is left");
        assert!(!self.screen().hide_cursor(), "the cursor is shown");
        let code = status.and_then(|status| status.code().or(status.signal()));
        (code.expect("one or the other"), self.screen().contents())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.client.kill();
        let _ = self.client.wait();
        if std::thread::panicking() {
            eprintln!("the screen:\n{}", self.screen().contents());
        }
    }
}

fn size(count: u16) -> NonZero<u16> {
    NonZero::new(count).expect("a screen has rows and columns")
}

fn proxy() -> Proxy {
    Proxy::with(&["-u", "alice:secret", "-u", "bob:secret"])
}

/// A tunnel through which bytes have gone.
struct Tunnel {
    stream: TcpStream,
    id: String,
    destination: String,
}

impl Tunnel {
    fn open(proxy: &Proxy, user: &str, bytes: usize) -> Self {
        let echo = Origin::echo().address;
        let mut stream = Client::new(proxy.socks()).logged_in(user, "secret").connected(echo);
        exchange(&mut stream, bytes);
        let line = proxy.admin().connection_from(&stream).expect("it is listed");
        Tunnel { stream, id: value(&line, "id").to_owned(), destination: echo.to_string() }
    }

    fn source(&self) -> String {
        self.stream.local_addr().expect("a socket").to_string()
    }
}

#[test]
fn everything_is_on_the_screen() {
    for (columns, rows) in [(80, 24), (200, 50)] {
        let proxy = proxy();
        let mut tunnels = [("alice", 300_000), ("bob", 70_000)]
            .map(|(user, bytes)| Tunnel::open(&proxy, user, bytes));
        let mut watch = Watch::start(&proxy, columns, rows);
        let place = format!("{} as admin   running ", proxy.metp_address());
        watch.shows(&[&place, "2 of ", "every 0.2 s", "q quit   p pause   k cut a connection"]);
        watch.shows(&[
            "UP 0 B/s",
            "DOWN 0 B/s",
            "CONNECTIONS 2",
            "peak 2",
            "1 KiB┤",
            "5┤",
            "0└",
            "now",
        ]);
        // What does not move is shown all the same.
        watch.shows(&["USERS", "DESTINATIONS", "ID ", "TOTAL", "586 KiB", "137 KiB", "ACCESS LOG"]);
        for Tunnel { id, destination, .. } in &tunnels {
            watch.shows(&[&format!("\n{id} "), destination]);
        }
        eventually("the fastest user comes first", || {
            exchange(&mut tunnels[1].stream, 20_000);
            let text = watch.screen().contents();
            let user = text.lines().skip_while(|line| !line.starts_with("USERS")).nth(1);
            let words: Vec<&str> = user.unwrap_or_default().split_whitespace().collect();
            matches!(words[..], ["bob", "1", up, "KiB" | "MiB", down, "KiB" | "MiB", ..]
                if up.parse::<f64>().is_ok() && down.parse::<f64>().is_ok())
        });
        let third = columns / 3;
        for (plot, name) in
            ["UP ", "DOWN ", "CONNECTIONS "].iter().zip(0..).map(|(name, at)| (at, name))
        {
            let (left, right) = (plot * (third + 1), (plot + 1) * third);
            eventually("there are bars below the name", || {
                exchange(&mut tunnels[1].stream, 20_000);
                let text = watch.part(left..right, 0..16);
                text.contains(name) && text.contains(|block| BLOCKS.contains(block))
            });
        }
        let peak = watch.part(0..third, 2..3);
        assert!(peak.contains("iB/s"), "{peak}");
        // A tunnel that comes and goes is a line of the log, and no connection any more.
        let Tunnel { stream, id, destination } = Tunnel::open(&proxy, "alice", 1 << 20);
        drop(stream);
        watch.shows(&[&format!("  {destination}  2.0 MiB in ")]);
        eventually("it has left the list", || {
            !watch.screen().contents().contains(&format!("\n{id} "))
        });
    }
}

#[test]
fn the_log_tells_of_what_is_over_once() {
    let proxy = proxy();
    let open = Tunnel::open(&proxy, "alice", 1000);
    let Tunnel { stream, destination: over, id } = Tunnel::open(&proxy, "bob", 3000);
    drop(stream);
    eventually("it is over", || {
        !proxy.admin().ask("CONNECTIONS").iter().any(|line| value(line, "id") == id)
    });
    let mut watch = Watch::start(&proxy, 100, 40);
    watch.shows(&["CONNECTIONS 1", &format!("  127.0.0.1  {over}  5.9 KiB")]);
    let line = format!("  127.0.0.1  {}  ", open.destination);
    assert!(!watch.screen().contents().contains(&line), "it is open");
    drop(open.stream);
    watch.shows(&["CONNECTIONS 0", &format!("{line}2.0 KiB in "), "finished"]);
    assert_eq!(watch.screen().contents().matches(&line).count(), 1);
}

#[test]
fn it_stands_still_while_it_is_paused() {
    let proxy = proxy();
    let first = Tunnel::open(&proxy, "alice", 1000);
    let mut watch = Watch::start(&proxy, 80, 24);
    let mut other = Watch::start(&proxy, 80, 24);
    watch.shows(&["CONNECTIONS 1", "ACCESS LOG", &first.destination]);
    watch.press("p");
    watch.shows(&["PAUSED", "p go on"]);
    let before = watch.screen().contents();
    let second = Tunnel::open(&proxy, "bob", 500_000);
    drop(Tunnel::open(&proxy, "bob", 1 << 20));
    // What is told to another has been told to this one, or will soon be.
    other.shows(&["CONNECTIONS 2", &second.destination, "2.0 MiB in "]);
    assert_eq!(watch.screen().contents(), before);
    // It stands still at another size, too.
    watch.resize(100, 30);
    watch.shows(&["PAUSED", "every 0.2 s"]);
    assert!(!watch.screen().contents().contains(&second.destination));
    watch.press("p");
    watch.shows(&["CONNECTIONS 2", &second.destination, "2.0 MiB in ", "p pause"]);
    assert!(!watch.screen().contents().contains("PAUSED"));
    let peak = watch.part(0..33, 2..3);
    assert!(!peak.contains("peak 0 B/s"), "it went on gathering: {peak}");
}

#[test]
fn keys_and_signals_end_it_and_restore_the_terminal() {
    let proxy = proxy();
    for keys in ["q", "\x03", "\x04", "k17\x03", "pq"] {
        let mut watch = Watch::start(&proxy, 80, 24);
        watch.shows(&["every 0.2 s"]);
        assert!(watch.screen().alternate_screen() && watch.screen().hide_cursor());
        assert_ne!(watch.terminal.local_flags(), watch.flags);
        watch.press(keys);
        let (code, text) = watch.ends();
        assert_eq!(code, 0, "{keys:?}");
        assert!(text.trim().lines().count() <= 1, "nothing is left but the first line: {text}");
    }
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        let mut watch = Watch::start(&proxy, 80, 24);
        watch.shows(&["every 0.2 s"]);
        send_signal(&watch.client, signal);
        assert_eq!(watch.ends().0, signal);
    }
}

#[test]
fn it_ends_with_its_terminal() {
    let proxy = proxy();
    let port = proxy.metp_address().port().to_string();
    let mut terminal = Terminal::default();
    terminal.resize(80, 24);
    let mut command = command(["-p", &port, "-u", "admin:1234", "-w"]);
    command.env("TERM", "xterm");
    terminal.attach(&mut command);
    let mut client = command.spawn().expect("it starts");
    // The call keeps its own copies of the terminal's descriptors.
    drop(command);
    eventually("it is on", || terminal.screen().contains("every 1 s"));
    drop(terminal);
    let status = wait_for_exit(&mut client, PATIENCE);
    // The hang-up is told by a signal, and by the end of the keyboard; either may be first.
    assert!(status.signal() == Some(libc::SIGHUP) || status.code() == Some(74), "{status:?}");
}

#[test]
fn the_end_of_the_server_is_told() {
    let proxy = proxy();
    let mut watch = Watch::start(&proxy, 80, 24);
    watch.shows(&["every 0.2 s"]);
    proxy.signal(libc::SIGTERM);
    let (code, text) = watch.ends();
    assert_eq!(code, 69);
    assert!(text.contains("the server is closing down"), "{text}");
    let proxy = self::proxy();
    let mut watch = Watch::start(&proxy, 80, 24);
    watch.shows(&["every 0.2 s"]);
    drop(proxy);
    let (code, text) = watch.ends();
    assert_eq!(code, 70);
    assert!(text.contains("connection"), "{text}");
}

#[test]
fn a_server_that_is_closing_tells_what_time_is_left() {
    let proxy = proxy();
    let tunnel = Tunnel::open(&proxy, "alice", 1000);
    let mut watch = Watch::start(&proxy, 80, 24);
    watch.shows(&[" running "]);
    proxy.admin().command("SHUTDOWN GRACE 30");
    watch.shows(&[" closing, ", "s left   1 of "]);
    drop(tunnel);
    assert_eq!(watch.ends().0, 69);
}

#[test]
fn sessions_are_kept_alive_in_long_intervals() {
    let proxy = Proxy::with(&["--metp-idle-timeout", "2", "-u", "alice:secret"]);
    let port = proxy.metp_address().port().to_string();
    let mut command = command(["-p", &port, "-u", "admin:1234", "-w", "5"]);
    command.env("TERM", "xterm");
    let mut watch = Watch::run(command, 80, 24);
    watch.shows(&["CONNECTIONS 0", "every 5 s"]);
    let _tunnel = Tunnel::open(&proxy, "alice", 1000);
    watch.shows(&["CONNECTIONS 1"]);
}

#[test]
fn an_account_of_role_user_gets_no_screen() {
    let proxy = proxy();
    let mut watch = Watch::with(&proxy, "alice:secret", &[("TERM", "xterm")], 80, 24);
    eventually("it says so", || watch.screen().contents().contains("Not authorized"));
    assert!(!watch.terminal.screen().contains("\x1b[?1049h"), "the screen is left alone");
    assert_eq!(watch.ends().0, 77);
}

#[test]
fn colours_can_be_had_and_done_without() {
    let proxy = proxy();
    let coloured = |environment: &[(&str, &str)]| {
        let mut watch = Watch::with(&proxy, "admin:1234", environment, 80, 24);
        watch.shows(&["every 0.2 s", "ACCESS LOG"]);
        watch.press("p");
        watch.shows(&["PAUSED"]);
        watch.press("q");
        eventually("it has ended", || !watch.screen().alternate_screen());
        sets_colours(&watch.terminal.screen())
    };
    assert!(coloured(&[("TERM", "xterm")]));
    assert!(coloured(&[("TERM", "xterm"), ("NO_COLOR", "")]));
    assert!(!coloured(&[("TERM", "xterm"), ("NO_COLOR", "1")]));
}

#[test]
fn a_terminal_that_can_do_nothing_gets_lines() {
    let proxy = proxy();
    for environment in [[("TERM", "dumb")], [("TERM", "")]] {
        let mut watch = Watch::with(&proxy, "admin:1234", &environment, 80, 24);
        eventually("there are lines", || watch.terminal.screen().matches(" 0\r\n").count() > 2);
        assert!(!watch.terminal.screen().contains('\x1b'), "no sequences");
        watch.press("\x03");
        assert_eq!(watch.ends().0, libc::SIGINT);
    }
}

/// Whether one of the sequences `CSI ... m` sets a colour; 39 and 49 are the colours of the terminal.
fn sets_colours(shown: &str) -> bool {
    let sequences = shown.split("\x1b[").skip(1).filter_map(|text| {
        let end = text.find(|letter: char| letter.is_ascii_alphabetic())?;
        text[end..].starts_with('m').then(|| &text[..end])
    });
    let mut numbers = sequences.flat_map(|sequence| sequence.split(';')).map(str::parse::<u8>);
    numbers.any(|number| matches!(number, Ok(30..=38 | 40..=48 | 90..=107)))
}
