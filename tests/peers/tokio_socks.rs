//! BIND with tokio-socks. Arguments: port of the proxy, user, password.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Listener;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, user, password] = &arguments[..] else { panic!("three arguments") };
    let proxy = SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
    // By address and by name, as its own tests do.
    for target in ["127.0.0.1:0", "localhost:0"] {
        let listener = Socks5Listener::bind_with_password(proxy, target, user, password);
        let listener = listener.await.expect("the first reply");
        let (address, port) = match listener.bind_addr() {
            tokio_socks::TargetAddr::Ip(address) => (address.ip().to_string(), address.port()),
            tokio_socks::TargetAddr::Domain(name, port) => (name.to_string(), port),
        };
        let mut peer = TcpStream::connect((address.as_str(), port)).await.expect("a listener");
        let mut client = listener.accept().await.expect("the second reply");
        client.write_all(b"from the client").await.expect("sent");
        let mut bytes = [0; 15];
        peer.read_exact(&mut bytes).await.expect("received");
        assert_eq!(&bytes, b"from the client");
        peer.write_all(b"from the peer").await.expect("sent");
        drop(peer);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("received");
        assert_eq!(rest, b"from the peer");
    }
}
