//! The handshake: which method is chosen, how bytes may be split, how a conversation ends that is none.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use support::origin::Origin;
use support::proxy::Proxy;
use support::socks::{
    CHOSEN, Client, HELLO, WELCOME, connect_request, credentials, half_close, wait_until_read,
};
use support::{SOON, eventually, noise, read_to_end};

/// A proxy that never gives up waiting for a client to close: EOF comes because it has been said, not
/// because time has run out.
fn proxy() -> Proxy {
    Proxy::with(&["--linger-timeout", "0"])
}

fn stranger(proxy: &Proxy) -> Client {
    Client::new(proxy.socks())
}

/// RFC 1928 §3. The client's order does not count, nor what else it offers.
#[test]
fn method_02_is_chosen_wherever_it_stands() {
    let proxy = proxy();
    let all: Vec<u8> = (0..=254).collect();
    for methods in [&b"\x02"[..], b"\x00\x02", b"\x02\x00", b"\x00\x01\x02\x80", b"\x02\x02", &all]
    {
        let hello = [&[5, u8::try_from(methods.len()).expect("255 at most")], methods].concat();
        stranger(&proxy)
            .say(&hello)
            .hears(CHOSEN)
            .say(&credentials(b"admin", b"1234"))
            .hears(WELCOME);
    }
}

/// RFC 1928 §3: `05 FF`, which arrives whole and is followed by EOF and no reset, even though the client
/// has more to say.
#[test]
fn without_method_02_the_answer_is_ff_and_eof() {
    let proxy = proxy();
    let others: Vec<u8> = (0..=255).filter(|method| *method != 2).collect();
    for methods in [&b""[..], b"\x00", b"\x01", b"\xff", b"\x00\x01\x03", &others] {
        let hello = [&[5, u8::try_from(methods.len()).expect("255 at most")], methods].concat();
        for more in [&b""[..], &credentials(b"admin", b"1234"), &noise(100_000, 1)] {
            let mut client = stranger(&proxy);
            client.say(&[&hello, more].concat()).hears(b"\x05\xff").hears_eof();
        }
    }
    proxy.wait_until_idle();
}

/// What a client may send at once: greeting, login, CONNECT and payload.
fn conversation(origin: &Origin) -> (Vec<u8>, usize) {
    let handshake =
        [HELLO, &credentials(b"admin", b"1234"), &connect_request(origin.address)].concat();
    let length = handshake.len();
    ([handshake, b"ping".to_vec()].concat(), length)
}

/// Expects all replies, and the payload back from an echo.
fn hears_all(client: &mut Client) {
    client.hears(CHOSEN).hears(WELCOME);
    assert_eq!(client.reply().0, 0);
    client.hears(b"ping");
}

#[test]
fn everything_may_come_in_one_segment() {
    let (proxy, origin) = (proxy(), Origin::echo());
    let mut client = stranger(&proxy);
    client.say(&conversation(&origin).0);
    hears_all(&mut client);
    client.say(b"more").hears(b"more");
}

#[test]
fn the_handshake_may_be_split_anywhere() {
    let (proxy, origin) = (proxy(), Origin::echo());
    let (bytes, _) = conversation(&origin);
    for split in 1..bytes.len() {
        let mut client = stranger(&proxy);
        client.say(&bytes[..split]);
        wait_until_read(&client.stream);
        client.say(&bytes[split..]);
        hears_all(&mut client);
        half_close(&client.stream);
        client.hears_eof();
    }
}

#[test]
fn the_handshake_may_come_byte_by_byte() {
    let (proxy, origin) = (proxy(), Origin::echo());
    let (bytes, handshake) = conversation(&origin);
    let mut client = stranger(&proxy);
    for byte in &bytes[..handshake] {
        client.say(&[*byte]);
        wait_until_read(&client.stream);
    }
    client.say(&bytes[handshake..]);
    hears_all(&mut client);
}

