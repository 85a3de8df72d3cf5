//! The open tunnel: order, half-close, early answers, resets, exact counts.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use socket2::SockRef;
use socks5d::reactor::tcp_state::unacknowledged;
use support::origin::Origin;
use support::proxy::Proxy;
use support::socks::{half_close, reset};
use support::{PATIENCE, eventually, noise, read_exactly, read_to_end, read_to_reset};

const MIB: usize = 1 << 20;

/// An origin that hands its connections over to the test, which then plays the server itself.
fn scripted_origin() -> (Origin, Receiver<TcpStream>) {
    let (hand_over, connections) = mpsc::channel();
    let origin = Origin::new(move |stream| {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        // The test may be over.
        let _ = hand_over.send(stream);
    });
    (origin, connections)
}

/// A tunnel with both of its ends: client and server.
fn both_ends(proxy: &Proxy) -> (TcpStream, TcpStream) {
    let (origin, connections) = scripted_origin();
    let client = proxy.tunnel(origin.address);
    (client, connections.recv_timeout(PATIENCE).expect("the tunnel leads there"))
}

/// Writes until the stream takes no more for a while: everything on the way is full.
fn stuff(mut stream: &TcpStream) -> usize {
    stream.set_write_timeout(Some(std::time::Duration::from_millis(200))).expect("a socket");
    let (bytes, mut count) = (vec![b'x'; 65536], 0);
    loop {
        match stream.write(&bytes) {
            Ok(taken) => count += taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            Err(error) => panic!("the stream is open: {error}"),
        }
    }
}

/// Reads to the end, whether that is EOF or a reset.
fn read_until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("never closed: {error}"),
    }
    bytes
}

/// Waits until the peer's kernel has all that was written.
fn until_delivered(stream: &TcpStream) {
    let queued = || unacknowledged(stream.as_fd()).expect("a socket");
    eventually("all is delivered", || queued() == 0);
}

#[test]
fn bytes_pass_and_half_close_follows_them() {
    let (proxy, origin) = (Proxy::start(), Origin::echo());
    let mut tunnel = proxy.tunnel(origin.address);
    let sent = noise(100_000, 7);
    tunnel.write_all(&sent).expect("taken");
    half_close(&tunnel);
    assert!(read_to_end(&mut tunnel) == sent);
    assert_eq!(proxy.metrics()[2], 200_000);
}

#[test]
fn after_the_client_half_closes_the_answer_still_comes() {
    let proxy = Proxy::start();
    let (mut client, mut server) = both_ends(&proxy);
    let answer = noise(3 * MIB, 1);
    client.write_all(b"question").expect("taken");
    half_close(&client);
    assert_eq!(read_to_end(&mut server), b"question");
    let sent = answer.clone();
    let sender = thread::spawn(move || server.write_all(&sent).expect("taken"));
    assert!(read_to_end(&mut client) == answer);
    sender.join().expect("sent");
    let line = proxy.stdout.wait_for(|line| line.ends_with("\tfinished"));
    assert!(line.contains("\t0\t8\t3145728\t"), "{line}");
}

#[test]
fn after_the_server_half_closes_the_client_may_go_on() {
    let proxy = Proxy::start();
    let (mut client, mut server) = both_ends(&proxy);
    server.write_all(b"banner").expect("taken");
    half_close(&server);
    assert_eq!(read_to_end(&mut client), b"banner");
    let upload = noise(3 * MIB, 2);
    let sent = upload.clone();
    let sender = thread::spawn(move || client.write_all(&sent).expect("taken"));
    assert!(read_to_end(&mut server) == upload);
    sender.join().expect("sent");
    let line = proxy.stdout.wait_for(|line| line.ends_with("\tfinished"));
    assert!(line.contains("\t0\t3145728\t6\t"), "{line}");
}

#[test]
fn both_may_half_close_at_once() {
    let proxy = Proxy::start();
    let (client, server) = both_ends(&proxy);
    let side = |mut stream: TcpStream, seed: u64, others: u64| {
        thread::spawn(move || {
            let mut writer = stream.try_clone().expect("a descriptor");
            let sender = thread::spawn(move || {
                writer.write_all(&noise(2 * MIB, seed)).expect("taken");
                half_close(&writer);
            });
            assert!(read_to_end(&mut stream) == noise(2 * MIB, others));
            sender.join().expect("sent");
        })
    };
    let sides = [side(client, 3, 4), side(server, 4, 3)];
    for side in sides {
        side.join().expect("intact");
    }
    proxy.wait_until_idle();
    assert_eq!(proxy.metrics(), [1, 0, 4 << 20]);
}

/// The sender is gone long before the reader has read half of it.
#[test]
fn what_is_buffered_arrives_before_eof() {
    let proxy = Proxy::start();
    for upload in [false, true] {
        let (client, server) = both_ends(&proxy);
        let (mut sender, mut reader) = if upload { (client, server) } else { (server, client) };
        let sent = noise(5 * MIB, 5);
        let expected = sent.clone();
        SockRef::from(&reader).set_recv_buffer_size(16 * 1024).expect("a socket");
        let sender = thread::spawn(move || sender.write_all(&sent).expect("taken"));
        for (number, chunk) in expected.chunks(9_999).enumerate() {
            assert!(read_exactly(&mut reader, chunk.len()) == chunk, "chunk {number}");
        }
        assert_eq!(read_to_end(&mut reader), b"");
        sender.join().expect("sent");
    }
}

