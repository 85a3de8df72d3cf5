//! Access log and diagnostics on descriptors that are not kind: files that may not grow and then may, pipes that
//! somebody else has made non-blocking, one file for both. No line is torn, none is lost without being counted,
//! and no write ends the process.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use support::origin::{Origin, closed_port};
use support::proxy::{connect, connect_from, send_signal, wait_for_exit};
use support::socks::{Client, DENIED, HELLO, connect_request, credentials, name_request};
use support::system::{is_non_blocking, limit_file_size, make_non_blocking};
use support::usage::wait_until_at_rest;
use support::{PATIENCE, binary, eventually, read_exactly};
use tempfile::TempDir;

/// The program with streams of the test's choice.
pub(super) struct Program {
    pub(super) child: Child,
    socks: SocketAddr,
}

impl Program {
    /// `said` tells what has been said on stderr so far.
    pub(super) fn start(mut command: Command, said: impl Fn() -> String) -> Self {
        let child = command.stdin(Stdio::null()).spawn().expect("it starts");
        let mut socks = None;
        eventually("it says where it listens", || {
            let text = said();
            let line = text.lines().find_map(|line| line.split_once("service=socks address="));
            socks = line.and_then(|(_, address)| address.parse().ok());
            socks.is_some() && text.contains("service=metp")
        });
        Program { child, socks: socks.expect("an address") }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(connect(self.socks))
    }

    /// So many requests that are refused, a line each.
    pub(super) fn is_asked(&self, count: usize, target: SocketAddr) {
        for _ in 0..count {
            self.client().logged_in("admin", "1234").say(&connect_request(target)).refused(5);
        }
    }

    /// So many failed logins, from a source each.
    pub(super) fn is_tried(&self, count: usize, name: &[u8]) {
        for number in 0..count {
            let [.., high, low] = number.to_be_bytes();
            let mut client = Client::new(connect_from([127, 5, high, low].into(), self.socks));
            client.say(HELLO).hears(b"\x05\x02").say(&credentials(name, b"wrong"));
            client.hears(DENIED).hears_eof();
        }
    }

