//! Who may ask, for what, and how.

use support::eventually;
use support::origin::Origin;
use support::proxy::{Builder, connect};
use support::socks::connect_request;

use super::{address, builder, exchange, get};

/// What is asked for in another way than by GET and HEAD, of another host, or in a head that is none.
#[test]
fn what_is_no_good_request_is_refused() {
    let proxy = builder().args(["--http-host", "proxy.example"]).start();
    let http = || connect(address(&proxy));
    for (request, status) in [
        ("GET /metrics HTTP/1.1\nHost: proxy.example:9105\n\n", 200),
        ("GET http://127.0.0.1/healthz HTTP/1.1\nHost: 127.0.0.1\n\n", 200),
        ("GET /healthz HTTP/1.0\n\n", 200),
        ("GET /nothing HTTP/1.1\nHost: localhost\n\n", 404),
        ("GET /metrics/ HTTP/1.1\nHost: localhost\n\n", 404),
        ("GET /../metrics HTTP/1.1\nHost: localhost\n\n", 404),
        ("GET /metrics HTTP/1.1\nHost: rebound.example\n\n", 403),
        ("GET /healthz HTTP/1.1\nHost: rebound.example\n\n", 403),
        // RFC 9112 section 3.2.2: the host of the target replaces that of the field.
        ("GET http://rebound.example/healthz HTTP/1.1\nHost: 127.0.0.1\n\n", 403),
        ("GET http://proxy.example:9105/healthz HTTP/1.1\nHost: rebound.example\n\n", 200),
        ("GET http://localhost HTTP/1.0\n\n", 200),
        ("GET http://rebound.example HTTP/1.0\n\n", 403),
        ("GET http:///healthz HTTP/1.1\nHost: localhost\n\n", 400),
        ("GET http://me@localhost/healthz HTTP/1.1\nHost: localhost\n\n", 400),
        ("GET http://localhost/healthz HTTP/1.1\n\n", 400),
        // RFC 9112 section 2.2: an empty line may come first.
        ("\nGET /healthz HTTP/1.1\nHost: localhost\n\n", 200),
        ("POST /metrics HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n", 405),
        ("CONNECT localhost:80 HTTP/1.1\nHost: localhost:80\n\n", 405),
        ("GET /metrics HTTP/1.1\n\n", 400),
        ("GET /metrics HTTP/1.1\nHost: localhost\nContent-Length: 3\n\nabc", 400),
        ("\x05\x01\n", 400),
        ("HELLO METP/1.0\n", 400),
        ("\n\n", 400),
        ("\n\nGET /healthz HTTP/1.1\nHost: localhost\n\n", 400),
    ] {
        let response = exchange(http(), request);
        assert_eq!(response.status, status, "{request:?}: {}", response.body);
        assert!(response.head.contains("\r\nConnection: close"), "{}", response.head);
        assert!(response.head.contains("\r\nX-Content-Type-Options: nosniff"), "{}", response.head);
        let allows = response.head.contains("\r\nAllow: GET, HEAD\r\n");
        assert_eq!(allows, status == 405, "{}", response.head);
    }
    let long = format!("GET /metrics HTTP/1.1\nHost: localhost\nX: {}\n\n", "x".repeat(9000));
    assert_eq!(exchange(http(), &long).status, 431);
    let head = exchange(http(), "HEAD /nothing HTTP/1.1\nHost: localhost\n\n");
    assert_eq!((head.status, head.body.as_str()), (404, ""));
}

/// Beyond loopback an administrator has to log in (RFC 7617), but for the two that tell nothing.
#[test]
fn elsewhere_than_on_loopback_there_is_a_login() {
    let proxy = Builder::default().args(["--http", "0.0.0.0:0", "-u", "alice:pw"]).start();
    let ask = |path: &str, login: &str| {
        let login = match login {
            "" => String::new(),
            login => format!("Authorization: Basic {login}\n"),
        };
        exchange(
            connect(address(&proxy)),
            &format!("GET {path} HTTP/1.1\nHost: localhost\n{login}\n"),
        )
    };
    // admin:1234, admin:wrong, nobody:1234, alice:pw
    for (login, status) in [
        ("", 401),
        ("YWRtaW46MTIzNA==", 200),
        ("YWRtaW46d3Jvbmc=", 401),
        ("bm9ib2R5OjEyMzQ=", 401),
        ("YWxpY2U6cHc=", 403),
        ("!", 401),
    ] {
        for path in ["/metrics", "/metrics/users"] {
            let response = ask(path, login);
            assert_eq!(response.status, status, "{login} {}", response.body);
            let challenge = "\r\nWWW-Authenticate: Basic realm=\"socks5d\", charset=\"UTF-8\"\r\n";
            assert_eq!(response.head.contains(challenge), status == 401, "{}", response.head);
        }
    }
    assert_eq!(ask("/healthz", "").body, "ok\n");
    assert_eq!(ask("/readyz", "").body, "ready\n");
    proxy.stderr.wait_for(|line| {
        line.ends_with("WARN  auth failed: service=http remote=127.0.0.1 user=\"admin\"")
    });
}

