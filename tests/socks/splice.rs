//! Bulk transfers go through pipes, small ones do not, and nobody can tell from the bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use support::origin::Origin;
use support::proxy::Proxy;
use support::socks::{half_close, reset};
use support::{eventually, noise, read_exactly, read_to_end};

const MIB: usize = 1 << 20;

/// A tunnel, both of its ends.
fn both_ends(proxy: &Proxy) -> (TcpStream, TcpStream) {
    let (sender, receiver) = mpsc::channel();
    let origin = Origin::new(move |stream| drop(sender.send(stream)));
    let client = proxy.tunnel(origin.address);
    let server = receiver.recv_timeout(support::PATIENCE).expect("connected");
    (client, server)
}

/// A proxy, and how many ends of pipes it has when it does not splice.
fn start() -> (Proxy, usize) {
    let proxy = Proxy::start();
    let pipes = proxy.pipe_ends();
    (proxy, pipes)
}

/// Sends 16 MiB; the reader takes and compares them, and sees that the proxy uses a pipe.
fn streams(
    (proxy, pipes): (&Proxy, usize),
    sender: &mut TcpStream,
    reader: &mut TcpStream,
    seed: u64,
) {
    let sent = noise(16 * MIB, seed);
    let expected = sent.clone();
    let (mut writer, mut taker) =
        (sender.try_clone().expect("a socket"), reader.try_clone().expect("a socket"));
    let writing = thread::spawn(move || writer.write_all(&sent).expect("taken"));
    // With the reader still, full pieces gather; then they are taken.
    let mut got = read_exactly(&mut taker, MIB);
    eventually("a pipe is in use", || {
        got.extend(read_exactly(&mut taker, 65536.min(expected.len() - got.len())));
        proxy.pipe_ends() > pipes || got.len() == expected.len()
    });
    assert!(proxy.pipe_ends() > pipes, "copied to the end");
    got.extend(read_exactly(&mut taker, expected.len() - got.len()));
    assert!(got == expected, "other bytes");
    writing.join().expect("sent");
}

#[test]
fn a_tunnel_changes_over_in_mid_stream_and_back() {
    let (proxy, pipes) = start();
    let (mut client, mut server) = both_ends(&proxy);
    let ping = |client: &mut TcpStream, server: &mut TcpStream| {
        client.write_all(b"ping").expect("taken");
        assert_eq!(read_exactly(server, 4), b"ping");
        server.write_all(b"pong").expect("taken");
        assert_eq!(read_exactly(client, 4), b"pong");
    };
    ping(&mut client, &mut server);
    assert_eq!(proxy.pipe_ends(), pipes, "small messages need no pipe");
    streams((&proxy, pipes), &mut server, &mut client, 1);
    ping(&mut client, &mut server);
    streams((&proxy, pipes), &mut client, &mut server, 2);
    ping(&mut client, &mut server);
    assert_eq!(proxy.metrics()[2], 2 * 16 * MIB as u64 + 3 * 8);
    // Pipes that nobody needs are closed, although the tunnel stays.
    eventually("all pipes are closed", || proxy.pipe_ends() == pipes);
    ping(&mut client, &mut server);
}

#[test]
fn half_close_follows_what_is_in_the_pipe() {
    let (proxy, pipes) = start();
    for upload in [false, true] {
        let (client, server) = both_ends(&proxy);
        let (mut sender, mut reader) = if upload { (client, server) } else { (server, client) };
        streams((&proxy, pipes), &mut sender, &mut reader, 3);
        let tail = noise(3 * MIB, 4);
        let sent = tail.clone();
        let writing = thread::spawn(move || {
            sender.write_all(&sent).expect("taken");
            half_close(&sender);
            sender
        });
        assert!(read_to_end(&mut reader) == tail);
        reader.write_all(b"the other way is open").expect("taken");
        let mut sender = writing.join().expect("sent");
        drop(reader);
        assert_eq!(read_to_end(&mut sender), b"the other way is open");
    }
}

