//! Clients that vanish, with FIN and with RST, behind every byte of every conversation: nothing is left of
//! them, nothing panics, and everybody else is served.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use support::eventually;
use support::origin::Origin;
use support::proxy::{Proxy, connect};
use support::socks::{HELLO, connect_request, credentials, half_close, reset};

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Exit {
    /// Both directions at once, without reading: RST follows if there was something to read.
    Close,
    /// It says no more and reads to the end.
    HalfClose,
    Reset,
    /// Says no more, then resets.
    HalfCloseAndReset,
}

fn leave(mut stream: TcpStream, exit: Exit) {
    match exit {
        Exit::Close => {}
        Exit::HalfClose => {
            half_close(&stream);
            // The server may have reset it.
            let _ = stream.read_to_end(&mut Vec::new());
        }
        Exit::Reset => reset(stream),
        Exit::HalfCloseAndReset => {
            half_close(&stream);
            reset(stream);
        }
    }
}

/// Says each beginning of `says` and leaves in each way.
fn vanish(server: SocketAddr, says: &[u8]) {
    for cut in 0..=says.len() {
        for exit in [Exit::Close, Exit::HalfClose, Exit::Reset, Exit::HalfCloseAndReset] {
            let mut stream = connect(server);
            stream.write_all(&says[..cut]).expect("it listens");
            leave(stream, exit);
        }
    }
}

#[test]
fn whoever_vanishes_leaves_nothing_behind() {
    let (proxy, origin) = (Proxy::with(&["--linger-timeout", "0.5"]), Origin::echo());
    let mut witness = proxy.tunnel(origin.address);
    let mut admin = proxy.admin();
    let before = proxy.descriptors();
    let login = [HELLO, &credentials(b"admin", b"1234")].concat();
    let tunnel = [&login[..], &connect_request(origin.address), b"payload"].concat();
    vanish(proxy.socks_address(), &tunnel);
    vanish(
        proxy.socks_address(),
        &[&login[..], b"\x05\x09\x00\x01\x7f\x00\x00\x01\x00\x50"].concat(),
    );
    vanish(proxy.socks_address(), &[HELLO, &credentials(b"admin", b"wrong"), b"more"].concat());
    vanish(proxy.socks_address(), b"GET / HTTP/1.1\r\n");
    vanish(proxy.metp_address(), b"HELLO METP/1.0\nAUTH admin 1234\nGET_LOGS\nUSERS\nQUIT\n");
    vanish(proxy.metp_address(), b"HELLO METP/1.0\nAUTH admin 1235\nUSERS\n");
    eventually("all are gone", || admin.metrics()[1] == 1 && proxy.descriptors() == before);
    witness.write_all(b"still there").expect("it is open");
    let mut heard = [0; 11];
    witness.read_exact(&mut heard).expect("it is served");
    assert_eq!(&heard, b"still there");
    let said = proxy.stderr.all();
    assert!(said.iter().all(|line| !line.contains("panic")), "{said:#?}");
}