    /// Ends it with SIGTERM.
    pub(super) fn stop(&mut self) {
        send_signal(&self.child, libc::SIGTERM);
        assert_eq!(wait_for_exit(&mut self.child, PATIENCE).code(), Some(0));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that a file may have, where it may not grow further.
const LIMIT: u64 = 3000;

/// The program.
pub(super) fn command() -> Command {
    let mut command = Command::new(binary("socks5d"));
    command.args(["-l", "127.0.0.1", "-p", "0", "-P", "0"]);
    command.env("PROXY_CTRL_SUPERUSER", "admin:1234").env_remove("RUST_LOG");
    command
}

/// The program, whose files may have [`LIMIT`] bytes (RLIMIT_FSIZE).
fn limited_command() -> Command {
    let mut command = command();
    limit_file_size(&mut command, LIMIT);
    command
}

fn wait_until_full(path: &Path) {
    eventually("the file is full", || text(path).len() as u64 == LIMIT);
}

/// A file that is appended to.
pub(super) fn appended(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("a folder of its own")
}

pub(super) fn text(path: &Path) -> String {
    String::from_utf8(std::fs::read(path).expect("it is there")).expect("text")
}

/// How many lines are said to be dropped for this cause.
pub(super) fn dropped(diagnostics: &str, stream: &str, cause: &str) -> usize {
    let marker = format!(" lines of the {stream} were dropped: ");
    let lines = diagnostics.lines().filter_map(|line| line.split_once(&marker));
    let of_cause = lines.filter(|(_, why)| why.starts_with(cause));
    of_cause
        .map(|(rest, _)| rest.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
        .sum()
}

pub(super) fn is_request(line: &str) -> bool {
    let fields: Vec<&str> = line.split('\t').collect();
    fields.len() == 12 && fields[0].ends_with('Z') && fields[11] == "refused"
}

pub(super) fn is_diagnostic(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    words.len() > 3
        && words[0].len() == 20
        && words[0].ends_with('Z')
        && !line.contains('\t')
        && ["INFO", "WARN"].contains(&words[1])
        && line.matches("Z INFO").count() + line.matches("Z WARN").count() == 1
}

/// The file may not grow past its limit: the line that was torn there is finished when it is emptied, all others
/// are written or counted, with the cause, and SIGXFSZ ends nobody.
#[test]
fn a_file_that_may_not_grow_costs_lines_that_are_counted() {
    let (folder, (_held, closed)) = (TempDir::new().expect("a folder"), closed_port());
    let (log, told) = (folder.path().join("access.log"), folder.path().join("diagnostics"));
    let mut command = limited_command();
    command.stdout(appended(&log)).stderr(appended(&told));
    let mut program = Program::start(command, || text(&told));
    // So few that those that still wait do not fill the file once more when it is emptied.
    program.is_asked(60, closed);
    wait_until_full(&log);
    eventually("it is told", || text(&told).contains("the access log cannot be written"));
    program.is_asked(10, closed);
    let first = text(&log);
    appended(&log).set_len(0).expect("a file");
    program.is_asked(3, closed);
    // At the end the logs have one second, which may be too short on a busy machine.
    eventually("the torn line is finished", || text(&log).contains('\n'));
    program.stop();
    let all = first + &text(&log);
    assert!(all.ends_with('\n') && all.lines().all(is_request), "{all}");
    let lost = dropped(&text(&told), "access log", "File too large");
    assert!(lost > 0, "{}", text(&told));
    assert_eq!(all.lines().count() + lost, 73, "{}", text(&told));
    assert_eq!(text(&told).matches("were dropped").count(), 1, "{}", text(&told));
}

/// What was lost and not told when the program ends is told then, a torn line included.
#[test]
fn what_is_lost_to_the_end_is_counted_at_the_end() {
    let (folder, (_held, closed)) = (TempDir::new().expect("a folder"), closed_port());
    let (log, told) = (folder.path().join("access.log"), folder.path().join("diagnostics"));
    let mut command = limited_command();
    command.stdout(appended(&log)).stderr(appended(&told));
    let mut program = Program::start(command, || text(&told));
    program.is_asked(100, closed);
    program.stop();
    let whole = text(&log).matches('\n').count();
    let lost = dropped(&text(&told), "access log", "File too large");
    assert_eq!(whole + lost, 100, "{}", text(&told));
}

/// A server that was ended in the middle of a line, by SIGKILL, say, cannot finish it. The next one ends it
/// before it writes the first of its own.
#[test]
fn a_line_torn_by_the_last_server_is_ended_by_the_next() {
    let (folder, (_held, closed)) = (TempDir::new().expect("a folder"), closed_port());
    let (log, told) = (folder.path().join("access.log"), folder.path().join("diagnostics"));
    for (path, torn) in
        [(&log, "2026-11-26T01:02:03Z\tuser\tA\t127.0.0"), (&told, "2026-11-26T01:0")]
    {
        appended(path).write_all(torn.as_bytes()).expect("written");
    }
    let mut command = command();
    command.stdout(appended(&log)).stderr(appended(&told));
    let mut program = Program::start(command, || text(&told));
    program.is_asked(2, closed);
    program.stop();
    for (path, is_whole) in [(&log, is_request as fn(&str) -> bool), (&told, is_diagnostic)] {
        let all = text(path);
        assert!(all.ends_with('\n') && all.lines().count() > 2, "{all}");
        assert_eq!(all.lines().filter(|line| !is_whole(line)).count(), 1, "{all}");
    }
    // A file that is whole gets no empty line.
    let before = text(&log);
    let told = folder.path().join("diagnostics.2");
    let mut command = self::command();
    command.stdout(appended(&log)).stderr(appended(&told));
    let mut program = Program::start(command, || text(&told));
    program.is_asked(1, closed);
    program.stop();
    let after = text(&log);
    assert!(is_request(after.strip_prefix(&before).expect("appended").trim_end()), "{after}");
}

/// `>file 2>&1`: neither stream writes into a line of the other.
#[test]
fn both_streams_in_one_file_keep_their_lines_whole() {
    let (folder, (_held, closed)) = (TempDir::new().expect("a folder"), closed_port());
    let log = folder.path().join("both.log");
    let mut command = limited_command();
    let file = appended(&log);
    command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
    let mut program = Program::start(command, || text(&log));
    let mut all = String::new();
    for round in 0..6 {
        program.is_asked(30, closed);
        program.is_tried(10, b"nobody");
        if round % 2 == 1 {
            wait_until_full(&log);
            all += &text(&log);
            appended(&log).set_len(0).expect("a file");
        }
    }
    program.stop();
    all += &text(&log);
    // It may be full again at the end.
    let all = &all[..=all.rfind('\n').expect("lines")];
    assert!(all.lines().filter(|line| is_request(line)).count() > 30, "{all}");
    assert!(all.lines().any(|line| line.contains("auth failed")), "{all}");
    let torn = |line: &&str| !is_request(line) && !is_diagnostic(line);
    let torn: Vec<&str> = all.lines().filter(torn).collect();
    assert_eq!(torn, [""; 0], "{all}");
}

fn gather(mut from: PipeReader) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).expect("text");
        text
    })
}

