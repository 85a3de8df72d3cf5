//! HTTP CONNECT (RFC 9110 section 9.3.6, RFC 9112, RFC 7617) on the port of SOCKS.

use support::origin::{Origin, closed_port, unresponsive};
use support::proxy::Proxy;
use support::socks::{Client, half_close, wait_until_read};
use support::{exchange, read_to_end};

use super::{echoes, figures, line_of, stranger, trusted, trusting, wait_until_left};

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// `admin:1234` and `admin:wrong`.
const GOOD: &str = "Proxy-Authorization: Basic YWRtaW46MTIzNA==\r\n";
const WRONG: &str = "Proxy-Authorization: Basic YWRtaW46d3Jvbmc=\r\n";

fn serving(arguments: &[&str]) -> Proxy {
    trusting(&[&["--http-connect"], arguments].concat())
}

/// A CONNECT with further fields.
pub fn request(target: impl std::fmt::Display, fields: &str) -> Vec<u8> {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{fields}\r\n").into_bytes()
}

/// Expects an answer that ends the connection: its status, one sentence, EOF and no reset.
pub fn answered(client: &mut Client, status: &str) -> String {
    let bytes = read_to_end(&mut client.stream);
    let text = String::from_utf8(bytes).expect("text");
    let (head, sentence) =
        text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {text}");
    let length = format!("\r\nContent-Length: {}\r\n", sentence.len());
    assert!(head.contains(&length) && head.ends_with("\r\nConnection: close"), "{text}");
    assert!(sentence.ends_with(".\n") && sentence.lines().count() == 1, "{text}");
    text
}

/// RFC 9110 section 9.3.6: 200 without content; what is behind the head is for the target.
#[test]
fn a_connect_with_a_login_opens_a_tunnel() {
    let (proxy, echo) = (serving(&[]), Origin::echo());
    let mut client = stranger(&proxy);
    echoes(&mut client, &request(echo.address, GOOD), ESTABLISHED);
    exchange(&mut client.stream, 300_000);
    half_close(&client.stream);
    client.hears_eof();
    let line = line_of(&proxy, "H");
    let port = echo.address.port().to_string();
    assert_eq!(line[1..4], ["admin", "H", "127.0.0.1"], "{line:?}");
    assert_eq!(line[5..8], ["127.0.0.1", &port, "0"], "{line:?}");
    assert_eq!(line[11], "finished");
}

/// RFC 7617 section 2, RFC 9110 section 11.7: without a login, or with a wrong one, 407 and what to log in with.
#[test]
fn strangers_are_asked_for_a_login() {
    let (proxy, echo) = (serving(&["--log-level", "debug"]), Origin::echo());
    let digest = "Proxy-Authorization: Digest username=\"admin\", realm=\"socks5d\"\r\n";
    let unreadable = "Proxy-Authorization: Basic YWRtaW46MTIzNA\r\n";
    let empty = "Proxy-Authorization: Basic YWRtaW46\r\n";
    for (fields, cause) in [
        ("", "no-login"),
        (WRONG, "auth-failed"),
        (empty, "auth-failed"),
        (digest, "bad-login"),
        (unreadable, "bad-login"),
        ("Authorization: Basic YWRtaW46MTIzNA==\r\n", "no-login"),
    ] {
        let mut client = stranger(&proxy);
        let source = client.stream.local_addr().expect("connected");
        let text = answered(client.say(&request(echo.address, fields)), "407");
        assert!(
            text.contains("\r\nProxy-Authenticate: Basic realm=\"socks5d\", charset=\"UTF-8\"\r\n")
        );
        let line = format!("not let in: service=socks remote={source} cause={cause}");
        proxy.stderr.wait_for(|said| said.ends_with(&line));
    }
    // Those that gave a name are lines for fail2ban.
    let failed = "auth failed: service=socks remote=127.0.0.1 user=\"admin\"";
    let count = proxy.stderr.all().iter().filter(|line| line.ends_with(failed)).count();
    assert_eq!((count, proxy.stdout.all().len()), (2, 0));
}

/// Trusted clients need no login; one that they give has to be right.
#[test]
fn trusted_clients_need_none() {
    let (proxy, echo) = (serving(&[]), Origin::echo());
    echoes(&mut trusted(&proxy), &request(echo.address, ""), ESTABLISHED);
    let empty = "Proxy-Authorization: Basic cm9vdDo=\r\n";
    echoes(&mut trusted(&proxy), &request(echo.address, empty), ESTABLISHED);
    wait_until_left(&proxy);
    assert!(figures(&proxy).contains(" total=2 up=20 down=20 "), "{}", figures(&proxy));
    echoes(&mut trusted(&proxy), &request(echo.address, GOOD), ESTABLISHED);
    assert!(figures(&proxy).contains(" total=2 "), "the login counts");
    answered(trusted(&proxy).say(&request(echo.address, WRONG)), "407");
    let digest = "Proxy-Authorization: Digest a\r\n";
    answered(trusted(&proxy).say(&request(echo.address, digest)), "407");
    proxy.admin().set("trust-any-login", "on");
    for fields in [WRONG, digest] {
        echoes(&mut trusted(&proxy), &request(echo.address, fields), ESTABLISHED);
    }
}

