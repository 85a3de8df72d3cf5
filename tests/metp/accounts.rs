//! METP/1.0: accounts, roles, and the sessions that belong to them.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc;

use metp_protocol::Role;
use socks5d::server::{Config, Server};
use socks5d::state::service::Service;
use socks5d::state::settings::{Settings, Timeouts};
use socks5d::state::users::Users;
use support::metp::Metp;
use support::origin::{Origin, deaf};
use support::proxy::{Builder, Proxy, connect};
use support::socks::{Client, connect_request, credentials, half_close, name_request};
use support::{eventually, exchange, read_exactly};

const OK: &str = "200 OK";
const FORBIDDEN: &str = "403 Forbidden";
const SYNTAX: &str = "400 Bad Request [SYNTAX] wrong arguments";

fn alice(proxy: &Proxy) -> Client {
    Client::new(proxy.socks()).logged_in("alice", "pw")
}

/// Expects the end of a connection: EOF or a reset, and no byte before it.
fn closed(stream: &mut TcpStream) {
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the end expected: {other:?}"),
    }
}

/// Expects that a tunnel to an echoing origin still carries bytes.
fn echoes(tunnel: &mut TcpStream) {
    tunnel.write_all(b"still here").expect("taken");
    assert_eq!(read_exactly(tunnel, 10), b"still here");
}

/// Expects 401 at the next command, and the end.
fn unauthorized(session: &mut Metp) {
    session.say("GET_METRICS\nGET_METRICS\n").hears("401 Unauthorized\n").hears_eof();
}

#[test]
fn users_are_listed_in_order_of_creation_the_superuser_first() {
    let proxy = Builder::default().superuser(Some("zoe:1")).args(["-u", "bob:2", "-u", "amy:3"]);
    let proxy = proxy.start();
    let mut zoe = proxy.metp().logged_in("zoe", "1");
    for name in ["Zed", "0", "abe"] {
        assert_eq!(zoe.command(&format!("ADD-USER {name} pw")), OK);
    }
    assert_eq!(zoe.command("SET-ROLE amy admin"), OK);
    assert_eq!(zoe.command("DELETE-USER bob"), OK);
    assert_eq!(zoe.command("ADD-USER bob 2"), OK);
    zoe.say("USERS\n")
        .hears("200 OK\nzoe admin\namy admin\nZed user\n0 user\nabe user\nbob user\n.\n");
}

#[test]
fn a_long_list_of_users_is_whole() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    let names: Vec<String> = (0..3000).map(|number| format!("user-{number}")).collect();
    let commands: String = names.iter().map(|name| format!("ADD-USER {name} pw\n")).collect();
    admin.say(&commands);
    admin.hears(&"200 OK\n".repeat(names.len()));
    let listed = admin.ask("USERS");
    assert_eq!(listed.len(), 3001);
    assert!(names.iter().zip(&listed[1..]).all(|(name, line)| *line == format!("{name} user")));
}

#[test]
fn an_account_is_usable_at_once_and_no_longer_once_deleted() {
    let (proxy, origin) = (Proxy::start(), Origin::echo());
    let mut admin = proxy.admin();
    assert_eq!(admin.command("ADD-USER alice pw"), OK);
    let mut alice = proxy.metp().logged_in("alice", "pw");
    let mut tunnel = Client::new(proxy.socks()).logged_in("alice", "pw").connected(origin.address);
    echoes(&mut tunnel);
    assert_eq!(admin.command("DELETE-USER alice"), OK);
    unauthorized(&mut alice);
    closed(&mut tunnel);
    let mut again = proxy.metp();
    again.say("HELLO METP/1.0\nAUTH alice pw\n");
    again.hears("200 Welcome to METP/1.0\n401 Unauthorized\n").hears_eof();
    let mut client = Client::new(proxy.socks());
    client.say(b"\x05\x01\x02\x01\x05alice\x02pw").hears(b"\x05\x02\x01\x01").hears_eof();
}