/// A name of 255 bytes, each of which is shown as four.
const LOUD: [u8; 255] = [0xff; 255];

/// A parent such as node has made its end of the pipe non-blocking, which is then so for the program, too: what
/// does not fit has to wait. The flag belongs to others, and stays as it is.
#[test]
fn a_non_blocking_pipe_is_waited_for() {
    const LINES: usize = 300;
    let folder = TempDir::new().expect("a folder");
    let told = folder.path().join("diagnostics");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    make_non_blocking(&writer);
    let mut command = command();
    let theirs = OwnedFd::from(writer.try_clone().expect("a descriptor"));
    command.stdout(theirs).stderr(appended(&told));
    let mut program = Program::start(command, || text(&told));
    // Half a MiB, which is more than the pipe holds and less than may wait.
    for _ in 0..LINES {
        let mut client = program.client().logged_in("admin", "1234");
        client.say(&name_request(&LOUD, 80)).refused(4);
    }
    assert!(is_non_blocking(&writer), "the flag is the parent's");
    drop(writer);
    let log = gather(reader);
    program.stop();
    let log = log.join().expect("read");
    assert_eq!(log.lines().filter(|line| is_request(line)).count(), LINES);
    assert_eq!(log.lines().count(), LINES);
    let told = text(&told);
    assert!(!told.contains("dropped") && !told.contains("cannot be written"), "{told}");
}

/// The same of the diagnostics.
#[test]
fn a_non_blocking_pipe_of_the_diagnostics_is_waited_for() {
    const LINES: usize = 300;
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    make_non_blocking(&writer);
    let mut command = command();
    let theirs = OwnedFd::from(writer.try_clone().expect("a descriptor"));
    command.stdout(Stdio::null()).stderr(theirs);
    let child = command.stdin(Stdio::null()).spawn().expect("it starts");
    // It has its own copy of the writing end.
    drop(command);
    let mut said = Vec::new();
    while said.iter().filter(|byte| **byte == b'\n').count() < 2 {
        let mut byte = [0];
        reader.read_exact(&mut byte).expect("it says where it listens");
        said.extend(byte);
    }
    let said = String::from_utf8(said).expect("text");
    let address = said.lines().next().and_then(|line| line.split("address=").nth(1));
    let socks = address.and_then(|address| address.parse().ok()).expect("an address");
    let mut program = Program { child, socks };
    program.is_tried(LINES, &LOUD);
    assert!(is_non_blocking(&writer), "the flag is the parent's");
    drop(writer);
    let told = gather(reader);
    program.stop();
    let told = told.join().expect("read");
    assert_eq!(told.lines().filter(|line| line.contains("auth failed: ")).count(), LINES);
    assert!(told.lines().all(is_diagnostic), "{told}");
    assert!(!told.contains("dropped"), "{told}");
}

