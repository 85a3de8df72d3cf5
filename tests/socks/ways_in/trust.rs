//! Trusted networks (RFC 1928 section 3, RFC 1929 section 2): who needs no login, and what becomes of one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use support::has_ipv6;
use support::origin::Origin;
use support::proxy::{Builder, Proxy, connect, connect_from};
use support::socks::{
    CHOSEN, Client, DENIED, HELLO, WELCOME, connect_request, credentials, half_close,
};

use super::{figures, line_of, stranger, trusted, trusting, wait_until_left};

/// RFC 1928 section 3: method 00 for whoever is trusted, FF for others.
#[test]
fn trusted_clients_need_no_login() {
    let (proxy, echo) = (trusting(&[]), Origin::echo());
    let mut client = trusted(&proxy);
    client.say(b"\x05\x01\x00").hears(b"\x05\x00").say(&connect_request(echo.address));
    assert_eq!(client.reply().0, 0);
    client.say(b"12345").hears(b"12345");
    half_close(&client.stream);
    client.hears_eof();
    let line = line_of(&proxy, "A");
    assert_eq!((line[1].as_str(), line[3].as_str()), ("-", "127.0.0.2"), "{line:?}");
    wait_until_left(&proxy);
    let shown = figures(&proxy);
    assert!(shown.starts_with("user=- role=user connections=0 total=1 up=5 down=5 "), "{shown}");
    stranger(&proxy).say(b"\x05\x01\x00").hears(b"\x05\xff").hears_eof();
}

/// Everything in one segment, and split anywhere.
#[test]
fn a_handshake_without_login_may_be_split_anywhere() {
    let (proxy, echo) = (trusting(&[]), Origin::echo());
    let all = [&b"\x05\x02\x01\x00"[..], &connect_request(echo.address), b"payload"].concat();
    for split in 0..all.len() {
        let mut client = trusted(&proxy);
        client.say(&all[..split]);
        support::socks::wait_until_read(&client.stream);
        client.say(&all[split..]).hears(b"\x05\x00");
        assert_eq!(client.reply().0, 0);
        client.hears(b"payload");
    }
}

/// Method 02 wins wherever it is offered: the account is known then.
#[test]
fn a_login_that_is_offered_is_used() {
    let (proxy, echo) = (trusting(&["-u", "alice:pw"]), Origin::echo());
    for methods in [&b"\x05\x02\x00\x02"[..], b"\x05\x02\x02\x00", b"\x05\x01\x02"] {
        let mut client = trusted(&proxy);
        client.say(methods).hears(CHOSEN).say(&credentials(b"alice", b"pw")).hears(WELCOME);
        drop(client.connected(echo.address));
    }
    let shown = proxy.admin().ask("USER-METRICS alice");
    assert!(shown[0].contains(" total=3 "), "{shown:?}");
}

/// A wrong login is wrong from anywhere, and an empty password is a login from nowhere else.
#[test]
fn a_wrong_login_fails_from_a_trusted_network_too() {
    let proxy = trusting(&[]);
    for (name, password) in
        [(&b"admin"[..], &b"wrong"[..]), (b"nobody", b"x"), (b"-", b"-"), (b"", b"x")]
    {
        let login = [HELLO, &credentials(name, password)].concat();
        trusted(&proxy).say(&login).hears(CHOSEN).hears(DENIED).hears_eof();
        proxy.stderr.wait_for(|line| line.contains("auth failed: service=socks remote=127.0.0.2 "));
    }
    for name in [&b"admin"[..], b"-", b""] {
        let login = [HELLO, &credentials(name, b"")].concat();
        stranger(&proxy).say(&login).hears(CHOSEN).hears(DENIED).hears_eof();
    }
    assert!(figures(&proxy).contains(" total=0 "));
}

/// What every JDK sends without an Authenticator: 00 and 02, then the name of its user and an empty password.
#[test]
fn an_empty_password_is_no_login() {
    let (proxy, echo) = (trusting(&[]), Origin::echo());
    for name in [&b"root"[..], b"admin", b"", b"-", &[0xff; 255]] {
        let mut client = trusted(&proxy);
        client.say(b"\x05\x02\x00\x02").hears(CHOSEN);
        client.say(&credentials(name, b"")).hears(WELCOME);
        drop(client.connected(echo.address));
    }
    wait_until_left(&proxy);
    assert!(figures(&proxy).contains(" total=5 "), "{}", figures(&proxy));
    let said = proxy.stderr.all();
    assert!(!said.iter().any(|line| line.contains("auth failed")), "{said:?}");
}

/// torsocks sends a login of its own making to keep its streams apart.
#[test]
fn any_login_will_do_where_that_is_allowed() {
    let (proxy, echo) = (trusting(&["--trust-any-login"]), Origin::echo());
    for (name, password) in [(&b"torsocks-1234:0"[..], &b"0"[..]), (b"admin", b"wrong")] {
        let mut client = trusted(&proxy);
        client.say(HELLO).hears(CHOSEN).say(&credentials(name, password)).hears(WELCOME);
        drop(client.connected(echo.address));
    }
    // A good one still is the account's.
    let mut client = trusted(&proxy);
    client.say(HELLO).hears(CHOSEN).say(&credentials(b"admin", b"1234")).hears(WELCOME);
    drop(client.connected(echo.address));
    assert!(figures(&proxy).contains(" total=2 "), "{}", figures(&proxy));
    let login = [HELLO, &credentials(b"admin", b"wrong")].concat();
    stranger(&proxy).say(&login).hears(CHOSEN).hears(DENIED).hears_eof();
    proxy.admin().set("trust-any-login", "off");
    trusted(&proxy).say(&login).hears(CHOSEN).hears(DENIED).hears_eof();
}

