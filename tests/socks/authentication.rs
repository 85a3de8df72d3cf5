//! The login: RFC 1929, byte strings compared whole, one answer to every failure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use support::origin::Origin;
use support::proxy::{Builder, Proxy};
use support::socks::{
    CHOSEN, Client, DENIED, HELLO, WELCOME, connect_request, credentials, half_close,
};
use support::{SOON, eventually, noise, read_to_end};

use crate::inprocess::Inprocess;

/// Sends a greeting and a login; all that the server answers before it closes or waits for a request.
fn answer(mut client: Client, name: &[u8], password: &[u8]) -> Vec<u8> {
    client.say(&[HELLO, &credentials(name, password)].concat());
    half_close(&client.stream);
    read_to_end(&mut client.stream)
}

const ACCEPTED: &[u8] = b"\x05\x02\x01\x00";
const FAILED: &[u8] = b"\x05\x02\x01\x01";

/// Every account opens tunnels: those of `-u` and the administrator.
#[test]
fn users_and_the_administrator_may_use_socks() {
    let (proxy, origin) = (Proxy::with(&["-u", "alice:secret"]), Origin::echo());
    for (name, password) in [("alice", "secret"), ("admin", "1234")] {
        let mut client = Client::new(proxy.socks()).logged_in(name, password);
        assert_eq!(client.say(&connect_request(origin.address)).reply().0, 0, "{name}");
        client.say(b"ping").hears(b"ping");
    }
}

/// RFC 1929 §2: "If the server returns a failure, it MUST close the connection." At once, and with a FIN: the
/// time for lingering is off. What the client has sent behind its login changes nothing.
#[test]
fn a_failed_login_is_told_and_closed() {
    let proxy = Proxy::with(&["--linger-timeout", "0"]);
    let origin = Origin::echo();
    let mut client = Client::new(proxy.socks());
    client.say(HELLO).hears(CHOSEN);
    client.say(&credentials(b"admin", b"wrong")).hears(DENIED).hears_eof();
    drop(client);
    let login = credentials(b"admin", b"wrong");
    let request = connect_request(origin.address);
    for behind in [&request[..], &[&credentials(b"admin", b"1234"), &request[..]].concat()] {
        let mut client = Client::new(proxy.socks());
        client.say(&[HELLO, &login, behind, &noise(100_000, 1)].concat());
        client.hears(FAILED).hears_eof();
    }
    proxy.wait_until_idle();
    assert_eq!(proxy.stdout.all(), [""; 0], "nobody got as far as a request");
}

/// Nothing tells a client which names exist: the same bytes for an unknown name and a wrong password.
#[test]
fn names_and_passwords_are_compared_whole() {
    let proxy = Proxy::with(&["-u", "alice:secret", "-u", "alic:other", "-u", "b:b"]);
    let check = |name: &[u8], password: &[u8], expected: &[u8]| {
        let shown = (String::from_utf8_lossy(name), String::from_utf8_lossy(password));
        assert_eq!(answer(Client::new(proxy.socks()), name, password), expected, "{shown:?}");
    };
    for (name, password) in [("alice", "secret"), ("alic", "other"), ("b", "b"), ("admin", "1234")]
    {
        check(name.as_bytes(), password.as_bytes(), ACCEPTED);
    }
    let longest = [b'a'; 255];
    for (name, password) in [
        (&b"nobody"[..], &b"secret"[..]),
        (b"alice", b"wrong"),
        (b"alice", b"other"),
        (b"alic", b"secret"),
        (b"ali", b"secret"),
        (b"alicee", b"secret"),
        (b"Alice", b"secret"),
        (b"alice", b"SECRET"),
        (b"alice", b"secre"),
        (b"alice", b"secretx"),
        (b"alice", b" secret"),
        (b"alice\0", b"secret"),
        (b"alice", b"secret\0"),
        (b"alice\0x", b"secret\0x"),
        (b"\0alice", b"secret"),
        (b"alice:secret", b"secret"),
        (b"", b""),
        (b"", b"secret"),
        (b"alice", b""),
        (&longest, b"secret"),
        (b"alice", &longest),
        (&longest, &longest),
    ] {
        check(name, password, FAILED);
    }
}

/// RFC 1929 §2: the sub-negotiation is version 1. Its first byte decides.
#[test]
fn another_version_of_the_login_is_a_failure() {
    let proxy = Proxy::with(&["--linger-timeout", "0"]);
    for version in [0x00, 0x02, 0x05, 0xff] {
        let mut client = Client::new(proxy.socks());
        client.say(HELLO).hears(CHOSEN).say(&[version]).hears(DENIED).hears_eof();
        let mut login = credentials(b"admin", b"1234");
        login[0] = version;
        let mut client = Client::new(proxy.socks());
        client.say(&[HELLO, &login].concat()).hears(FAILED).hears_eof();
    }
}

/// ULEN or PLEN 0 is a failed login, not a message that is never complete.
#[test]
fn empty_names_and_passwords_fail_at_once() {
    let proxy = Proxy::with(&["--linger-timeout", "0"]);
    for login in [&b"\x01\x00\x00"[..], b"\x01\x00\x041234", b"\x01\x05admin\x00"] {
        let mut client = Client::new(proxy.socks());
        client.say(HELLO).hears(CHOSEN).say(login).hears(DENIED).hears_eof();
    }
}

