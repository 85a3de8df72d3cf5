//! Look-ups of the name of an address (RESOLVE_PTR of Tor's socks-extensions) that fail, or are shared.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use support::eventually;
use support::socks::{reset, wait_until_read};

use crate::inprocess::Inprocess;

const REQUEST: &[u8] = b"\x05\xf1\x00\x01\xc0\x00\x02\x01\x00\x00";
const REPLY: &[u8] = b"\x05\x00\x00\x03\x09a.example\x00\x00";
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// It says nothing about the address that this machine lacks something.
#[test]
fn a_failed_look_up_is_a_general_failure() {
    let server = Inprocess::start();
    server.names().add_name(ADDRESS, "a.example");
    server.names().fail("192.0.2.1", io::Error::from_raw_os_error(libc::EMFILE));
    server.client().say(REQUEST).refused(1);
    server.client().say(REQUEST).hears(REPLY);
    assert_eq!(server.names().asked(), ["192.0.2.1"; 2]);
}

/// Sessions that wait for the same address share a look-up, and one that leaves takes nothing from the others.
#[test]
fn sessions_share_a_look_up() {
    let server = Inprocess::start();
    server.names().add_name(ADDRESS, "a.example");
    let hanging = server.names().hang_name(ADDRESS);
    let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    for client in &mut clients {
        client.say(REQUEST);
        wait_until_read(&client.stream);
    }
    eventually("it is looked up", || server.names().asked().len() == 1);
    let mut admin = server.admin();
    reset(clients.remove(0).stream);
    eventually("its session has ended", || admin.metrics()[1] == 2);
    drop(hanging);
    for client in &mut clients {
        client.hears(REPLY);
    }
    assert_eq!(server.names().asked().len(), 1);
}
