//! Remembered names, one question for equal ones, and a queue that is full.
//!
//! The server runs in the test, with names of its own: none of them ever leaves the machine.

use std::net::Ipv4Addr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use socks5d::state::settings::Settings;
use socks5d::workers::dns_cache::Ttls;
use support::origin::Origin;
use support::socks::{Client, name_request, reset, wait_until_read};
use support::{SOON, eventually};

use crate::inprocess::{Builder, Inprocess};

fn remembering(found: u64, failed: u64) -> Inprocess {
    let time = |milliseconds| Some(Duration::from_millis(milliseconds)).filter(|t| !t.is_zero());
    let names = Ttls { found: time(found), failed: time(failed) };
    Builder::default().settings(|settings| settings.names = names).start()
}

/// The reply to a request for this name.
fn code_for(server: &Inprocess, name: &str, port: u16) -> u8 {
    asking(server, name, port).reply().0
}

/// A client whose request for a name has been read.
fn asking(server: &Inprocess, name: &str, port: u16) -> Client {
    let mut client = server.client();
    client.say(&name_request(name.as_bytes(), port));
    wait_until_read(&client.stream);
    client
}

const LONG: u64 = 60_000;

#[test]
fn a_name_is_looked_up_once_for_two_requests() {
    let (server, one, two) = (remembering(LONG, 0), Origin::echo(), Origin::echo());
    server.names().add_ip("good.test", Ipv4Addr::LOCALHOST.into());
    assert_eq!(code_for(&server, "good.test", one.address.port()), 0);
    // In other letters and for another port it is the same name.
    assert_eq!(code_for(&server, "Good.TEST", two.address.port()), 0);
    assert_eq!(server.names().asked(), ["good.test"]);
    // Another name is another name.
    server.names().add("good.test.", &[one.address]);
    assert_eq!(code_for(&server, "good.test.", 80), 0);
    assert_eq!(server.names().asked(), ["good.test", "good.test."]);
}

#[test]
fn a_name_is_looked_up_again_after_its_time() {
    let (server, old, new) = (remembering(400, 0), Origin::echo(), Origin::echo());
    server.names().add("moves.test", &[old.address]);
    let began = Instant::now();
    assert_eq!(code_for(&server, "moves.test", 80), 0);
    server.names().add("moves.test", &[new.address]);
    eventually("it is looked up again", || {
        assert_eq!(code_for(&server, "moves.test", 80), 0);
        server.names().asked().len() == 2
    });
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
}

/// Failures are remembered for a time of their own.
#[test]
fn a_name_that_was_missing_is_missing_for_a_while() {
    let (server, origin) = (remembering(LONG, 400), Origin::echo());
    let began = Instant::now();
    assert_eq!(code_for(&server, "late.test", 80), 4);
    server.names().add("late.test", &[origin.address]);
    let mut codes = Vec::new();
    eventually("it is looked up again", || {
        codes.push(code_for(&server, "late.test", 80));
        server.names().asked().len() == 2
    });
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    assert_eq!(codes.pop(), Some(0));
    assert!(codes.iter().all(|code| *code == 4), "{codes:?}");
}

/// 0 is off, each for itself.
#[test]
fn nothing_is_remembered_without_a_time() {
    let (server, origin) = (remembering(0, LONG), Origin::echo());
    server.names().add("good.test", &[origin.address]);
    for name in ["good.test", "good.test", "good.test", "none.test", "none.test"] {
        code_for(&server, name, 80);
    }
    assert_eq!(server.names().asked(), ["good.test", "good.test", "good.test", "none.test"]);
    let server = remembering(LONG, 0);
    server.names().add("good.test", &[origin.address]);
    for name in ["good.test", "good.test", "none.test", "none.test"] {
        code_for(&server, name, 80);
    }
    assert_eq!(server.names().asked(), ["good.test", "none.test", "none.test"]);
}