/// RFC 9110 section 15: the status tells the cause.
#[test]
fn failures_have_their_status() {
    let timeouts = ["--connect-timeout", "0.3", "--local-for", "all"];
    let proxy = serving(&timeouts);
    let (_held, closed) = closed_port();
    let (_full, deaf) = unresponsive();
    let silent = deaf.local_addr().expect("bound");
    let own = proxy.metp_address();
    for (target, status) in [
        (closed.to_string(), "502"),
        ("no_such-name.invalid:80".to_owned(), "502"),
        (silent.to_string(), "504"),
        (own.to_string(), "403"),
    ] {
        answered(trusted(&proxy).say(&request(&target, "")), status);
    }
    let line = line_of(&proxy, "H");
    assert_eq!((line[7].as_str(), line[11].as_str()), ("5", "refused"), "{line:?}");
}

/// Nothing but CONNECT: plain requests get a sentence that says what this is.
#[test]
fn other_methods_are_not_implemented() {
    let proxy = serving(&[]);
    for head in [
        "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "POST http://example.com/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "OPTIONS * HTTP/1.0\r\n\r\n",
    ] {
        let text = answered(stranger(&proxy).say(head.as_bytes()), "501");
        assert!(text.contains("proxy for SOCKS and for HTTP CONNECT"), "{text}");
    }
    assert_eq!(proxy.stdout.all(), [""; 0]);
}

/// It is off unless it is asked for: strangers get silence, trusted clients the cause, also with a split anywhere.
#[test]
fn off_is_silence_for_strangers() {
    let (proxy, echo) = (trusting(&[]), Origin::echo());
    for fields in ["", GOOD] {
        stranger(&proxy).say(&request(echo.address, fields)).hears_eof();
    }
    stranger(&proxy).say(b"G").hears_eof();
    let text = answered(trusted(&proxy).say(&request(echo.address, GOOD)), "400");
    assert!(text.contains("http-connect"), "{text}");
    for split in 1..9 {
        let head = request(echo.address, "");
        let mut client = trusted(&proxy);
        client.say(&head[..split]);
        if split < 8 {
            wait_until_read(&client.stream);
            client.say(&head[split..]);
        }
        answered(&mut client, "400");
    }
    for other in [&b"SSH-2.0-OpenSSH_9.6\r\n"[..], b"HELLO METP/1.0\n", b"QUITE-ANOTHER-THING"] {
        trusted(&proxy).say(other).hears_eof();
    }
    // Live, for whoever comes then.
    proxy.admin().set("http-connect", "on");
    echoes(&mut stranger(&proxy), &request(echo.address, GOOD), ESTABLISHED);
}

/// A head of 8 KiB and payload behind it, in pieces of any size.
#[test]
fn heads_come_in_pieces() {
    let (proxy, echo) = (serving(&[]), Origin::echo());
    let short = request(echo.address, GOOD);
    for split in 1..short.len() {
        let mut client = stranger(&proxy);
        client.say(&short[..split]);
        wait_until_read(&client.stream);
        client.say(&[&short[split..], b"payload"].concat()).hears(ESTABLISHED).hears(b"payload");
    }
    let field = |length: usize| format!("{GOOD}X: {}\r\n", "x".repeat(length));
    let longest = 8192 - request(echo.address, &field(0)).len();
    for size in [100, 1000, 4096, 9000] {
        let mut client = stranger(&proxy);
        let all = [&request(echo.address, &field(longest))[..], b"payload"].concat();
        for piece in all.chunks(size) {
            client.say(piece);
            wait_until_read(&client.stream);
        }
        client.hears(ESTABLISHED).hears(b"payload");
    }
    let all = request(echo.address, &field(longest + 1));
    answered(stranger(&proxy).say(&all), "400");
    assert_eq!(proxy.admin().info("buffers"), "0", "nothing is kept of them");
}

/// The deadline of the handshake holds for the head, however it drips.
#[test]
fn a_head_has_to_come_in_time() {
    let proxy = serving(&["--handshake-timeout", "0.3"]);
    stranger(&proxy).say(b"CONNECT example.com:443 HTTP/1.1\r\n").hears_eof();
}

/// A client that has half-closed is served as one of SOCKS is.
#[test]
fn a_half_close_passes() {
    let proxy = serving(&[]);
    let origin = Origin::http(b"body".to_vec());
    let mut client = stranger(&proxy);
    client.say(&[&request(origin.address, GOOD)[..], b"GET / HTTP/1.0\r\n\r\n"].concat());
    half_close(&client.stream);
    client.hears(ESTABLISHED);
    assert!(read_to_end(&mut client.stream).ends_with(b"body"));
}
