//! What the keys of the screen do: cutting a connection, help, scrolling.

use std::io::{BufRead, BufReader, Write};

use support::client::command;
use support::origin::Origin;
use support::{eventually, exchange, read_the_end};

use super::{Tunnel, Watch, proxy};

/// The ids of the connections, from above to below.
fn ids(watch: &mut Watch) -> Vec<String> {
    let text = watch.screen().contents();
    let rows = text.lines().skip_while(|line| !line.starts_with("ID ")).skip(1);
    let rows = rows.take_while(|line| line.starts_with(|letter: char| letter.is_ascii_digit()));
    rows.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn a_connection_is_cut_after_a_question() {
    let proxy = proxy();
    let mut alice = Tunnel::open(&proxy, "alice", 1000);
    let mut bob = Tunnel::open(&proxy, "bob", 1000);
    let mut watch = Watch::start(&proxy, 80, 24);
    watch.shows(&[&format!("\n{} ", alice.id), &format!("\n{} ", bob.id)]);
    let question = format!("Cut {}: alice, {} -> {}?", alice.id, alice.source(), alice.destination);
    let ask = format!("k9\x7f{}\r", alice.id);
    for no in ["n", "\x1b"] {
        watch.press("k");
        watch.shows(&["Cut which connection"]);
        assert!(!watch.screen().hide_cursor(), "the cursor is where one types");
        watch.press(&ask[1..]);
        watch.shows(&[&question, "(y/n)"]);
        watch.press(no);
        watch.shows(&["q quit"]);
        exchange(&mut alice.stream, 1000);
    }
    watch.press("k4000000000.1\r");
    watch.shows(&["There is no connection 4000000000.1"]);
    watch.press(&ask);
    watch.shows(&[&question]);
    watch.press("y");
    watch.shows(&[&format!("\nCut {}", alice.id), "killed"]);
    read_the_end(&mut alice.stream);
    exchange(&mut bob.stream, 1000);
    eventually("it has left the list", || {
        !watch.screen().contents().contains(&format!("\n{} ", alice.id))
    });
    // Nobody presses a key.
    watch.shows(&["q quit"]);
    assert!(!watch.screen().contents().contains(&format!("\nCut {}", alice.id)));
}

#[test]
fn what_the_server_refuses_is_told_in_its_words() {
    let proxy = proxy();
    let alice = Tunnel::open(&proxy, "alice", 1000);
    let mut watch = Watch::start(&proxy, 80, 24);
    watch.shows(&[&format!("\n{} ", alice.id)]);
    watch.press(&format!("k{}\r", alice.id));
    watch.shows(&["(y/n)"]);
    // It ends while the question is open.
    drop(alice.stream);
    eventually("it has ended", || proxy.admin().ask("CONNECTIONS").is_empty());
    watch.press("y");
    watch.shows(&[&format!("{} has not been cut: ", alice.id), "[NOCONN]"]);
}

#[test]
fn the_order_stays_while_somebody_looks_for_a_connection() {
    let proxy = proxy();
    let mut tunnels =
        [("alice", 90_000), ("bob", 1000)].map(|(user, bytes)| Tunnel::open(&proxy, user, bytes));
    let [before, after] = [[0, 1], [1, 0]].map(|order| order.map(|at| tunnels[at].id.clone()));
    let mut watch = Watch::start(&proxy, 80, 24);
    let mut other = Watch::start(&proxy, 80, 24);
    eventually("the largest is first", || ids(&mut watch) == before && ids(&mut other) == before);
    watch.press("k");
    watch.shows(&["Cut which connection"]);
    eventually("another has become busier", || {
        exchange(&mut tunnels[1].stream, 200_000);
        ids(&mut other) == after
    });
    assert_eq!(ids(&mut watch), before);
    watch.press("\x1b");
    eventually("it moves again", || ids(&mut watch) == after);
}

#[test]
fn help_is_there_until_the_next_key() {
    let proxy = proxy();
    let mut watch = Watch::start(&proxy, 80, 24);
    watch.shows(&["every 0.2 s", "? keys"]);
    for key in ["?", "h"] {
        watch.press(key);
        watch.shows(&["Keys", "Ctrl-L      draw everything anew", "any key closes"]);
        watch.press("q");
        eventually("it closes", || !watch.screen().contents().contains("Ctrl-L"));
    }
    watch.press("q");
    assert_eq!(watch.ends().0, 0);
}

#[test]
fn connections_can_be_scrolled() {
    let proxy = proxy();
    let tunnels: Vec<Tunnel> = [("alice", 9000), ("bob", 5000), ("alice", 1000)]
        .map(|(user, bytes)| Tunnel::open(&proxy, user, bytes))
        .into();
    let all: Vec<String> = tunnels.iter().map(|tunnel| tunnel.id.clone()).collect();
    let mut watch = Watch::start(&proxy, 100, 24);
    eventually("all are there", || ids(&mut watch) == all);
    watch.press("\x1b[B");
    watch.shows(&["DESTINATION, from 2"]);
    assert_eq!(ids(&mut watch), all[1..]);
    // The last one stays.
    watch.press("\x1b[B\x1b[B\x1b[B\x1b[B");
    eventually("one is left", || ids(&mut watch) == all[2..]);
    watch.press("\x1b[A\x1b[A");
    eventually("all are there again", || ids(&mut watch) == all);
}

/// A server whose INFO never ends does not fill the memory: the watch ends, and the terminal is restored.
#[test]
fn an_answer_without_end_ends_it() {
    let server = Origin::new(|stream| {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|count| count > 0) {
            let verb = line.split_whitespace().next().unwrap_or_default();
            let body = match verb {
                "CAPA" => "verbs=INFO,CONNECTIONS,KILL,SUBSCRIBE\n.\n",
                "GET_METRICS" => {
                    "HISTORICAL_CONNECTIONS: 0\nCURRENT_CONNECTIONS: 0\nBYTES_TRANSFERRED: 0\n\
                     BYTES_UP: 0\nBYTES_DOWN: 0\n.\n"
                }
                "GET_LOGS" | "CONNECTIONS" => ".\n",
                _ => "",
            };
            let mut sent = stream.get_mut().write_all(format!("200 OK\n{body}").as_bytes());
            while verb == "INFO" && sent.is_ok() {
                sent = stream.get_mut().write_all(b"key=value\n");
            }
            line.clear();
        }
    });
    let port = server.address.port().to_string();
    let mut command = command(["-p", &port, "-u", "admin:1234", "-w"]);
    command.env("TERM", "xterm");
    let (code, left) = Watch::run(command, 80, 24).ends();
    assert!(code == 70 && left.contains("metrics are too long"), "{code}: {left}");
}