/// The longest there are, with each of their last bytes counting.
#[test]
fn names_and_passwords_have_up_to_255_bytes() {
    let (name, password) = ([b'n'; 255], [b'p'; 255]);
    let login = [&name[..], b":", &password].concat();
    let proxy = Builder::default().args([OsStr::new("-u"), OsStr::from_bytes(&login)]).start();
    let check = |name: &[u8], password: &[u8]| answer(Client::new(proxy.socks()), name, password);
    assert_eq!(check(&name, &password), ACCEPTED);
    let (mut other_name, mut other_password) = (name, password);
    (other_name[254], other_password[254]) = (b'x', b'x');
    for (name, password) in [
        (&other_name[..], &password[..]),
        (&name, &other_password),
        (&name[..254], &password),
        (&name, &password[..254]),
    ] {
        assert_eq!(check(name, password), FAILED);
    }
}

/// `-u` splits at the first colon.
#[test]
fn a_password_may_hold_colons() {
    let proxy = Builder::default()
        .args(["-u", "alice:se:cret:", "-u", "bob::"])
        .superuser(Some("root:a:b"))
        .start();
    let check = |name: &[u8], password: &[u8]| answer(Client::new(proxy.socks()), name, password);
    assert_eq!(check(b"alice", b"se:cret:"), ACCEPTED);
    assert_eq!(check(b"bob", b":"), ACCEPTED);
    assert_eq!(check(b"root", b"a:b"), ACCEPTED);
    for (name, password) in [(&b"alice"[..], &b"se"[..]), (b"alice:se", b"cret:"), (b"root", b"a")]
    {
        assert_eq!(check(name, password), FAILED);
    }
}

#[test]
fn names_and_passwords_need_not_be_utf8() {
    let login = OsStr::from_bytes(b"\xfc\xff:\x80 \x85\xfe");
    let proxy = Builder::default().args([OsStr::new("-u"), login]).start();
    let check = |name: &[u8], password: &[u8]| answer(Client::new(proxy.socks()), name, password);
    assert_eq!(check(b"\xfc\xff", b"\x80 \x85\xfe"), ACCEPTED);
    // What a conversion that replaces bad bytes would make of them.
    let replaced = "\u{fffd}\u{fffd}".as_bytes();
    for (name, password) in [
        (&b"\xfc\xfe"[..], &b"\x80 \x85\xfe"[..]),
        (b"\xfc\xff", b"\x80 \x85\xff"),
        (replaced, b"\x80 \x85\xfe"),
    ] {
        assert_eq!(check(name, password), FAILED);
    }
}

/// No command line can hold a NUL, but accounts could.
#[test]
fn a_nul_is_a_byte_like_any_other() {
    let server = crate::inprocess::Builder::default()
        .account(b"al\0ice", b"se\0cret")
        .account(b"bob", b"se")
        .start();
    assert_eq!(answer(server.stranger(), b"al\0ice", b"se\0cret"), ACCEPTED);
    for (name, password) in [
        (&b"al"[..], &b"se\0cret"[..]),
        (b"al\0", b"se\0cret"),
        (b"al\0ICE", b"se\0cret"),
        (b"al\0ice", b"se"),
        (b"al\0ice", b"se\0"),
        (b"al\0ice", b"se\0CRET"),
        (b"bob", b"se\0cret"),
        (b"bob\0", b"se"),
    ] {
        assert_eq!(answer(server.stranger(), name, password), FAILED, "{name:?} {password:?}");
    }
}

/// There is no default account, and an empty name is none either.
#[test]
fn without_accounts_nobody_logs_in() {
    let proxy = Builder::default().superuser(None).start();
    for (name, password) in
        [(&b""[..], &b""[..]), (b"admin", b"1234"), (b"admin", b""), (b"root", b"root")]
    {
        assert_eq!(answer(Client::new(proxy.socks()), name, password), FAILED);
    }
    proxy.stderr.wait_for(|line| line.contains("WARN") && line.contains("nobody can log in"));
}

/// fail2ban matches this line. It names the address and the account, escaped, and never a password.
#[test]
fn failed_logins_are_reported() {
    let proxy = Proxy::start();
    answer(Client::new(proxy.socks()), b"admin", b"hunter2");
    answer(Client::new(proxy.socks()), b"no\"body\n\xff", b"hunter2");
    answer(Client::new(proxy.socks()), b"admin", b"1234");
    for name in ["admin", "no\"body\\x0a\\xff"] {
        let line = format!("auth failed: service=socks remote=127.0.0.1 user=\"{name}\"");
        proxy.stderr.wait_for(|said| said.ends_with(&line));
    }
    let failures = || proxy.stderr.all().iter().filter(|line| line.contains("auth failed")).count();
    assert_eq!(failures(), 2);
    assert!(!proxy.stderr.all().concat().contains("hunter2"));
}

/// One client's failures cost the others nothing.
#[test]
fn failures_do_not_delay_others() {
    let (server, began) = (Inprocess::start(), Instant::now());
    let denied: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = server.stranger();
            client.say(&[HELLO, &credentials(b"admin", b"wrong")].concat());
            client
        })
        .collect();
    assert_eq!(answer(server.stranger(), b"admin", b"1234"), ACCEPTED);
    for mut client in denied {
        client.hears(FAILED).hears_eof();
    }
    let mut admin = server.admin();
    eventually("all are gone", || admin.metrics()[1] == 0);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// A login is one conversation's: another one begins anew.
#[test]
fn a_login_belongs_to_its_connection() {
    let (proxy, origin) = (Proxy::start(), Origin::echo());
    let tunnel = proxy.tunnel(origin.address);
    let mut other = Client::new(proxy.socks());
    other.say(HELLO).hears(CHOSEN).say(&connect_request(origin.address)).hears(DENIED).hears_eof();
    let mut second = Client::new(proxy.socks());
    second.say(HELLO).hears(CHOSEN).say(&credentials(b"admin", b"1234")).hears(WELCOME);
    drop(tunnel);
}