/// All who ask for a name while it is looked up share the answer, each with its own port.
#[test]
fn equal_names_are_one_question() {
    for exists in [true, false] {
        let server = remembering(0, 0);
        let origins = [Origin::echo(), Origin::echo(), Origin::echo()];
        if exists {
            server.names().add_ip("slow.test", Ipv4Addr::LOCALHOST.into());
        }
        let release = server.names().hang("slow.test");
        let names = ["slow.test", "SLOW.test", "sLoW.TeSt"];
        let clients = names.iter().zip(&origins);
        let mut clients: Vec<Client> =
            clients.map(|(name, origin)| asking(&server, name, origin.address.port())).collect();
        // One of them leaves, which ends nothing for the others.
        let leaving = asking(&server, "slow.TEST", 80);
        reset(leaving.stream);
        let mut admin = server.admin();
        eventually("it has left", || admin.metrics()[1] == 3);
        drop(release);
        for client in &mut clients {
            assert_eq!(client.reply().0, if exists { 0 } else { 4 });
        }
        assert_eq!(server.names().asked(), ["slow.test"]);
    }
}

/// When the queue is full, the name that has waited longest is refused with 04. It is not remembered as
/// missing: nobody has looked.
#[test]
fn a_full_queue_refuses_the_name_that_has_waited_longest() {
    let tried = (0..20).any(|_| is_in_time_with_a_full_queue());
    assert!(tried, "the machine is too busy for this");
}

/// A look-up counts for a second only, then the next begins. Says whether that was time enough.
fn is_in_time_with_a_full_queue() -> bool {
    let memory = Ttls { found: None, failed: Some(Duration::from_secs(60)) };
    let change = |settings: &mut Settings| {
        (settings.dns_threads, settings.dns_queue, settings.names) = (1, 2, memory);
    };
    // One thread in all: on a busy machine the look-up that keeps it would become a slow one.
    let server = Builder::default().settings(change).address_space(0).start();
    let origin = Origin::echo();
    for name in ["first.test", "second.test", "third.test"] {
        server.names().add(name, &[origin.address]);
    }
    let busy = server.names().hang("busy.test");
    let began = Instant::now();
    let _busy = asking(&server, "busy.test", 80);
    eventually("the worker is busy", || server.names().asked().len() == 1);
    let mut first = asking(&server, "first.test", 80);
    let mut also_first = asking(&server, "FIRST.test", 80);
    let mut second = asking(&server, "second.test", 80);
    let mut third = asking(&server, "third.test", 80);
    // All who wait for the one that has to go are told, and the worker has not been waited for.
    let codes = (first.reply().0, also_first.reply().0);
    let asked = server.names().asked();
    if began.elapsed() >= Duration::from_secs(1) {
        return false;
    }
    assert_eq!((codes, asked), ((4, 4), vec!["busy.test".to_owned()]));
    first.hears_eof();
    also_first.hears_eof();
    drop(busy);
    assert_eq!((third.reply().0, second.reply().0), (0, 0));
    assert_eq!(code_for(&server, "first.test", 80), 0);
    // The newest was served first.
    assert_eq!(server.names().asked(), ["busy.test", "third.test", "second.test", "first.test"]);
    true
}

/// Hundreds of names that never answer, each another one, all of one user: a good name gets through.
#[test]
fn a_fresh_name_gets_through_beside_hundreds_of_dead_ones() {
    let (server, origin) = (Inprocess::start(), Origin::echo());
    let dead: Vec<String> = (0..300).map(|number| format!("dead{number}.test")).collect();
    let _never: Vec<Sender<()>> = dead.iter().map(|name| server.names().hang(name)).collect();
    let waiting: Vec<Client> = dead
        .iter()
        .map(|name| {
            let mut client = server.client();
            client.say(&name_request(name.as_bytes(), 80));
            client
        })
        .collect();
    wait_until_read(&waiting[299].stream);
    for number in 0..3 {
        let name = format!("good{number}.test");
        server.names().add(&name, &[origin.address]);
        let began = Instant::now();
        assert_eq!(code_for(&server, &name, 80), 0);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    assert!(server.names().asked().len() < 300, "the dead ones are not served first");
    // Those who leave are gone at once, though nothing ends their look-ups.
    waiting.into_iter().for_each(|client| reset(client.stream));
    let mut admin = server.admin();
    eventually("all have left", || admin.metrics()[1] == 0);
}
