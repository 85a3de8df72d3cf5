//! Authentication cannot be passed by: whatever order, version or method a client tries, nobody gets a
//! request answered before a login, or after the account is gone.

use std::io::Read;

use support::origin::Origin;
use support::proxy::{Builder, Proxy};
use support::socks::{
    CHOSEN, Client, DENIED, HELLO, WELCOME, connect_request, credentials, half_close,
    wait_until_read,
};
use support::{eventually, read_to_end};

/// A proxy, and a target that tells whether anybody has come.
fn proxy_and_target() -> (Proxy, Origin, Vec<u8>) {
    let origin = Origin::echo();
    let request = connect_request(origin.address);
    (Builder::default().args(["-u", "alice:secret"]).start(), origin, request)
}

/// All that a client hears that says this and no more.
fn answer(proxy: &Proxy, says: &[u8]) -> Vec<u8> {
    let mut client = Client::new(proxy.socks());
    client.say(says);
    half_close(&client.stream);
    read_to_end(&mut client.stream)
}

/// The same for ways to cut it in two, the second part being sent after the first was read.
fn answers(proxy: &Proxy, says: &[u8], expected: &[u8]) {
    assert_eq!(answer(proxy, says), expected, "{says:02x?} at once");
    for cut in (1..says.len()).step_by(3) {
        let mut client = Client::new(proxy.socks());
        let (first, second) = says.split_at(cut);
        client.say(first);
        wait_until_read(&client.stream);
        // The server may have closed already: then it does not matter whether the rest arrives.
        let _ = std::io::Write::write_all(&mut client.stream, second);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        let mut heard = Vec::new();
        client.stream.read_to_end(&mut heard).expect("EOF, not a reset");
        assert_eq!(heard, expected, "{says:02x?} cut at {cut}");
    }
}

/// Nobody got as far as a request.
fn nothing_was_served(proxy: &Proxy) {
    proxy.wait_until_idle();
    assert_eq!(proxy.stdout.all(), [""; 0]);
    assert_eq!(proxy.metrics()[2], 0, "no byte was relayed");
}

/// RFC 1928 §3: greeting, then RFC 1929, then the request. Every other order ends at the first message that
/// is out of its place.
#[test]
fn messages_out_of_order_end_the_session() {
    let (proxy, _origin, request) = proxy_and_target();
    let login = credentials(b"alice", b"secret");
    let wrong = credentials(b"alice", b"wrong");
    let denied = [CHOSEN, DENIED].concat();
    // The request alone: `05 01 00 ..` reads as a greeting that offers method 00.
    answers(&proxy, &request, b"\x05\xff");
    answers(&proxy, &login, b"");
    answers(&proxy, &[&login, HELLO, &request].concat(), b"");
    answers(&proxy, &[HELLO, &request].concat(), &denied);
    answers(&proxy, &[HELLO, &request, &login].concat(), &denied);
    answers(&proxy, &[HELLO, HELLO, &login, &request].concat(), &denied);
    answers(&proxy, &[HELLO, &wrong, &login, &request].concat(), &denied);
    answers(&proxy, &[HELLO, &wrong, &request].concat(), &denied);
    answers(&proxy, &[HELLO, &wrong, HELLO, &login, &request].concat(), &denied);
    nothing_was_served(&proxy);
}

