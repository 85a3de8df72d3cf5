//! The tunnel: half-close, order, reset, back-pressure.

use std::io::Write;

use support::origin::Origin;
use support::proxy::Proxy;
use support::socks::half_close;
use support::{noise, read_to_end};

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
