//! A server that says more than it should does not fill the client's memory, whatever it is asked for.

#![cfg(test)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use support::client::command;
use support::eventually;
use support::origin::Origin;
use support::terminal::Terminal;
use support::usage::{Usage, ended, wait};

/// Memory that is enough for any answer, in KiB: what the program has with a short one, and as much again for its
/// buffers and what the allocator holds back, several times over.
const ENOUGH: i64 = 32 << 10;

/// A server whose lists have these lines, each so many times (up to 256, or a multiple of that).
fn server(lines: &'static [(usize, String)]) -> Origin {
    Origin::new(move |stream| {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|count| count > 0) {
            let out = stream.get_mut();
            let word = line.split_whitespace().next().unwrap_or_default();
            let done = match word {
                "CAPA" => out.write_all(b"200 OK\nverbs=CONNECTIONS,USER-METRICS,CONFIG\n.\n"),
                "HELLO" | "AUTH" | "QUIT" => out.write_all(b"200 OK\n"),
                _ => out.write_all(b"200 OK\n").and_then(|()| {
                    for (count, line) in lines {
                        // In pieces, so that this process stays small.
                        let piece = line.repeat((*count).min(256));
                        for _ in 0..count.div_ceil(256) {
                            out.write_all(piece.as_bytes())?;
                        }
                    }
                    out.write_all(b".\n")
                }),
            };
            if done.is_err() {
                return;
            }
            line.clear();
        }
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

/// The most memory that a call takes; it succeeds.
fn peak(server: &Origin, arguments: &[&str]) -> i64 {
    let port = server.address.port().to_string();
    let mut command = command(["-p", &port, "-u", "admin:1234"]);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("it starts");
    let Usage { code, peak_kib } = wait(child);
    assert_eq!(code, 0, "{arguments:?}");
    println!("{arguments:?}: {peak_kib} KiB");
    peak_kib
}

fn leak(lines: Vec<(usize, String)>) -> &'static [(usize, String)] {
    // As long as the server, which lives as long as the test.
    lines.leak()
}

/// Each of 64 columns has one wide cell, which would make all the others of the table as wide.
#[test]
fn a_wide_cell_does_not_make_a_table_wide() {
    let key = |column: usize| format!("k{column}=");
    let first: String = (0..64).map(|column| key(column) + "1 ").collect();
    let mut lines = vec![(1, first + "\n")];
    lines.extend((0..64).map(|column| (1, format!("{}{}\n", key(column), "x".repeat(4000)))));
    lines.push((2560, "k0=1\n".to_owned()));
    let server = server(leak(lines));
    for option in ["--connections", "--user-metrics", "--config"] {
        let peak = peak(&server, &[option]);
        assert!(peak < ENOUGH, "{option}: {peak} KiB");
    }
}

#[test]
fn a_long_list_is_not_kept() {
    let line = "id=1.1 user=alice source=192.0.2.1:5000 destination=host.example:443 peer=192.0.2.7:443 \
                state=relay age=1.000 idle=0.000 up=1 down=2 buffered=0\n";
    let server = server(leak(vec![(256 << 8, line.to_owned())]));
    for arguments in [
        &["--connections"][..],
        &["--json", "--connections"],
        &["--json", "-g"],
        &["--json", "-l"],
        &["--", "CONNECTIONS"],
        &["--json", "--", "CONNECTIONS"],
    ] {
        let peak = peak(&server, arguments);
        assert!(peak < ENOUGH, "{arguments:?}: {peak} KiB");
    }
}

/// The live screen keeps a list, which has a bound: of lines, and of octets.
#[test]
fn the_live_screen_keeps_no_list_without_end() {
    let field = "x".repeat(299);
    let line =
        format!("user={field} source={field} destination={field} state={field} up=1 down=2\n");
    let server = Origin::new(move |stream| {
        let mut stream = BufReader::new(stream);
        let mut told = String::new();
        while stream.read_line(&mut told).is_ok_and(|count| count > 0) {
            let out = stream.get_mut();
            let body = match told.trim_end() {
                "CAPA" => "verbs=INFO,CONNECTIONS,KILL,SUBSCRIBE\n.\n",
                "GET_METRICS ALL" => {
                    "HISTORICAL_CONNECTIONS: 1\nCURRENT_CONNECTIONS: 1\nBYTES_UP: 1\nBYTES_DOWN: 1\n.\n"
                }
                "INFO" => "state=running\n.\n",
                line if line.starts_with("GET_LOGS") => ".\n",
                _ => "",
            };
            let mut done = out.write_all(format!("200 OK\n{body}").as_bytes());
            if told.starts_with("CONNECTIONS") {
                for piece in 0..1 << 12 {
                    let numbers = (piece << 6)..(piece + 1) << 6;
                    let lines: String =
                        numbers.map(|number| format!("id={number}.1 {line}")).collect();
                    done = done.and_then(|()| out.write_all(lines.as_bytes()));
                }
                done = done.and_then(|()| out.write_all(b".\n"));
            }
            if done.is_err() {
                return;
            }
            told.clear();
        }
    });
    let port = server.address.port().to_string();
    let mut terminal = Terminal::default();
    terminal.resize(80, 24);
    let mut command = command(["-p", &port, "-u", "admin:1234", "-w"]);
    command.env("TERM", "xterm");
    terminal.attach(&mut command);
    let mut child = command.spawn().expect("it starts");
    let mut usage = None;
    eventually("it ends", || {
        // What it still has to show needs room.
        terminal.shown();
        usage = ended(&mut child);
        usage.is_some()
    });
    let (Usage { code, peak_kib }, shown) = (usage.expect("it has ended"), terminal.screen());
    assert_eq!(code, 70, "{shown}");
    assert!(shown.contains("The server has too many connections to watch"), "{shown}");
    println!("{peak_kib} KiB");
    assert!(peak_kib < 6 * ENOUGH, "{peak_kib} KiB");
}
