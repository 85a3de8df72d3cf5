//! A server that is restarted while it is watched.

use support::client::command;
use support::eventually;
use support::place::Place;
use support::proxy::Proxy;

use super::{Tunnel, Watch, proxy};

fn watch(place: &Place, arguments: &[&str]) -> Watch {
    let server = place.address().to_string();
    let mut command = command(["-H", &server, "-u", "admin:1234", "-w", "0.2"]);
    command.args(arguments).env("TERM", "xterm-256color");
    Watch::run(command, 100, 24)
}

fn ends(mut proxy: Proxy, signal: i32) {
    proxy.signal(signal);
    proxy.wait();
}

/// However the server ends; what it showed stays until it is back, then everything begins anew.
#[test]
fn the_screen_goes_on_after_a_restart() {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let first = proxy();
        let place = Place::new(&first);
        let old = Tunnel::open(&first, "alice", 300_000);
        let mut watch = watch(&place, &[]);
        watch.shows(&[" running ", "1 of ", &old.destination]);
        drop(old);
        place.is_now(None);
        ends(first, signal);
        watch.shows(&["; connecting again", "USERS", "ACCESS LOG"]);
        watch.press("k1.1\ny");
        watch.press("?");
        watch.shows(&["Ctrl-L"]);
        watch.press("?");
        let second = proxy();
        let new = Tunnel::open(&second, "bob", 1000);
        place.is_now(Some(&second));
        watch.shows(&["Connected again", " running ", "1 of ", &new.destination]);
        assert!(!watch.screen().contents().contains("alice"), "that was another server");
        // Both sessions are there: one asks, cuts and so on, the other hears.
        let mut admin = second.admin();
        eventually("it subscribes", || admin.info("subscribers") == "1");
        watch.press(&format!("k{}\n", new.id));
        watch.shows(&["bob"]);
        watch.press("y");
        watch.shows(&[&format!("Cut {}", new.id), "killed"]);
        watch.press("q");
        assert_eq!(watch.ends().0, 0);
    }
}

#[test]
fn a_server_that_is_away_can_be_left() {
    let first = proxy();
    let place = Place::new(&first);
    let mut watch = watch(&place, &[]);
    watch.shows(&[" running "]);
    place.is_now(None);
    ends(first, libc::SIGKILL);
    watch.shows(&["; connecting again"]);
    watch.press("q");
    assert_eq!(watch.ends().0, 0);
}

#[test]
fn waiting_ends_when_its_time_is_over_or_the_login_does_not_work_any_more() {
    let first = proxy();
    let place = Place::new(&first);
    let mut limited = watch(&place, &["--wait", "0.3"]);
    let mut endless = watch(&place, &[]);
    limited.shows(&[" running "]);
    endless.shows(&[" running "]);
    place.is_now(None);
    ends(first, libc::SIGKILL);
    assert_eq!(limited.ends().0, 70);
    endless.shows(&["; connecting again"]);
    let second = proxy();
    assert_eq!(second.admin().command("CHANGE-PASSWORD admin other"), "200 OK");
    place.is_now(Some(&second));
    let (code, text) = endless.ends();
    assert!(code == 77 && text.contains("Authentication failed"), "{text}");
}