/// Names given at start may hold any byte but the colon; they are shown, and found, as `\xHH`.
#[test]
fn names_given_at_start_are_found_in_their_escaped_form() {
    let names: [(&[u8], &str); 8] = [
        (b"two words", r"two\x20words"),
        (b"DOMAIN\\alice", r"DOMAIN\x5calice"),
        (b"a\\x41b", r"a\x5cx41b"),
        (b"\xff\xfe\x80", r"\xff\xfe\x80"),
        (b"b\xc3\xbccher", r"b\xc3\xbccher"),
        (b"\x1b[2J\n\t", r"\x1b[2J\x0a\x09"),
        (b".", r"\x2e"),
        (b"-u", "-u"),
    ];
    let mut builder = crate::inprocess::Builder::default();
    for (name, _) in names {
        builder = builder.account(name, b"pw");
    }
    let proxy = builder.start();
    let metp = || Metp::new(connect(proxy.metp_address()));
    let mut admin = proxy.admin();
    let listed: Vec<String> = names.iter().map(|(_, shown)| format!("{shown} user")).collect();
    assert_eq!(admin.ask("USERS")[1..], listed);
    for (name, shown) in names {
        let mut session = metp().logged_in(shown, "pw");
        assert_eq!(session.command("USERS"), FORBIDDEN, "{shown}");
        assert_eq!(admin.command(&format!("SET-ROLE {shown} admin")), OK);
        assert_eq!(session.ask("USERS").len(), 1 + names.len());
        let login = [&[1, name.len() as u8], name, b"\x02pw"].concat();
        proxy.stranger().say(b"\x05\x01\x02").say(&login).hears(b"\x05\x02\x01\x00");
    }
    // A backslash that begins no escape may come as it is.
    metp().logged_in(r"DOMAIN\alice", "pw");
    for (_, shown) in names {
        assert_eq!(admin.command(&format!("DELETE-USER {shown}")), OK, "{shown}");
    }
    assert_eq!(admin.ask("USERS"), ["admin admin"]);
}

/// §5.6: a name may hold any octets, as RFC 1929 has it. It logs in over SOCKS with these, and over METP in their
/// escaped form.
#[test]
fn any_octets_are_a_name() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    let every: Vec<u8> = (0..255).collect();
    let all: String = every.iter().map(|octet| format!("\\x{octet:02X}")).collect();
    for (word, name) in [
        (r"DOMAIN\user", &b"DOMAIN\\user"[..]),
        ("J\u{fc}rgen", "J\u{fc}rgen".as_bytes()),
        ("a:b", b"a:b"),
        (r"two\x20words", b"two words"),
        (r"a\x5cx41", b"a\\x41"),
        ("--", b"--"),
        (&all, &every),
    ] {
        assert_eq!(admin.command(&format!("ADD-USER {word} pw")), OK, "{word}");
        assert!(admin.command(&format!("ADD-USER {word} pw")).contains("[EXISTS]"), "{word}");
        let mut client = Client::new(proxy.socks());
        client.say(b"\x05\x01\x02").hears(b"\x05\x02").say(&credentials(name, b"pw"));
        client.hears(b"\x01\x00");
        proxy.metp().logged_in(word, "pw");
        assert_eq!(admin.ask(&format!("USER-METRICS {word}")).len(), 1);
        assert_eq!(admin.command(&format!("DELETE-USER {word}")), OK, "{word}");
    }
}

#[test]
fn lines_have_999_octets_at_most_and_longer_ones_end_in_dots() {
    let login = [&[0xff; 255][..], b":pw"].concat();
    let args = [OsStr::new("-u"), OsStr::from_bytes(&login)];
    let (proxy, origin) = (Builder::default().args(args).start(), Origin::echo());
    let mut client = Client::new(proxy.socks());
    let login = [&[1, 255], &[0xff; 255][..], b"\x02pw"].concat();
    client.say(b"\x05\x01\x02").say(&login).hears(b"\x05\x02\x01\x00");
    let _tunnel = client.connected(origin.address);
    let mut admin = proxy.admin();
    // No escape is cut in two, so a line may have three octets less than there is room for.
    let date = "[0000-00-00T00:00:00Z] ".len();
    for (command, before, shown) in [("USERS", 0, 248), ("GET_LOGS", date, 243)] {
        let longest = admin.ask(command).pop().expect("a line");
        assert_eq!(longest[before..], format!("{}...", r"\xff".repeat(shown)));
        assert!(longest.len() < 999, "{longest}");
    }
    // The account is found nevertheless.
    assert_eq!(admin.command(&format!("DELETE-USER {}", r"\xff".repeat(255))), OK);
}

