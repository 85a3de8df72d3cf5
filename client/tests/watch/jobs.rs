//! The screen as a job of a shell: it stops, leaves the terminal to others, and comes back.

use std::process::Command;

use support::client::command;
use support::eventually;
use support::proxy::{Proxy, send_signal};

use super::{Tunnel, Watch, proxy};

/// A shell that runs the watch, and when that has stopped, waits for Enter to go on with it.
pub fn shell(proxy: &Proxy) -> Watch {
    let port = proxy.metp_address().port().to_string();
    let client = command(["-p", &port, "-u", "admin:1234", "-w", "0.2"]);
    let mut shell = Command::new("sh");
    shell.args(["-mc", "\"$@\"; echo \"stopped by $?\"; read -r enter; fg; exit 17", "sh"]);
    shell.arg(client.get_program()).args(client.get_args());
    shell.env("TERM", "xterm").env_remove("METP_AUTH");
    Watch::run(shell, 80, 24)
}

#[test]
fn it_stops_and_comes_back() {
    let proxy = proxy();
    let tunnel = Tunnel::open(&proxy, "alice", 1000);
    for by_key in [true, false] {
        let mut watch = shell(&proxy);
        watch.shows(&["CONNECTIONS 1", "ACCESS LOG", "every 0.2 s"]);
        if by_key {
            watch.press("\x1a");
        } else {
            watch.terminal.signal_foreground(libc::SIGTSTP);
        }
        watch.shows(&["stopped by "]);
        assert!(!watch.screen().alternate_screen() && !watch.screen().hide_cursor());
        assert_eq!(watch.terminal.local_flags(), watch.flags, "the terminal is restored");
        watch.press("\n");
        watch.shows(&["CONNECTIONS 1", "ACCESS LOG", "every 0.2 s", &tunnel.id, "q quit"]);
        assert!(watch.screen().alternate_screen() && watch.screen().hide_cursor());
        assert!(!watch.screen().contents().contains("stopped by "));
        assert_ne!(watch.terminal.local_flags(), watch.flags, "it is raw again");
        watch.press("q");
        assert_eq!(watch.ends().0, 17);
    }
}

#[test]
fn it_comes_back_when_it_was_stopped_by_force() {
    let proxy = proxy();
    let mut watch = shell(&proxy);
    watch.shows(&["CONNECTIONS 0", "every 0.2 s"]);
    watch.terminal.signal_foreground(libc::SIGSTOP);
    watch.shows(&["stopped by "]);
    watch.press("\n");
    watch.shows(&["CONNECTIONS 0", "every 0.2 s"]);
    eventually("all is drawn anew", || !watch.screen().contents().contains("stopped by "));
    watch.press("q");
    // The shell restores the mode that it has found, which was the one of the screen.
    eventually("it ends", || !watch.screen().alternate_screen());
}

/// The system breaks off whatever a process waits for when it is stopped and continued.
#[test]
fn its_sessions_outlast_a_stop() {
    let proxy = proxy();
    let mut watch = shell(&proxy);
    watch.shows(&["CONNECTIONS 0", "every 0.2 s"]);
    watch.press("\x1a");
    watch.shows(&["stopped by "]);
    watch.press("\n");
    eventually("it runs for longer than anything is waited for", || {
        let text = watch.screen().contents();
        let uptime = text.split(" running ").nth(1).and_then(|rest| rest.split(' ').next());
        // A busy machine does not show each second, and may be in the next minute.
        let late = |uptime: &str| {
            let seconds = uptime.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
            uptime.contains('m') || seconds.is_some_and(|seconds: f64| seconds >= 12.0)
        };
        uptime.is_some_and(late)
    });
    let tunnel = Tunnel::open(&proxy, "alice", 1000);
    watch.shows(&["CONNECTIONS 1"]);
    drop(tunnel.stream);
    watch.shows(&["2.0 KiB in "]);
    watch.press("q");
    assert_eq!(watch.ends().0, 17);
}

#[test]
fn it_does_not_stop_where_nobody_can_continue_it() {
    let proxy = proxy();
    let mut watch = Watch::start(&proxy, 80, 24);
    watch.shows(&["every 0.2 s"]);
    watch.press("\x1ap");
    watch.shows(&["PAUSED"]);
    watch.press("q");
    assert_eq!(watch.ends().0, 0);
}

#[test]
fn all_is_drawn_anew_on_demand() {
    let proxy = proxy();
    let mut watch = Watch::start(&proxy, 80, 24);
    watch.shows(&["CONNECTIONS 0", "every 0.2 s"]);
    watch.press("p");
    watch.shows(&["PAUSED", "p go on"]);
    let before = watch.screen().contents();
    // What another program has written over it.
    watch.emulator.process(b"\x1b[H\x1b[2Jan error message");
    assert_ne!(watch.screen().contents(), before);
    watch.press("\x0c");
    eventually("it is as before", || watch.screen().contents() == before);
}

/// Nobody reads the terminal, so drawing waits. Whoever asks for the end twice is not kept waiting.
#[test]
fn a_second_signal_ends_it_wherever_it_hangs() {
    let proxy = proxy();
    let mut watch = Watch::start(&proxy, 500, 200);
    // The number of write(2) stands first while it waits in there.
    let syscall = format!("/proc/{}/syscall", watch.client.id());
    let write = format!("{} 0x1 ", libc::SYS_write);
    eventually("it hangs", || {
        watch.press("\x0c");
        std::fs::read_to_string(&syscall).is_ok_and(|call| call.starts_with(&write))
    });
    eventually("it ends", || {
        send_signal(&watch.client, libc::SIGTERM);
        watch.client.try_wait().expect("a child can be asked").is_some()
    });
}