/// `/readyz` says that balancers are to go elsewhere as soon as the server closes down.
#[test]
fn health_is_told() {
    let (proxy, echo) = (builder().start(), Origin::echo());
    let tunnel = proxy.tunnel(echo.address);
    assert_eq!((get(&proxy, "/healthz").status, get(&proxy, "/readyz").status), (200, 200));
    assert_eq!(proxy.admin().command("SHUTDOWN GRACE 60"), "200 OK");
    let ready = get(&proxy, "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "closing\n"));
    assert_eq!(get(&proxy, "/healthz").status, 200);
    drop(tunnel);
}

/// Connections are accepted until balancers have had time to find out; then the listener is closed, and what is open goes
/// on for its grace.
#[test]
fn connections_are_accepted_until_balancers_have_found_out() {
    let (mut proxy, echo) =
        (builder().args(["--drain-wait", "1.5", "--grace", "60"]).start(), Origin::echo());
    proxy.signal(libc::SIGTERM);
    eventually("503", || get(&proxy, "/readyz").status == 503);
    // Who comes now is served.
    let mut tunnel = proxy.tunnel(echo.address);
    support::exchange(&mut tunnel, 100);
    let refused = || std::net::TcpStream::connect(proxy.socks_address()).is_err();
    eventually("no more connections", refused);
    support::exchange(&mut tunnel, 100);
    drop(tunnel);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// As with other times, a change holds for what waits already (METP section 5.17): the listener is closed, and the grace
/// begins.
#[test]
fn a_wait_that_is_shortened_ends_at_once() {
    let times = ["--drain-wait", "3600", "--grace", "60"];
    let (mut proxy, echo) = (builder().args(times).start(), Origin::echo());
    let mut admin = proxy.admin();
    assert_eq!(admin.command("SHUTDOWN"), "200 OK");
    let closing_in = |admin: &mut support::metp::Metp| -> f64 {
        admin.info("closing-in").parse().expect("a number")
    };
    assert!(closing_in(&mut admin) > 3600.0);
    let mut tunnel = proxy.tunnel(echo.address);
    admin.set("drain-wait", 7200);
    assert!(closing_in(&mut admin) > 7200.0);
    admin.set("drain-wait", 0);
    let refused = || std::net::TcpStream::connect(proxy.socks_address()).is_err();
    eventually("no more connections", refused);
    assert!(closing_in(&mut admin) <= 60.0);
    support::exchange(&mut tunnel, 100);
    // It is over: another value opens nothing again.
    admin.set("drain-wait", 3600);
    assert!(closing_in(&mut admin) <= 60.0 && refused());
    drop(tunnel);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Browsers get the file without a login, and a host that could end the string is none.
#[test]
fn browsers_are_told_of_the_proxy() {
    let pac = ["--http-pac", "proxy.example:1080"];
    let proxy = Builder::default().args(["--http", "0.0.0.0:0"]).args(pac).start();
    let told = get(&proxy, "/proxy.pac");
    assert_eq!(told.status, 200);
    assert!(told.head.contains("\r\nContent-Type: application/x-ns-proxy-autoconfig\r\n"));
    assert!(told.body.starts_with("function FindProxyForURL(url, host) {\n"), "{}", told.body);
    let names = "    return \"SOCKS5 proxy.example:1080; SOCKS proxy.example:1080\";\n}\n";
    assert!(told.body.ends_with(names), "{}", told.body);
    assert_eq!(get(&builder().start(), "/proxy.pac").status, 404);
    for wrong in ["proxy.example", "a\"b:1", "a b:1", ":1080", "a:0", "a:70000", "a';b:1"] {
        let output = std::process::Command::new(support::binary("socks5d"))
            .args(["--http-pac", wrong])
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(64), "{wrong}");
    }
}

/// No client of SOCKS gets to it, on whatever address.
#[test]
fn its_port_is_closed_to_clients() {
    let proxy = builder().start();
    let http = address(&proxy);
    proxy.client().say(&connect_request(http)).refused(2);
}

/// Those who say nothing take no place from those who do.
#[test]
fn silent_clients_harm_nobody() {
    let (proxy, echo) = (builder().start(), Origin::echo());
    let silent: Vec<_> = (0..200).map(|_| connect(address(&proxy))).collect();
    assert_eq!(get(&proxy, "/healthz").body, "ok\n");
    let mut tunnel = proxy.tunnel(echo.address);
    support::exchange(&mut tunnel, 100);
    assert_eq!(proxy.admin().command("PING x"), "200 PONG x");
    drop(silent);
    eventually("they are gone", || {
        get(&proxy, "/metrics").body.contains("\nsocks5d_sessions{service=\"http\"} 1\n")
    });
}

/// Where there is no `--http` nothing listens.
#[test]
fn it_is_off_by_default() {
    let proxy = Builder::default().start();
    assert!(!proxy.stderr.all().iter().any(|line| line.contains("service=http")));
}
