//! Dead peers: when the kernel is asked to probe whether the two ends of a tunnel still exist.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use support::diag::connection;
use support::origin::listen;
use support::proxy::Proxy;
use support::{PATIENCE, eventually, read_exactly};

/// A tunnel and its far end.
fn tunnel(proxy: &Proxy) -> (TcpStream, TcpStream) {
    let listener: TcpListener = listen([127, 0, 0, 1].into()).expect("loopback");
    let client = proxy.tunnel(listener.local_addr().expect("bound"));
    let (server, _) = listener.accept().expect("the tunnel leads here");
    server.set_read_timeout(Some(PATIENCE)).expect("a socket");
    (client, server)
}

/// Whether the proxy's end of this connection has the keepalive timer running.
fn probed(ours: &TcpStream) -> bool {
    let proxys = ours.peer_addr().expect("connected");
    let mut timer = None;
    // What has not been acknowledged yet has another timer, for a moment.
    eventually("all is acknowledged", || {
        timer = connection(proxys, ours.local_addr().expect("a socket")).map(|found| found.timer);
        matches!(timer, Some(0 | 2))
    });
    timer == Some(2)
}

/// The client's side has it from the listener, the target's gets it when the tunnel has lasted for as long as the
/// silence, which spares short tunnels the calls.
#[test]
fn a_tunnel_is_probed_on_both_sides() {
    let proxy = Proxy::with(&["--keepalive", "1"]);
    // Not later than the request.
    let began = Instant::now();
    let (mut client, mut server) = tunnel(&proxy);
    let mut armed = false;
    // Bytes do not put it off.
    while !armed {
        client.write_all(b"x").expect("taken");
        read_exactly(&mut server, 1);
        armed = probed(&server);
        assert!(!armed || began.elapsed() >= Duration::from_secs(1), "a short tunnel pays");
        assert!(probed(&client), "inherited");
        assert!(began.elapsed() < PATIENCE, "the target is not probed");
    }
    // It is no deadline: the peers answer, and the tunnel goes on.
    server.write_all(b"here").expect("taken");
    assert_eq!(read_exactly(&mut client, 4), b"here");
    assert!(probed(&client) && probed(&server));
}

/// METP sessions are probed, too.
#[test]
fn a_metp_session_is_probed() {
    let proxy = Proxy::with(&["--keepalive", "1"]);
    let stream = support::proxy::connect(proxy.metp_address());
    let mut metp = support::metp::Metp::new(stream.try_clone().expect("a descriptor"));
    metp.say("HELLO METP/1.0\n").hears("200 Welcome to METP/1.0\n");
    assert!(probed(&stream));
}

/// 0 is off, for either side.
#[test]
fn probes_can_be_turned_off() {
    let proxies = ["0", "1"].map(|time| Proxy::with(&["--keepalive", time]));
    let [(off, far_off), (on, far_on)] = proxies.each_ref().map(tunnel);
    eventually("the other tunnel is probed", || probed(&far_on));
    assert!(probed(&on));
    assert!(!probed(&off) && !probed(&far_off));
}

/// The kernel knows whole seconds up to 32767; what lies outside is taken for the nearest.
#[test]
fn any_time_will_do() {
    let proxies = ["0.3", "40000", "31536000"].map(|time| Proxy::with(&["--keepalive", time]));
    let tunnels = proxies.each_ref().map(tunnel);
    assert!(tunnels.iter().all(|(client, _)| probed(client)));
    eventually("after a second at the earliest", || probed(&tunnels[0].1));
    assert!(!probed(&tunnels[1].1));
}
