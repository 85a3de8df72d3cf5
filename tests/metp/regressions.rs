//! Faults of the earlier implementation of METP/1.0, each as a test that it does not come back.

use std::io::Write;

use support::metp::Metp;
use support::origin::Origin;
use support::proxy::{Proxy, connect};
use support::socks::{CHOSEN, Client, DENIED, HELLO, credentials, half_close};
use support::{noise, read_exactly, read_to_end};

/// The server still works, with all that it knew.
fn alive(proxy: &mut Proxy) {
    assert!(proxy.running());
    assert_eq!(proxy.admin().ask("USERS")[0], "admin admin");
}

#[test]
fn fault_crash_on_an_empty_line() {
    let mut proxy = Proxy::start();
    for empty in ["\n", "\r\n", " \n", "\n\n\n\n"] {
        proxy.metp().say(empty).hears("400 Bad Request\n").hears_eof();
        let mut greeted = proxy.metp();
        greeted.say("HELLO METP/1.0\n").hears("200 Welcome to METP/1.0\n");
        greeted.say(empty).hears("400 Bad Request\n").hears_eof();
        let mut admin = proxy.admin();
        admin.say(empty);
        for _ in 0..empty.matches('\n').count() {
            assert_eq!(&admin.line()[..15], "400 Bad Request");
        }
        assert_eq!(admin.ask("USERS"), ["admin admin"]);
    }
    alive(&mut proxy);
}

#[test]
fn fault_pipelined_commands_were_lost() {
    let mut proxy = Proxy::start();
    let mut admin = proxy.metp();
    admin.say("HELLO METP/1.0\nAUTH admin 1234\nADD-USER a 1\nADD-USER b 2\nUSERS\nDELETE-USER a\nUSERS\n");
    admin.hears("200 Welcome to METP/1.0\n200 OK\n200 OK\n200 OK\n");
    admin.hears("200 OK\nadmin admin\na user\nb user\n.\n200 OK\n200 OK\nadmin admin\nb user\n.\n");
    alive(&mut proxy);
}

#[test]
fn fault_a_command_split_over_two_segments_was_refused() {
    let mut proxy = Proxy::start();
    let (mut admin, mut witness) = (proxy.admin(), proxy.admin());
    for (first, second) in [("ADD-US", "ER bob two words\n"), ("USERS", "\n"), ("USERS\r", "\n")] {
        admin.say(first);
        // The server takes what connections say in order: it has read the first part by now.
        witness.metrics();
        admin.say(second).hears("200 OK\n");
        if first.starts_with("USERS") {
            assert_eq!(admin.body(), ["admin admin", "bob user"]);
        }
    }
    proxy.metp().logged_in("bob", "two words");
    alive(&mut proxy);
}

#[test]
fn fault_change_buffer_above_4096_overran_memory() {
    let (mut proxy, origin) = (Proxy::start(), Origin::echo());
    let mut admin = proxy.admin();
    let mut open = proxy.tunnel(origin.address);
    for size in [4097, 65536, 1_048_576, 3] {
        assert_eq!(admin.command(&format!("CHANGE-BUFFER {size}")), "200 OK");
        let sent = noise(300_000, size);
        let mut sender = open.try_clone().expect("a socket");
        let bytes = sent.clone();
        let sending = std::thread::spawn(move || sender.write_all(&bytes).expect("taken"));
        assert!(read_exactly(&mut open, sent.len()) == sent, "{size} on an open tunnel");
        sending.join().expect("sent");
    }
    let mut fresh = proxy.tunnel(origin.address);
    fresh.write_all(b"fresh").expect("taken");
    half_close(&fresh);
    assert_eq!(read_to_end(&mut fresh), b"fresh");
    alive(&mut proxy);
}

#[test]
fn fault_change_buffer_4096abc_was_accepted() {
    let mut proxy = Proxy::start();
    let syntax = "400 Bad Request [SYNTAX] wrong arguments";
    for size in ["4096abc", "abc4096", "4096 abc", "4096\0", "4096.", " 4096 x"] {
        assert_eq!(proxy.admin().command(&format!("CHANGE-BUFFER {size}")), syntax, "{size:?}");
    }
    alive(&mut proxy);
}

#[test]
fn fault_crash_at_the_next_socks_login_after_delete_user() {
    let (mut proxy, origin) =
        (Proxy::with(&["-u", "a:1", "-u", "b:2", "-u", "c:3"]), Origin::echo());
    // First, middle and last of a list; each login comes right after its deletion.
    for (name, password) in [("b", "2"), ("a", "1"), ("c", "3")] {
        assert_eq!(proxy.admin().command(&format!("DELETE-USER {name}")), "200 OK");
        let mut deleted = Client::new(connect(proxy.socks_address()));
        deleted.say(HELLO).hears(CHOSEN);
        deleted.say(&credentials(name.as_bytes(), password.as_bytes())).hears(DENIED).hears_eof();
        proxy.tunnel(origin.address);
        alive(&mut proxy);
    }
    assert_eq!(proxy.admin().ask("USERS"), ["admin admin"]);
}

#[test]
fn fault_add_user_of_an_existing_name_was_answered_200() {
    let mut proxy = Proxy::with(&["-u", "alice:old"]);
    let mut admin = proxy.admin();
    for name in ["alice", "admin"] {
        let answer = admin.command(&format!("ADD-USER {name} new"));
        assert_eq!(answer, "400 Bad Request [EXISTS] user exists");
    }
    assert_eq!(admin.ask("USERS"), ["admin admin", "alice user"]);
    // The password is the old one.
    Metp::new(connect(proxy.metp_address())).logged_in("alice", "old");
    let mut wrong = proxy.metp();
    wrong.say("HELLO METP/1.0\nAUTH alice new\n");
    wrong.hears("200 Welcome to METP/1.0\n401 Unauthorized\n").hears_eof();
    alive(&mut proxy);
}