/// After a login there is one message: the request. A second login or greeting is none.
#[test]
fn nothing_can_be_repeated() {
    let (proxy, _origin, request) = proxy_and_target();
    let login = credentials(b"alice", b"secret");
    let hello = [HELLO, &login].concat();
    let refused = |code: u8| [CHOSEN, WELCOME, &[5, code, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    answers(&proxy, &[&hello[..], &login, &request].concat(), &refused(1));
    answers(&proxy, &[&hello[..], &credentials(b"admin", b"1234"), &request].concat(), &refused(1));
    // A second greeting reads as verb 02 and ATYP 05; with the method list of a request it is verb 02 too.
    let second = [&hello[..], HELLO, b"\x05\x01\x02", &request].concat();
    answers(&proxy, &second, &refused(8));
    nothing_was_served(&proxy);
}

/// The choice of method is the server's: 02, or nothing.
#[test]
fn no_method_but_the_password_is_ever_chosen() {
    let (proxy, _origin, request) = proxy_and_target();
    for methods in [
        &b"\x00"[..],
        b"\x01",
        b"\x00\x01",
        b"\x03",
        b"\x80",
        b"\xff",
        b"\x00\x01\x03\x05\x06\x07\x08\x09\x80\xfe\xff",
        b"",
    ] {
        let greeting = [&[5, u8::try_from(methods.len()).expect("few")], methods].concat();
        answers(&proxy, &[&greeting, &request[..]].concat(), b"\x05\xff");
        // Nor does a login help where none was asked for.
        let login = credentials(b"alice", b"secret");
        assert_eq!(answer(&proxy, &[&greeting, &login[..], &request].concat()), b"\x05\xff");
    }
    let every: Vec<u8> = [5, 255].into_iter().chain(0..=254).collect();
    for greeting in [&b"\x05\x02\x00\x02"[..], b"\x05\x02\x02\x00", b"\x05\x03\x00\x01\x02", &every]
    {
        // Method 00 beside 02 does not let a request through.
        let denied = [CHOSEN, DENIED].concat();
        assert_eq!(answer(&proxy, &[greeting, &request].concat()), denied);
        let wrong = credentials(b"alice", b"wrong");
        assert_eq!(answer(&proxy, &[greeting, &wrong, &request].concat()), denied);
    }
    nothing_was_served(&proxy);
}

/// RFC 1929 §2: version 01, whatever the rest says. RFC 1928: version 05, before and after the login.
#[test]
fn wrong_versions_log_nobody_in() {
    let (proxy, _origin, request) = proxy_and_target();
    let login = credentials(b"alice", b"secret");
    for version in (0..=255).filter(|version| *version != 1) {
        let other = [&[version], &login[1..]].concat();
        let heard = answer(&proxy, &[HELLO, &other, &request].concat());
        assert_eq!(heard, [CHOSEN, DENIED].concat(), "{version}");
    }
    for version in (0..=255).filter(|version| *version != 5) {
        let greeting = [version, 1, 2];
        // SOCKS4 has an answer of its own.
        let answered = if version == 4 { &b"\x00\x5b\0\0\0\0\0\0"[..] } else { b"" };
        let heard = answer(&proxy, &[&greeting[..], &login, &request].concat());
        assert_eq!(heard, answered, "{version}");
        let other = [&[version], &request[1..]].concat();
        let heard = answer(&proxy, &[HELLO, &login, &other].concat());
        let refused = b"\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00";
        assert_eq!(heard, [CHOSEN, WELCOME, refused].concat(), "{version}");
    }
    nothing_was_served(&proxy);
}

/// The account is deleted, or deleted and created again, between each two bytes of the conversation.
#[test]
fn a_deleted_account_is_served_nothing_more() {
    let (proxy, _origin, request) = proxy_and_target();
    let mut admin = proxy.admin();
    let says = [HELLO, &credentials(b"alice", b"secret"), &request].concat();
    let logged_in = HELLO.len() + credentials(b"alice", b"secret").len();
    for again in [false, true] {
        for cut in 1..says.len() {
            let mut client = Client::new(proxy.socks());
            client.say(&says[..cut]);
            let heard = &[CHOSEN, WELCOME].concat()[..if cut < logged_in { 2 } else { 4 }];
            if cut >= HELLO.len() {
                client.hears(heard);
            }
            wait_until_read(&client.stream);
            assert_eq!(admin.command("DELETE-USER alice"), "200 OK");
            if again {
                assert_eq!(admin.command("ADD-USER alice secret"), "200 OK");
            }
            // The server may have closed already.
            let _ = std::io::Write::write_all(&mut client.stream, &says[cut..]);
            let mut rest = [0; 64];
            if cut >= logged_in {
                // Its session is gone, also if the name has come back.
                match client.stream.read(&mut rest) {
                    Ok(0) | Err(_) => {}
                    Ok(count) => panic!("{:02x?} after its end, cut at {cut}", &rest[..count]),
                }
            } else if !again {
                let denied =
                    if cut < HELLO.len() { [CHOSEN, DENIED].concat() } else { DENIED.into() };
                client.hears(&denied).hears_eof();
            }
            drop(client);
            if !again {
                assert_eq!(admin.command("ADD-USER alice secret"), "200 OK");
            }
        }
    }
    eventually("no connection is open", || admin.metrics()[1] == 0);
    // Only where the login was complete after the account had come back was there a tunnel.
    let served = proxy.stdout.all();
    assert!(served.len() < logged_in, "{served:#?}");
}

/// METP: HELLO, then AUTH, then commands; and no command before.
#[test]
fn metp_commands_need_a_login() {
    let proxy = Builder::default().args(["-u", "alice:secret"]).start();
    let hello = "HELLO METP/1.0\n";
    let (welcome, bad) = ("200 Welcome to METP/1.0\n", "400 Bad Request\n");
    let add = "ADD-USER mallory pw\n";
    for (says, hears) in [
        (add.to_owned(), bad.to_owned()),
        (format!("AUTH admin 1234\n{add}"), bad.to_owned()),
        (format!("AUTH admin 1234\n{hello}{add}"), bad.to_owned()),
        (format!("{hello}{add}AUTH admin 1234\n"), format!("{welcome}{bad}")),
        (format!("{hello}{hello}{add}"), format!("{welcome}{welcome}{bad}")),
        (format!("{hello}AUTH admin 12345\n{add}"), format!("{welcome}401 Unauthorized\n")),
        (
            format!("{hello}AUTH admin x\nAUTH admin 1234\n{add}"),
            format!("{welcome}401 Unauthorized\n"),
        ),
        (format!("{hello}QUIT\n{add}"), format!("{welcome}{bad}")),
    ] {
        let mut metp = proxy.metp();
        metp.say(&says).hears(&hears).hears_eof();
    }
    assert_eq!(proxy.admin().ask("USERS"), ["admin admin", "alice user"]);
}

/// A role is the account's own, at this moment: no second AUTH, no name and no verb of another changes it.
#[test]
fn metp_users_stay_users() {
    let proxy = Builder::default().args(["-u", "alice:secret"]).start();
    let (mut admin, mut alice) = (proxy.admin(), proxy.metp().logged_in("alice", "secret"));
    let all = |alice: &mut support::metp::Metp, expected: &str| {
        for command in [
            "USERS",
            "GET_LOGS",
            "CHANGE-BUFFER 1",
            "CHANGE-BUFFER 0",
            "ADD-USER mallory pw",
            "ADD-USER",
            "DELETE-USER admin",
            "DELETE-USER nobody",
            "DELETE-USER alice",
            "SET-ROLE alice admin",
            "SET-ROLE admin user",
            "SET-ROLE alice root",
        ] {
            assert_eq!(alice.command(command), expected, "{command}");
        }
    };
    let forbidden = "403 Forbidden";
    all(&mut alice, forbidden);
    // None of these is another login, or another verb in disguise.
    for command in [
        "AUTH admin 1234",
        "HELLO METP/1.0",
        "users",
        " USERS",
        "USERS\0",
        "GET_METRICS\tUSERS",
        "GET_METRICS USERS",
        "QUIT USERS",
        "",
    ] {
        let told = alice.command(command);
        assert!(told.starts_with("400 Bad Request [SYNTAX] "), "{command:?}: {told}");
    }
    all(&mut alice, forbidden);
    assert_eq!(admin.command("SET-ROLE alice admin"), "200 OK");
    assert_eq!(
        alice.command("SET-ROLE alice admin"),
        "400 Bad Request [SELF] not on your own account"
    );
    assert_eq!(admin.command("SET-ROLE alice user"), "200 OK");
    all(&mut alice, forbidden);
    // The name comes back as an administrator: the session is the old account's.
    assert_eq!(admin.command("DELETE-USER alice"), "200 OK");
    assert_eq!(admin.command("ADD-USER alice secret"), "200 OK");
    assert_eq!(admin.command("SET-ROLE alice admin"), "200 OK");
    alice.say("USERS\nUSERS\n").hears("401 Unauthorized\n").hears_eof();
    assert_eq!(admin.ask("USERS"), ["admin admin", "alice admin"]);
}