#[test]
fn a_role_change_acts_on_open_sessions_from_the_next_command() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let (mut admin, mut alice) = (proxy.admin(), proxy.metp().logged_in("alice", "pw"));
    assert_eq!(alice.command("ADD-USER bob pw"), FORBIDDEN);
    assert_eq!(admin.command("SET-ROLE alice admin"), OK);
    assert_eq!(alice.command("ADD-USER bob pw"), OK);
    // An administrator may demote and delete another, the first one too.
    assert_eq!(alice.command("SET-ROLE admin user"), OK);
    for command in ["USERS", "GET_LOGS", "SET-ROLE alice user", "DELETE-USER alice"] {
        assert_eq!(admin.command(command), FORBIDDEN);
    }
    assert_eq!(admin.metrics(), [0, 0, 0]);
    assert_eq!(alice.ask("USERS"), ["admin user", "alice admin", "bob user"]);
    assert_eq!(
        alice.command("SET-ROLE alice user"),
        "400 Bad Request [SELF] not on your own account"
    );
    assert_eq!(
        alice.command("DELETE-USER alice"),
        "400 Bad Request [SELF] not on your own account"
    );
    assert_eq!(alice.command("DELETE-USER admin"), OK);
    unauthorized(&mut admin);
    assert_eq!(alice.ask("USERS"), ["alice admin", "bob user"]);
}

#[test]
fn adding_the_name_again_revives_nothing() {
    let (proxy, origin) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut old = proxy.metp().logged_in("alice", "pw");
    let mut waiting = Client::new(proxy.socks()).logged_in("alice", "pw");
    let mut tunnel = Client::new(proxy.socks()).logged_in("alice", "pw").connected(origin.address);
    let mut admin = proxy.admin();
    // In one segment, so that there is no moment in between.
    admin.say("DELETE-USER alice\nADD-USER alice pw\nSET-ROLE alice admin\n");
    admin.hears("200 OK\n200 OK\n200 OK\n");
    // They may be closed before they have said it.
    let _ = waiting.stream.write_all(&connect_request(origin.address));
    closed(&mut waiting.stream);
    closed(&mut tunnel);
    unauthorized(&mut old);
    assert_eq!(proxy.metp().logged_in("alice", "pw").ask("USERS").len(), 2);
    let mut fresh = Client::new(proxy.socks()).logged_in("alice", "pw").connected(origin.address);
    echoes(&mut fresh);
}

/// A server in this process, whose look-ups never end.
fn server_without_names() -> [SocketAddr; 2] {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut users = Users::default();
        for (name, role) in [("admin", Role::Admin), ("alice", Role::User), ("bob", Role::User)] {
            users.add(name.as_bytes(), b"pw", role).expect("new");
        }
        // Nothing ends by itself.
        let timeouts = Timeouts {
            handshake: None,
            resolve: None,
            connect: None,
            connect_total: None,
            linger: None,
            ..Timeouts::default()
        };
        let server = Server::bind(Config {
            users,
            settings: Settings { timeouts, ..Settings::default() },
            lookup: Box::new(|_: &str, _, _| {
                loop {
                    std::thread::park();
                }
            }),
            ..Config::default()
        });
        let server = server.expect("free ports");
        let addresses = [Service::Socks, Service::Metp].map(|service| server.address(service));
        sender.send(addresses.map(|address| address.expect("bound"))).expect("awaited");
        server.run().expect("it runs");
    });
    receiver.recv().expect("it started")
}

