//! UDP ASSOCIATE and BIND while calls fail.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use support::socks::connect_request;
use support::udp::{associate_request, header};

use super::{
    BadEnd, Outcome, PATIENCE, Stage, Stalled, Whole, WrongBytes, connect, ended, hear,
    nothing_more, reply, say, whole,
};

/// How long to wait for a datagram until the next ones are sent.
const TURN: Duration = Duration::from_millis(50);
/// Datagrams sent at once, of equal length, so that the server may join them.
const BURST: u8 = 4;
const LENGTH: usize = 1200;

fn any() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

fn socket() -> Result<UdpSocket, Outcome> {
    let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
        socket.set_read_timeout(Some(TURN))?;
        Ok(socket)
    });
    bound.map_err(|error| ended("a socket", &error))
}

/// The next datagram, if one comes in time.
fn next(socket: &UdpSocket) -> Result<Option<(Vec<u8>, SocketAddr)>, Outcome> {
    let mut bytes = vec![0; 2 * LENGTH];
    match socket.recv_from(&mut bytes) {
        Ok((count, from)) => {
            bytes.truncate(count);
            Ok(Some((bytes, from)))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(ended("a datagram", &error)),
    }
}

/// Whether this is a payload as they are sent.
fn right(payload: &[u8]) -> bool {
    payload.len() == LENGTH && payload.iter().all(|byte| *byte == payload[0])
}

/// Datagrams there and back until a burst is complete. Some may be lost when calls fail, but the association lives, or
/// its control connection ends.
pub fn datagrams(stage: &Stage<'_>) -> Outcome {
    whole(|| {
        let mut control = stage.login()?;
        say(&mut control, &associate_request(any()))?;
        let relay = reply(&mut control)?;
        let (client, target) = (socket()?, socket()?);
        let address = target.local_addr().map_err(|error| ended("a socket", &error))?;
        control.set_nonblocking(true).map_err(|error| ended("options", &error))?;
        let header = header(address);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for number in 0..BURST {
                let datagram = [&header[..], &[number; LENGTH]].concat();
                client.send_to(&datagram, relay).map_err(|error| ended("sending", &error))?;
            }
            while let Some((payload, from)) = next(&target)? {
                if !right(&payload) {
                    return Err(WrongBytes(format!("a datagram of {} bytes", payload.len())));
                }
                target.send_to(&payload, from).map_err(|error| ended("answering", &error))?;
                if payload[0] == BURST - 1 {
                    break;
                }
            }
            let mut back = [false; BURST as usize];
            while let Some((datagram, _)) = next(&client)? {
                let payload = datagram.strip_prefix(&header[..]).filter(|payload| right(payload));
                let Some(payload) = payload else {
                    return Err(WrongBytes(format!("an answer of {} bytes", datagram.len())));
                };
                back[usize::from(payload[0] % BURST)] = true;
                if back == [true; BURST as usize] {
                    return Ok(Whole);
                }
            }
            match control.peek(&mut [0]) {
                Ok(0) => return Err(BadEnd("the association has ended".to_owned())),
                Ok(_) => return Err(WrongBytes("behind a reply".to_owned())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(ended("the control connection", &error)),
            }
        }
        Err(Stalled("no datagrams".to_owned()))
    })
}

/// BIND: two replies, then bytes in both directions.
pub fn bind(stage: &Stage<'_>) -> Outcome {
    whole(|| {
        let mut client = stage.login()?;
        let mut request = connect_request(any());
        request[1] = 2;
        say(&mut client, &request)?;
        let listener = reply(&mut client)?;
        let mut peer = connect(SocketAddr::from((Ipv4Addr::LOCALHOST, listener.port())))?;
        let accepted = reply(&mut client)?;
        if peer.local_addr().is_ok_and(|local| local != accepted) {
            return Err(WrongBytes(format!("{accepted} is not the peer")));
        }
        say(&mut client, b"up")?;
        say(&mut peer, b"down")?;
        let got = (hear::<2>(&mut peer, "bytes")?, hear::<4>(&mut client, "bytes")?);
        if got != (*b"up", *b"down") {
            return Err(WrongBytes("in the tunnel".to_owned()));
        }
        drop(peer);
        Ok(nothing_more(&mut client))
    })
}
