//! What administrators see of associations.

use support::eventually;
use support::metp::value;
use support::proxy::{Builder, Proxy};
use support::udp::{Association, socket, socket_on};

/// Bytes are payload without headers; the access log has one line for the association and one for each target.
#[test]
fn bytes_and_datagrams_are_counted() {
    let (proxy, target) = (Proxy::start(), socket());
    let association = Association::open(&proxy);
    for _ in 0..3 {
        association.exchanges(&target, &[7; 100]);
    }
    let mut admin = proxy.admin();
    let line = admin.connection_from(&association.control).expect("it is listed");
    assert_eq!(value(&line, "state"), "associate");
    assert_eq!(value(&line, "destination"), "udp:0");
    assert_eq!(value(&line, "peer"), target.local_addr().expect("bound").to_string());
    assert_eq!((value(&line, "up"), value(&line, "down")), ("300", "300"));
    assert_eq!(
        (value(&line, "targets"), value(&line, "datagrams"), value(&line, "dropped")),
        ("1", "6", "0")
    );
    assert_eq!(admin.figure("UDP_ASSOCIATIONS"), 1);
    assert_eq!(admin.figure("UDP_ASSOCIATIONS_OPEN"), 1);
    assert_eq!(admin.info("connections-associate"), "1");
    assert_eq!((admin.figure("UDP_DATAGRAMS_UP"), admin.figure("UDP_DATAGRAMS_DOWN")), (3, 3));
    assert_eq!((admin.figure("BYTES_UP"), admin.figure("BYTES_DOWN")), (300, 300));
    let local = association.control.local_addr().expect("connected");
    drop(association);
    let record = proxy.stdout.wait_for(|line| line.contains("\tA\t"));
    let fields: Vec<&str> = record.split('\t').collect();
    assert_eq!(fields.len(), 12);
    let port = local.port().to_string();
    assert_eq!(fields[1..10], ["admin", "A", "127.0.0.1", &port, "udp", "0", "0", "300", "300"]);
    assert_eq!(fields[11], "finished");
    let target_line = proxy.stdout.wait_for(|line| line.contains("\tU\t"));
    let fields: Vec<&str> = target_line.split('\t').collect();
    assert_eq!(fields.len(), 12);
    let port = target.local_addr().expect("bound").port().to_string();
    assert_eq!((fields[1], fields[5], fields[6]), ("admin", "127.0.0.1", &port[..]));
    assert_eq!(fields[7..10], ["0", "0", "0"]);
}

/// A refused target has a line with reply 2. There are `--udp-log` lines at most for an association.
#[test]
fn a_line_for_each_target_up_to_a_limit() {
    let proxy = Builder::default().args(["--udp-log", "3"]).start();
    let association = Association::open(&proxy);
    association.send(proxy.socks_address(), b"forbidden");
    let targets: Vec<_> = (2..=6).map(|last| socket_on([127, 0, 0, last].into())).collect();
    for target in targets.iter().chain(&targets) {
        association.exchanges(target, b"used");
    }
    drop(association);
    proxy.stdout.wait_for(|line| line.contains("\tA\t"));
    let lines = proxy.stdout.all();
    let logged: Vec<(&str, &str)> = lines
        .iter()
        .filter(|line| line.contains("\tU\t"))
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            (fields[5], fields[7])
        })
        .collect();
    assert_eq!(logged, [("127.0.0.1", "2"), ("127.0.0.2", "0"), ("127.0.0.3", "0")]);
}

/// `connections event=open` and `event=close` of an association, as of a tunnel.
#[test]
fn subscribers_are_told() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    admin.command("SUBSCRIBE connections");
    let association = Association::open(&proxy);
    association.exchanges(&socket(), b"four");
    let open = admin.line();
    assert!(open.contains("event=open") && open.contains(" destination=udp:0"), "{open}");
    drop(association);
    let close = admin.line();
    assert!(close.contains("event=close") && close.contains(" up=4 down=4 "), "{close}");
    assert!(close.ends_with("reason=finished rule=-"), "{close}");
    eventually("it is gone", || proxy.admin().figure("UDP_ASSOCIATIONS_OPEN") == 0);
}
