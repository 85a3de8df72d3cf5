//! Limits of connections, in all and for one address.

use std::net::IpAddr;

use support::origin::Origin;
use support::proxy::{Proxy, connect_from};
use support::socks::{CHOSEN, Client, HELLO};
use support::{PATIENCE, eventually, read_exactly};

use super::clients::{closed, connect_many, echoes, whole_handshake};

fn limit_lines(proxy: &Proxy) -> usize {
    let lines = proxy.stderr.all();
    lines.iter().filter(|line| line.contains("limit of connections")).count()
}

/// The limit holds for those who say everything at once, too; each of them gets its turn.
#[test]
fn no_more_connections_than_the_limit_are_ever_open() {
    let (proxy, echo) = (Proxy::with(&["--max-connections", "10"]), Origin::echo());
    let mut admin = proxy.admin();
    let mut waiting = connect_many(proxy.socks_address(), 200, &whole_handshake(echo.address));
    let mut served = 0;
    while !waiting.is_empty() {
        assert!(admin.metrics()[1] <= 10);
        let mut tunnel = waiting.remove(0);
        tunnel.set_read_timeout(Some(PATIENCE)).expect("a socket");
        assert_eq!(read_exactly(&mut tunnel, 14)[..6], [5, 2, 1, 0, 5, 0]);
        served += 1;
    }
    assert_eq!((served, limit_lines(&proxy)), (200, 1), "one line an episode");
}

#[test]
fn one_address_may_have_so_many_connections() {
    let (proxy, echo) = (Proxy::with(&["--max-connections-per-ip", "3"]), Origin::echo());
    let server = proxy.socks_address();
    let client = |source| Client::new(connect_from(source, server)).logged_in("admin", "1234");
    let (here, elsewhere) = (IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 3]));
    let mut tunnels: Vec<_> = (0..2).map(|_| client(here).connected(echo.address)).collect();
    let mut greeted = Client::new(connect_from(here, server));
    greeted.say(HELLO).hears(CHOSEN);
    for _ in 0..5 {
        let mut surplus = connect_from(here, server);
        eventually("it is closed", || closed(&mut surplus));
    }
    assert_eq!(proxy.metrics()[1], 3);
    tunnels.push(client(elsewhere).connected(echo.address));
    // METP is not counted, nor limited.
    let sessions: Vec<_> = (0..5).map(|_| connect_from(here, proxy.metp_address())).collect();
    let mut last = support::metp::Metp::new(sessions.into_iter().next_back().expect("five"));
    last.say("HELLO METP/1.0\n").hears("200 Welcome to METP/1.0\n");
    drop(greeted);
    let mut admin = proxy.admin();
    eventually("one has left", || admin.metrics()[1] == 3);
    tunnels.push(client(here).connected(echo.address));
    tunnels.iter_mut().for_each(echoes);
}

/// Without the option one address may have them all.
#[test]
fn addresses_are_not_limited_by_default() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut tunnels: Vec<_> = (0..100).map(|_| proxy.tunnel(echo.address)).collect();
    tunnels.iter_mut().for_each(echoes);
    assert_eq!(proxy.metrics()[1], 100);
}
