//! The screen on a terminal that has no alternate screen, as the console of Linux: what others have written is in
//! the way, and what others write is to find room.

use support::eventually;

use super::{Tunnel, Watch, jobs, proxy, size};

/// The requests for the alternate screen, and to leave it.
const ALTERNATE: [&str; 2] = ["\x1b[?1049h", "\x1b[?1049l"];

/// Such a terminal, full of threes before.
fn emulator(watch: &mut Watch, before: &str) -> vt100::Parser {
    let mut shown = watch.terminal.screen();
    for request in ALTERNATE {
        shown = shown.replace(request, "");
    }
    let mut emulator = vt100::Parser::new(size(24), size(80), 0);
    emulator.process(before.repeat(80 * 24).as_bytes());
    emulator.process(b"\x1b[H");
    emulator.process(shown.as_bytes());
    emulator
}

/// Waits until the screen shows this, and makes sure that nothing is on it that was there before.
fn shows(watch: &mut Watch, parts: &[&str]) {
    eventually(&format!("{parts:?}, and nothing else"), || {
        let old = emulator(watch, "3").screen().contents();
        let new = emulator(watch, " ").screen().contents();
        old == new && parts.iter().all(|part| new.contains(part))
    });
}

#[test]
fn what_was_there_is_cleared_at_the_start_and_after_every_question() {
    let proxy = proxy();
    let tunnel = Tunnel::open(&proxy, "alice", 1000);
    let mut watch = Watch::start(&proxy, 80, 24);
    shows(&mut watch, &["CONNECTIONS 1", "every 0.2 s", "ACCESS LOG"]);
    for (keys, parts) in [
        ("?", &[" Keys ", " any key closes "][..]),
        ("x", &["every 0.2 s", "k cut a connection"]),
        ("k", &["Cut which connection (Esc: none)? "]),
        ("17", &["Cut which connection (Esc: none)? 17"]),
        ("\x1b", &["every 0.2 s", "k cut a connection"]),
        ("p", &["PAUSED", "p go on"]),
    ] {
        watch.press(keys);
        shows(&mut watch, parts);
    }
    let question = format!("k{}\r", tunnel.id);
    watch.press(&question);
    shows(&mut watch, &[&format!("Cut {}: alice, ", tunnel.id)]);
    watch.press("n");
    shows(&mut watch, &["PAUSED", "p go on"]);
    let text = emulator(&mut watch, "3").screen().contents();
    assert!(!text.contains("Cut ") && !text.contains(" Keys "), "{text}");
    watch.press("q");
    eventually("it has ended", || watch.client.try_wait().is_ok_and(|status| status.is_some()));
    let emulator = emulator(&mut watch, "3");
    assert_eq!(emulator.screen().cursor_position(), (23, 0), "what follows goes below the screen");
    assert!(emulator.screen().rows(0, 80).nth(23).is_some_and(|row| row.trim().is_empty()));
    assert!(!emulator.screen().hide_cursor());
}

#[test]
fn a_stop_leaves_room_for_the_shell_and_what_it_said_is_cleared() {
    let proxy = proxy();
    let mut watch = jobs::shell(&proxy);
    shows(&mut watch, &["CONNECTIONS 0", "every 0.2 s"]);
    watch.press("\x1a");
    watch.shows(&["stopped by "]);
    let text = emulator(&mut watch, "3").screen().contents();
    let line = text.lines().find(|line| line.contains("stopped by ")).unwrap_or_default();
    assert!(line.starts_with("stopped by ") && line.trim_end().len() <= 14, "{text}");
    watch.press("\n");
    eventually("it is drawn anew", || {
        let text = emulator(&mut watch, "3").screen().contents();
        text.contains("every 0.2 s") && !text.contains("stopped by ")
    });
    shows(&mut watch, &["CONNECTIONS 0", "every 0.2 s", "q quit"]);
    watch.press("q");
    assert_eq!(watch.ends().0, 17);
}