/// A slow reader holds up its own sender and nobody else, and loses nothing.
#[test]
fn a_slow_reader_gets_every_byte() {
    let (proxy, _) = start();
    let (mut client, mut server) = both_ends(&proxy);
    SockRef::from(&client).set_recv_buffer_size(16 * 1024).expect("a socket");
    let sent = noise(12 * MIB, 5);
    let expected = sent.clone();
    let writing = thread::spawn(move || server.write_all(&sent).expect("taken"));
    let mut got: Vec<u8> = Vec::new();
    let mut sip = [0; 40_000];
    while got.len() < expected.len() {
        let count = client.read(&mut sip).expect("more to come");
        got.extend(&sip[..count]);
        if got.len() < MIB {
            thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(got == expected);
    writing.join().expect("sent");
    assert_eq!(read_to_end(&mut client), b"");
}

/// What is in a pipe when its tunnel breaks is lost with the pipe: the next tunnel must not get it.
#[test]
fn a_reset_takes_the_pipe_along() {
    let (proxy, pipes) = start();
    let sockets = proxy.sockets();
    for broken in 0..6 {
        let (client, server) = both_ends(&proxy);
        let (mut sender, reader) =
            if broken % 2 == 0 { (client, server) } else { (server, client) };
        sender.set_write_timeout(Some(Duration::from_millis(300))).expect("a socket");
        // Nobody reads: buffers and pipe fill up.
        while sender.write_all(&[0xbb; 65536]).is_ok() {}
        if broken < 3 {
            reset(sender);
            drop(reader);
        } else {
            reset(reader);
            drop(sender);
        }
        eventually("the tunnel is gone", || proxy.sockets() == sockets);
        let (mut client, mut server) = both_ends(&proxy);
        streams((&proxy, pipes), &mut server, &mut client, broken);
        drop((client, server));
        eventually("the tunnel is gone", || proxy.sockets() == sockets);
    }
    eventually("all pipes are closed", || proxy.pipe_ends() == pipes);
}

/// METP section 5.5: below 64 KiB the administrator wants small pieces, and lanes copy.
#[test]
fn a_small_buffer_size_ends_splicing() {
    let (proxy, pipes) = start();
    let (mut client, mut server) = both_ends(&proxy);
    streams((&proxy, pipes), &mut server, &mut client, 6);
    let mut admin = proxy.admin();
    assert_eq!(admin.command("CHANGE-BUFFER 65535"), "200 OK");
    eventually("idle pipes are closed", || proxy.pipe_ends() == pipes);
    let sent = noise(8 * MIB, 7);
    let expected = sent.clone();
    let mut writer = server.try_clone().expect("a socket");
    let writing = thread::spawn(move || writer.write_all(&sent).expect("taken"));
    for chunk in expected.chunks(MIB) {
        assert!(read_exactly(&mut client, chunk.len()) == chunk);
        assert_eq!(proxy.pipe_ends(), pipes, "no pipe below 64 KiB");
    }
    writing.join().expect("sent");
    assert_eq!(admin.command("CHANGE-BUFFER 65536"), "200 OK");
    streams((&proxy, pipes), &mut server, &mut client, 8);
}

/// Stops the proxy while `send` is at work, so that all of it is there before the proxy looks.
fn at_once(proxy: &Proxy, send: impl FnOnce()) {
    proxy.signal(libc::SIGSTOP);
    send();
    proxy.signal(libc::SIGCONT);
}

/// RFC 9293 section 3.8.5: a read stops at urgent data. Nothing may stall or end there, and the urgent byte
/// stays in its place.
#[test]
fn urgent_data_stops_neither_reads_nor_splicing() {
    let (proxy, pipes) = start();
    for (streaming, ends) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut client, mut server) = both_ends(&proxy);
        if streaming {
            streams((&proxy, pipes), &mut client, &mut server, 9);
        }
        let (before, after) = (noise(100_000, 10), noise(100_000, 11));
        at_once(&proxy, || {
            client.write_all(&before).expect("taken");
            SockRef::from(&client).send_out_of_band(b"!").expect("taken");
            client.write_all(&after).expect("taken");
            if ends {
                half_close(&client);
            }
        });
        let expected = [&before[..], b"!", &after[..]].concat();
        let got = read_exactly(&mut server, expected.len());
        assert!(got == expected, "streaming {streaming}, ends {ends}");
        if !ends {
            client.write_all(b"more").expect("taken");
            assert_eq!(read_exactly(&mut server, 4), b"more");
            half_close(&client);
        }
        assert_eq!(read_to_end(&mut server), b"");
    }
}

/// Linux drops an unread urgent byte when the next one comes, unless SO_OOBINLINE is set before. Clients have it
/// from the listener, whatever comes first.
#[test]
fn each_of_several_urgent_bytes_of_a_client_stays_in_its_place() {
    let (proxy, _) = start();
    for before in [&b""[..], b"bytes before"] {
        let (client, mut server) = both_ends(&proxy);
        at_once(&proxy, || {
            let mut writer = &client;
            writer.write_all(before).expect("taken");
            for byte in [b"1", b"2", b"3"] {
                SockRef::from(&client).send_out_of_band(byte).expect("taken");
            }
            writer.write_all(b"after").expect("taken");
            half_close(&client);
        });
        assert_eq!(read_to_end(&mut server), [before, b"123after"].concat());
    }
}