/// IPv4-mapped sources (RFC 4291 section 2.5.5.2) are IPv4; the networks of IPv6 never have them.
#[test]
fn networks_match_the_address_of_the_client() {
    if !has_ipv6("trusted networks of IPv6") {
        return;
    }
    let at = |source: IpAddr, proxy: &Proxy| {
        let mut server = proxy.socks_address();
        server.set_ip(if source.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
        let mut client = Client::new(connect_from(source, server));
        client.say(b"\x05\x01\x00");
        support::read_exactly(&mut client.stream, 2)[1] == 0
    };
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    let v4 = |last| IpAddr::from([127, 0, 0, last]);
    for (network, good, bad) in [
        ("127.0.0.0/30", vec![v4(1), v4(3)], vec![v4(4), v6]),
        ("::ffff:127.0.0.0/126", vec![v4(1), v4(3)], vec![v4(4), v6]),
        ("0.0.0.0/0", vec![v4(1), v4(9)], vec![v6]),
        ("::1", vec![v6], vec![v4(1)]),
        ("::/0", vec![v6], vec![v4(1)]),
    ] {
        // On all interfaces, a client of IPv4 has a mapped address.
        let proxy = Builder::default().listen(None).args(["--trust", network]).start();
        assert!(good.iter().all(|source| at(*source, &proxy)), "{network}");
        assert!(!bad.iter().any(|source| at(*source, &proxy)), "{network}");
    }
}

#[test]
fn everybody_is_worth_a_warning() {
    let proxy = Proxy::with(&["--trust", "0.0.0.0/0", "--trust", "::/0", "--trust", "10.0.0.0/8"]);
    let warnings = proxy.stderr.all();
    let of = |network: &str| {
        let text = format!("WARN  trusting {network}: everybody who can connect needs no login");
        warnings.iter().any(|line| line.ends_with(&text))
    };
    assert!(of("0.0.0.0/0") && of("::/0") && !of("10.0.0.0/8"), "{warnings:?}");
    assert_eq!(proxy.admin().info("trusted-everywhere"), "0.0.0.0/0,::/0");
}

/// No account can have its name, and nobody can log in to it, over SOCKS or METP.
#[test]
fn the_account_of_trusted_clients_cannot_be_had() {
    let proxy = trusting(&["--trust", "127.0.0.1"]);
    let mut admin = proxy.admin();
    assert_eq!(
        admin.command("ADD-USER - pw"),
        "400 Bad Request [BADNAME] name or password not acceptable"
    );
    assert_eq!(
        admin.command("ADD-USER \\x2d pw"),
        "400 Bad Request [BADNAME] name or password not acceptable"
    );
    for command in ["DELETE-USER -", "SET-ROLE - admin"] {
        assert!(admin.command(command).starts_with("400 Bad Request [NOUSER]"), "{command}");
    }
    assert!(admin.command("CHANGE-PASSWORD - pw").starts_with("404 "));
    for password in ["-", "x", " "] {
        let mut metp = proxy.metp();
        metp.say("HELLO METP/1.0\n").line();
        assert!(metp.command(&format!("AUTH - {password}")).starts_with("401 "));
    }
    assert!(admin.ask("USERS").iter().all(|line| line != "- user"));
}

/// A client is compared with the networks as they are when it comes; open tunnels stay.
#[test]
fn networks_come_and_go_live() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let hello = |proxy: &Proxy| {
        let mut client = trusted(proxy);
        client.say(b"\x05\x01\x00");
        let answer = support::read_exactly(&mut client.stream, 2);
        (answer[1], client)
    };
    assert_eq!(hello(&proxy).0, 0xff);
    let mut admin = proxy.admin();
    assert_eq!(admin.command("TRUST ADD 127.0.0.2/32"), "200 OK");
    let (answer, client) = hello(&proxy);
    assert_eq!(answer, 0);
    let mut tunnel = client.connected(echo.address);
    assert_eq!(admin.command("TRUST DELETE 127.0.0.2"), "200 OK");
    assert_eq!(hello(&proxy).0, 0xff);
    support::exchange(&mut tunnel, 1000);
    assert_eq!(admin.command("KILL USER -"), "200 OK killed=1");
    assert_eq!(support::read_to_reset(&mut tunnel), b"");
}

/// Their limits are those of all clients: places by address, and BIND and UDP as for an account.
#[test]
fn trusted_clients_are_served_as_an_account_is() {
    let (proxy, echo) = (trusting(&["--max-associations", "1"]), Origin::echo());
    let let_in = || {
        let mut client = trusted(&proxy);
        client.say(b"\x05\x01\x00").hears(b"\x05\x00");
        client
    };
    let mut waiting = let_in();
    let (code, listener) = waiting.say(b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x00").reply();
    assert_eq!(code, 0);
    drop(connect(listener));
    assert_eq!(waiting.reply().0, 0);
    let mut association = let_in();
    assert_eq!(association.say(b"\x05\x03\x00\x01\0\0\0\0\0\0").reply().0, 0);
    let_in().say(b"\x05\x03\x00\x01\0\0\0\0\0\0").refused(2);
    let own = proxy.metp_address();
    let_in().say(&connect_request(own)).refused(2);
    support::exchange(&mut let_in().connected(echo.address), 1000);
}