/// What is said before there is a log thread waits, too.
#[test]
fn help_and_complaints_wait_for_a_non_blocking_pipe() {
    for (arguments, to_stdout) in [(&["-h"][..], true), (&["-p", "x"], false)] {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        make_non_blocking(&writer);
        // It is full: nothing fits until somebody reads.
        let mut filled = 0;
        while let Ok(count) = std::io::Write::write(&mut writer, &[b'.'; 4096]) {
            filled += count;
        }
        let mut command = Command::new(binary("socks5d"));
        command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
        let theirs = Stdio::from(OwnedFd::from(writer));
        match to_stdout {
            true => command.stdout(theirs).stderr(Stdio::null()),
            false => command.stdout(Stdio::null()).stderr(theirs),
        };
        let mut child = command.spawn().expect("it starts");
        drop(command);
        eventually("it waits, or has ended", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
            stat.is_ok_and(|stat| stat.contains(") S ") || stat.contains(") Z "))
        });
        let said = gather(reader).join().expect("read");
        let code = wait_for_exit(&mut child, PATIENCE).code();
        assert_eq!(code, Some(if to_stdout { 0 } else { 64 }));
        let begins = if to_stdout { "Usage: socks5d" } else { "socks5d: -p x:" };
        assert!(said[filled..].starts_with(begins), "{:?}", &said[filled..]);
    }
}

/// A filter that is none is told as any warning is: where nobody reads it, that is no end.
#[test]
fn a_bad_filter_is_a_warning() {
    let folder = TempDir::new().expect("a folder");
    let told = folder.path().join("diagnostics");
    let mut with_file = command();
    with_file.env("RUST_LOG", "socks5d=loud,info,\u{e9}=x=y").stdout(Stdio::null());
    with_file.stderr(appended(&told));
    Program::start(with_file, || text(&told)).stop();
    assert!(text(&told).contains("WARN  RUST_LOG: "), "{}", text(&told));
    assert!(text(&told).lines().all(is_diagnostic), "{}", text(&told));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut unread = command();
    let mut child = unread
        .env("RUST_LOG", "socks5d=loud")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(OwnedFd::from(writer))
        .spawn()
        .expect("it starts");
    eventually("it has two listeners, or has ended", || {
        let sockets = std::fs::read_dir(format!("/proc/{}/fd", child.id())).map(|links| {
            let targets = links.flatten().filter_map(|link| std::fs::read_link(link.path()).ok());
            targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
        });
        sockets.is_ok_and(|count| count >= 2) || child.try_wait().expect("a child").is_some()
    });
    // Its handlers are there before its second listener is.
    send_signal(&child, libc::SIGTERM);
    assert_eq!(wait_for_exit(&mut child, PATIENCE).code(), Some(0));
}

/// Nothing that is written to the access log can be kept. Tunnels go on, nothing spins, nothing grows, and
/// the end is a good one.
#[test]
fn a_full_disk_under_the_access_log_stops_nobody() {
    let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux");
    let mut child = Command::new(binary("socks5d"))
        .args(["-l", "127.0.0.1", "-p", "0", "-P", "0"])
        .env("PROXY_CTRL_SUPERUSER", "admin:1234")
        .env("RUST_LOG", "info")
        .stdin(Stdio::null())
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("it says where it listens");
    let (_, address) = line.trim_end().split_once("address=").expect("an address");
    let address: SocketAddr = address.parse().expect("an address");
    let reader = thread::spawn(move || {
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).expect("text");
        rest
    });
    let (echo, (_held, closed)) = (Origin::echo(), closed_port());
    for _ in 0..300 {
        let mut client = Client::new(connect(address)).logged_in("admin", "1234");
        client.say(&connect_request(closed)).refused(5);
    }
    let mut tunnel =
        Client::new(connect(address)).logged_in("admin", "1234").connected(echo.address);
    tunnel.write_all(b"not blocked").expect("taken");
    assert_eq!(read_exactly(&mut tunnel, 11), b"not blocked");
    // Lines that nobody takes are not written again and again.
    wait_until_at_rest(child.id());
    send_signal(&child, libc::SIGTERM);
    drop(tunnel);
    assert_eq!(wait_for_exit(&mut child, PATIENCE).code(), Some(0));
    let said = reader.join().expect("read");
    assert!(said.lines().count() < 10, "{said}");
    assert_eq!(said.matches("the access log cannot be written").count(), 1, "told once: {said}");
}