/// Each answer comes as soon as its message is whole, and not before.
#[test]
fn each_message_is_answered_at_its_last_byte() {
    let (proxy, origin) = (proxy(), Origin::echo());
    let mut client = stranger(&proxy);
    let (request, login) = (connect_request(origin.address), credentials(b"admin", b"1234"));
    let mut say = |message: &[u8], answer: &[u8]| {
        let (last, first) = message.split_last().expect("not empty");
        client.say(first);
        wait_until_read(&client.stream);
        client.stream.set_nonblocking(true).expect("a socket");
        let early = client.stream.read(&mut [0]).expect_err("no answer yet");
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        client.stream.set_nonblocking(false).expect("a socket");
        client.say(&[*last]).hears(answer);
    };
    say(HELLO, CHOSEN);
    say(&login, WELCOME);
    say(&request, b"\x05\x00\x00\x01\x7f\x00\x00\x01");
}

/// The longest greeting and login there can be, with a request and more payload behind them than any
/// buffer for handshakes could hold.
#[test]
fn the_longest_messages_fit() {
    let (name, password) = ([b'n'; 255], [b'p'; 255]);
    let login = [&name[..], b":", &password].concat();
    let login = String::from_utf8(login).expect("ASCII");
    let (proxy, origin) = (Proxy::with(&["-u", &login]), Origin::echo());
    let methods: Vec<u8> = (0..255).collect();
    let payload = noise(10_000, 3);
    let mut client = stranger(&proxy);
    client.say(&[b"\x05\xff", &methods[..]].concat());
    let login = credentials(&name, &password);
    client.say(&[&login, &connect_request(origin.address)[..], &payload].concat());
    half_close(&client.stream);
    client.hears(CHOSEN).hears(WELCOME);
    assert_eq!(client.reply().0, 0);
    assert!(read_to_end(&mut client.stream) == payload);
}

/// A connection of another protocol is closed at its first byte: EOF, no answer, no reset. SOCKS4 has an answer of its
/// own (ways_in/socks4.rs).
#[test]
fn a_first_byte_other_than_05_closes_cleanly() {
    let proxy = proxy();
    for byte in [0x00, 0x01, 0x03, 0x06, 0x16, b'G', 0xff] {
        stranger(&proxy).say(&[byte]).hears_eof();
    }
    let request = b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    stranger(&proxy).say(request).hears_eof();
    stranger(&proxy)
        .say(&[&b"POST / HTTP/1.1\r\n\r\n"[..], &noise(1 << 20, 5)].concat())
        .hears_eof();
    proxy.wait_until_idle();
}

/// A message that can never become whole ends the conversation: EOF is answered by EOF.
#[test]
fn a_client_that_leaves_early_is_let_go() {
    let proxy = proxy();
    let login = credentials(b"admin", b"1234");
    let request = connect_request(([127, 0, 0, 1], 9).into());
    let stages: [(&[&[u8]], &[u8]); 5] = [
        (&[], b""),
        (&[b"\x05\x02\x00"], b""),
        (&[HELLO], b"\x05\x02"),
        (&[HELLO, &login[..8]], b"\x05\x02"),
        (&[HELLO, &login, &request[..9]], b"\x05\x02\x01\x00"),
    ];
    for (said, answers) in stages {
        let mut client = stranger(&proxy);
        client.say(&said.concat());
        half_close(&client.stream);
        client.hears(answers).hears_eof();
    }
    proxy.wait_until_idle();
}

/// The time for the handshake is counted from the connection on, whatever trickles in.
#[test]
fn a_handshake_has_its_time_in_all() {
    let proxy = Proxy::with(&["--handshake-timeout", "0.5"]);
    let began = Instant::now();
    let (mut silent, mut slow) = (stranger(&proxy), stranger(&proxy));
    slow.say(HELLO).hears(CHOSEN).say(b"\x01\xff");
    // It goes on saying its name until it is cut off; a name of 255 bytes would take longer than allowed.
    eventually("the slow client is cut off", || slow.stream.write_all(b"n").is_err());
    assert!(began.elapsed() < SOON);
    silent.hears_eof();
    proxy.wait_until_idle();
}

/// Who has been refused and does not close is left when the time for lingering is over.
#[test]
fn lingering_has_its_time() {
    let proxy = Proxy::with(&["--linger-timeout", "0.3"]);
    let mut silent = stranger(&proxy);
    silent.say(b"\x05\x01\x00").hears(b"\x05\xff").hears_eof();
    proxy.wait_until_idle();
}