/// A server answers and is gone while the client is still sending, so that RST comes behind the answer.
/// The answer must survive, all of it: also what is still in the proxy and its kernel. How it ends cannot be told
/// here, since the error of a reset comes once, and the upload may take it.
fn answer_survives(go: fn(TcpStream)) {
    let proxy = Proxy::start();
    let (mut client, mut server) = both_ends(&proxy);
    let both_open = proxy.sockets();
    let answer = noise(MIB / 2, 6);
    server.write_all(&answer).expect("the kernel holds it");
    let mut upload = client.try_clone().expect("a descriptor");
    let uploading = thread::spawn(move || while upload.write_all(&[b'u'; 65536]).is_ok() {});
    read_exactly(&mut server, 100_000);
    until_delivered(&server);
    go(server);
    eventually("the proxy has closed the server's side", || proxy.sockets() < both_open);
    let received = read_until_closed(&mut client);
    assert!(received == answer, "{} of {} bytes arrived", received.len(), answer.len());
    // After a reset there is nothing to shut down.
    let _ = client.shutdown(Shutdown::Both);
    uploading.join().expect("it ends with the tunnel");
    let line = proxy.stdout.wait_for(|_| true);
    assert!(line.contains("\t524288\t") && line.ends_with("\ttarget-reset"), "{line}");
}

#[test]
fn an_answer_survives_a_server_that_closes_over_the_upload() {
    answer_survives(drop);
}

#[test]
fn an_answer_survives_a_server_that_resets_behind_it() {
    answer_survives(reset);
}

#[test]
fn an_answer_survives_a_server_that_ends_and_refuses_the_upload() {
    let go = |server: TcpStream| {
        half_close(&server);
        reset(server);
    };
    answer_survives(go);
}

#[test]
fn a_reset_of_the_client_closes_the_server() {
    let proxy = Proxy::start();
    let (client, mut server) = both_ends(&proxy);
    reset(client);
    assert_eq!(read_to_reset(&mut server), b"");
    proxy.stdout.wait_for(|line| line.ends_with("\tclient-reset"));
}

#[test]
fn a_reset_of_the_server_closes_the_client() {
    let proxy = Proxy::start();
    let (mut client, server) = both_ends(&proxy);
    reset(server);
    assert_eq!(read_to_reset(&mut client), b"");
    drop(client);
    proxy.stdout.wait_for(|line| line.ends_with("\ttarget-reset"));
}

/// The client does not read; the proxy waits for it to, and must see the reset all the same.
#[test]
fn a_reset_of_the_client_is_seen_behind_a_full_answer() {
    let proxy = Proxy::start();
    let (client, server) = both_ends(&proxy);
    stuff(&server);
    reset(client);
    proxy.stdout.wait_for(|line| line.ends_with("\tclient-reset"));
    let mut server = server;
    read_to_reset(&mut server);
    proxy.wait_until_idle();
}

/// The client sends more than the server takes, and is gone.
#[test]
fn a_reset_of_the_client_is_seen_behind_a_full_upload() {
    let proxy = Proxy::start();
    let (client, mut server) = both_ends(&proxy);
    stuff(&client);
    reset(client);
    proxy.stdout.wait_for(|line| line.ends_with("\tclient-reset"));
    read_to_reset(&mut server);
}

/// The server takes nothing, and is gone. A client that only sends must hear of it too.
#[test]
fn a_reset_of_the_server_is_seen_behind_a_full_upload() {
    let proxy = Proxy::with(&["--linger-timeout", "0.3"]);
    let (mut client, server) = both_ends(&proxy);
    stuff(&client);
    reset(server);
    assert_eq!(read_to_reset(&mut client), b"");
    eventually("sending fails", || client.write(b"x").is_err());
    proxy.stdout.wait_for(|line| line.ends_with("\ttarget-reset"));
}

/// What the server has said before it went belongs to the client, however late it reads.
#[test]
fn a_reset_of_the_server_comes_behind_a_full_answer() {
    let proxy = Proxy::start();
    let (mut client, server) = both_ends(&proxy);
    let sent = stuff(&server);
    reset(server);
    let received = read_to_reset(&mut client).len();
    assert!(received > 65536 && received <= sent, "{received} of {sent}");
    drop(client);
    proxy.stdout.wait_for(|line| line.ends_with("\ttarget-reset"));
}

#[test]
fn payload_is_counted_exactly() {
    let (proxy, echo) = (Proxy::start(), Origin::echo());
    let mut expected = 0;
    for (number, size) in [0, 1, 17, 65_535, 65_536, 65_537, 1_000_003].into_iter().enumerate() {
        let mut tunnel = proxy.tunnel(echo.address);
        let sent = noise(size, number as u64);
        let mut writer = tunnel.try_clone().expect("a descriptor");
        let bytes = sent.clone();
        let sender = thread::spawn(move || {
            writer.write_all(&bytes).expect("taken");
            half_close(&writer);
        });
        assert!(read_to_end(&mut tunnel) == sent);
        sender.join().expect("sent");
        drop(tunnel);
        proxy.wait_until_idle();
        expected += 2 * size as u64;
        assert_eq!(proxy.metrics(), [number as u64 + 1, 0, expected]);
        let counts = format!("\t0\t{size}\t{size}\t");
        proxy.stdout.wait_for(|line| line.contains(&counts) && line.ends_with("\tfinished"));
    }
    // Handshakes and refusals are not payload.
    let (_held, closed) = support::origin::closed_port();
    proxy.client().say(&support::socks::connect_request(closed)).refused(5);
    assert_eq!(proxy.metrics()[2], expected);
}