/// One SOCKS session in each state that an account can have, and one tunnel that is half-closed.
fn in_every_state(
    name: &str,
    socks: SocketAddr,
    echo: SocketAddr,
    deaf: SocketAddr,
) -> Vec<Client> {
    let client = || Client::new(connect(socks)).logged_in(name, "pw");
    let [request, mut partial, mut resolving, mut connecting, mut refused] =
        std::array::from_fn(|_| client());
    partial.say(b"\x05\x01\x00");
    resolving.say(&name_request(b"never.invalid", 80));
    connecting.say(&connect_request(deaf));
    refused.say(b"\x05\x09\x00\x01\0\0\0\0\0\0").hears(b"\x05\x07\x00\x01\0\0\0\0\0\0");
    let half_closed = Client::new(client().connected(echo_holding()));
    half_close(&half_closed.stream);
    let tunnel = Client::new(client().connected(echo));
    vec![tunnel, half_closed, request, partial, resolving, connecting, refused]
}

/// A server that says nothing and closes nothing.
fn echo_holding() -> SocketAddr {
    let silent = Origin::new(|mut stream| {
        let _ = stream.read(&mut [0]);
        std::thread::sleep(support::PATIENCE);
    });
    silent.address
}

#[test]
fn delete_user_closes_the_accounts_sessions_in_every_state_and_nobody_elses() {
    let [socks, metp] = server_without_names();
    let (echo, (_guard, deaf)) = (Origin::echo().address, deaf());
    let mut alice = in_every_state("alice", socks, echo, deaf);
    let mut bob = in_every_state("bob", socks, echo, deaf);
    let mut admin = Metp::new(connect(metp)).logged_in("admin", "pw");
    let all = (alice.len() + bob.len()) as u64;
    eventually("all are there", || admin.metrics()[..2] == [all, all]);

    assert_eq!(admin.command("DELETE-USER alice"), OK);
    eventually("half of them are gone", || admin.metrics()[1] == bob.len() as u64);
    for client in &mut alice {
        // The one that was refused has had its EOF already.
        closed(&mut client.stream);
    }
    echoes(&mut bob[0].stream);
    let [_, half_closed, request, partial, resolving, connecting, _] = &mut bob[..] else {
        panic!("one in each state")
    };
    request.say(&connect_request(echo));
    assert_eq!(request.reply().0, 0);
    partial.say(&connect_request(echo)[3..]);
    assert_eq!(partial.reply().0, 0);
    for client in [half_closed, resolving, connecting] {
        client.stream.set_nonblocking(true).expect("a socket");
        let nothing = client.stream.read(&mut [0]).expect_err("no byte and no end");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_new_password_acts_on_logins_and_nothing_that_is_open() {
    let (proxy, echo) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut tunnel = alice(&proxy).connected(echo.address);
    let mut user = proxy.metp().logged_in("alice", "pw");
    assert_eq!(user.command("CHANGE-PASSWORD alice two  words "), OK);
    assert_eq!(user.command("CHANGE-PASSWORD admin x"), FORBIDDEN);
    assert_eq!(user.command("CHANGE-PASSWORD nobody x"), FORBIDDEN);
    exchange(&mut tunnel, 5);
    assert_eq!(user.ask("USER-METRICS").len(), 1, "the session stays");
    let mut old = Client::new(proxy.socks());
    old.say(&[5, 1, 2]).hears(&[5, 2]);
    old.say(&credentials(b"alice", b"pw")).hears(&[1, 1]);
    let _new = Client::new(proxy.socks()).logged_in("alice", "two  words ");
    let mut admin = proxy.admin();
    assert_eq!(admin.command("CHANGE-PASSWORD alice pw"), OK);
    let _again = alice(&proxy);
    assert_eq!(admin.command("CHANGE-PASSWORD nobody x"), "404 Not Found [NOUSER] no such user");
    let bad = "400 Bad Request [BADNAME] name or password not acceptable";
    assert_eq!(admin.command(&format!("CHANGE-PASSWORD alice {}", "x".repeat(256))), bad);
    assert_eq!(admin.command("CHANGE-PASSWORD alice a\0b"), bad);
    for line in ["CHANGE-PASSWORD", "CHANGE-PASSWORD alice", "CHANGE-PASSWORD alice "] {
        assert_eq!(admin.command(line), SYNTAX, "{line}");
    }
}
