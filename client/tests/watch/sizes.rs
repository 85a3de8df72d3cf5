//! The screen on terminals of any size.

use support::eventually;

use super::{Tunnel, Watch, proxy};

#[test]
fn it_takes_the_size_of_the_terminal() {
    let proxy = proxy();
    let tunnel = Tunnel::open(&proxy, "alice", 1000);
    let mut watch = Watch::start(&proxy, 80, 24);
    watch.shows(&["CONNECTIONS 1", "every 0.2 s"]);
    let log = |watch: &mut Watch| {
        let text = watch.screen().contents();
        text.lines().position(|line| line.starts_with("ACCESS LOG")).unwrap_or(0)
    };
    assert!(!watch.screen().contents().contains(&tunnel.source()));
    watch.resize(200, 50);
    watch.shows(&[&tunnel.source()]);
    eventually("it uses the height", || log(&mut watch) > 24);
    watch.resize(20, 5);
    watch.shows(&["UP "]);
    let before = watch.terminal.shown().len();
    watch.terminal.resize(1, 1);
    eventually("it is drawn anew", || watch.terminal.shown().len() > before);
    watch.resize(80, 24);
    watch.shows(&["CONNECTIONS 1", "every 0.2 s", "ACCESS LOG"]);
    eventually("it fits again", || log(&mut watch) < 24);
    watch.press("q");
    assert_eq!(watch.ends().0, 0);
}

#[test]
fn what_matters_most_is_there_on_a_small_terminal() {
    let proxy = proxy();
    let tunnel = Tunnel::open(&proxy, "alice", 1000);
    for (columns, rows) in [(50, 20), (40, 10), (30, 12)] {
        let mut watch = Watch::start(&proxy, columns, rows);
        watch.shows(&["q quit", &format!("\n{} ", tunnel.id)]);
        let text = watch.screen().contents();
        let below = |heading: &str| {
            let mut lines = text.lines().skip_while(|line| !line.starts_with(heading));
            (lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
        };
        let (heading, user) = below("USERS ");
        assert!(user.starts_with("alice "), "{text}");
        assert!(heading.trim_end().ends_with(" DOWN/s"), "{text}");
        let (heading, connection) = below("ID ");
        assert!(connection.contains(" alice "), "{text}");
        assert!(heading.contains(" DOWN/s") || heading.contains(" BOTH/s"), "{text}");
        let footer = text.lines().last().unwrap_or_default();
        assert!(footer.ends_with("? keys") || footer.ends_with("   every 0.2 s"), "{text}");
        watch.press("q");
        assert_eq!(watch.ends().0, 0);
    }
}

#[test]
fn it_lives_on_a_terminal_of_one_cell() {
    let proxy = proxy();
    let tunnel = Tunnel::open(&proxy, "alice", 1000);
    let mut watch = Watch::start(&proxy, 1, 1);
    for keys in ["?", "x", "k", &format!("{}\r", tunnel.id), "n", "\x1b[B", "p"] {
        let before = watch.terminal.shown().len();
        watch.press(keys);
        watch.press("\x0c");
        eventually("it is drawn", || watch.terminal.shown().len() > before);
    }
    watch.press("q");
    assert_eq!(watch.ends().0, 0);
}
