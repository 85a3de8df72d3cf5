//! "Is it mine?" as the routing table sees it. What leads to this machine is decided by routes, which a test
//! can only set in a network namespace of its own.

use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};
use support::PATIENCE;
use support::eventually;
use support::namespace::{has_ipv6, in_namespace, index_of, ip, sysctl, try_ip};
use support::proxy::{Builder, Proxy, connect};
use support::socks::{Client, connect_request, name_request};
use support::test_name;

/// The address of an interface, next to loopback.
const NEAR: &str = "10.9.8.7";
/// Addresses of which only a route says that they are this machine's.
const ANY4: &str = "198.51.100.77";
const ANY6: &str = "2001:db8:5::99";

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("a literal"), port)
}

/// An interface with an IPv4 address and no IPv6 address, and routes of type local (AnyIP).
fn any_ip() {
    ip("link add v0 type veth peer name v1");
    if has_ipv6() {
        // eui64 would give each a link-local address.
        sysctl("ipv6.conf.v0.addr_gen_mode", "1");
        sysctl("ipv6.conf.v1.addr_gen_mode", "1");
        ip("-6 route add local 2001:db8:5::/64 dev lo");
    }
    ip("link set v0 up");
    ip("link set v1 up");
    ip("addr add 10.9.8.7/24 dev v0");
    ip("addr add 10.9.8.8/24 dev v0");
    ip("route add local 198.51.100.0/24 dev lo");
}

/// SOCKS and METP on all addresses: whoever gets to an own port gets an answer there.
fn everywhere(options: &[&str]) -> Proxy {
    let metp = if has_ipv6() { "::" } else { "0.0.0.0" };
    Builder::default().args(["-L", metp]).args(options).listen(None).start()
}

/// A SOCKS client that comes from this address.
fn client_from(proxy: &Proxy, source: &str) -> Client {
    let port = proxy.socks_address().port();
    Client::new(connect(at(source, port))).logged_in("admin", "1234")
}

fn ports(proxy: &Proxy) -> [u16; 2] {
    [proxy.socks_address().port(), proxy.metp_address().port()]
}

fn own_ports_are_refused(proxy: &Proxy, address: &str) {
    for port in ports(proxy) {
        // It does lead here: otherwise the refusal would show nothing.
        drop(connect(at(address, port)));
        for source in ["127.0.0.1", NEAR] {
            let reply = client_from(proxy, source).say(&connect_request(at(address, port))).reply();
            assert_eq!(reply.0, 2, "{address} port {port} from {source}");
        }
    }
}

#[test]
fn own_ports_are_refused_where_a_route_alone_makes_an_address_local() {
    in_namespace(
        test_name!("own_ports_are_refused_where_a_route_alone_makes_an_address_local"),
        || {
            any_ip();
            let proxy = everywhere(&["--allow-local"]);
            for address in [ANY4, NEAR, "10.9.8.8"] {
                own_ports_are_refused(&proxy, address);
            }
            if !has_ipv6() {
                return println!("skipped in part: no IPv6");
            }
            own_ports_are_refused(&proxy, ANY6);
            // Again with addresses that the connection may come from.
            ip("-6 addr add 2001:db8:9::7/64 dev v0 nodad");
            ip("-6 addr add fe80::77/64 dev v0 nodad");
            for address in [ANY6, "2001:db8:9::7"] {
                own_ports_are_refused(&proxy, address);
            }
            // RFC 4007 §11. The kernel makes a new address local a moment after it was added.
            let near = SocketAddrV6::new(
                "fe80::77".parse().expect("a literal"),
                ports(&proxy)[0],
                0,
                index_of("v0"),
            );
            eventually("the address leads here", || {
                TcpStream::connect_timeout(&near.into(), PATIENCE).is_ok()
            });
            for port in ports(&proxy) {
                proxy.client().say(&name_request(b"fe80::77%v0", port)).refused(2);
            }
        },
    );
}

/// Rules may look at the protocol and the port of a connection.
#[test]
fn own_ports_are_refused_where_a_rule_alone_makes_an_address_local() {
    in_namespace(
        test_name!("own_ports_are_refused_where_a_rule_alone_makes_an_address_local"),
        || {
            any_ip();
            if !has_ipv6() {
                return println!("skipped: no IPv6");
            }
            ip("-6 addr add 2001:db8:9::7/64 dev v0 nodad");
            let proxy = everywhere(&[]);
            ip("-6 route add local 2001:db8:100::/64 dev lo table 100");
            for port in ports(&proxy) {
                if !try_ip(&format!("-6 rule add ipproto tcp dport {port} lookup 100")) {
                    return println!("skipped: no rules for ports");
                }
            }
            own_ports_are_refused(&proxy, "2001:db8:100::1");
        },
    );
}

/// Such an address can be bound to, which is not the question (ip_nonlocal_bind, as keepalived sets it).
#[test]
fn own_ports_of_the_rest_of_the_world_stay_open_where_any_address_can_be_bound() {
    let name =
        test_name!("own_ports_of_the_rest_of_the_world_stay_open_where_any_address_can_be_bound");
    in_namespace(name, || {
        any_ip();
        ip("route add unreachable 203.0.113.1");
        sysctl("ipv4.ip_nonlocal_bind", "1");
        let mut elsewhere = vec!["203.0.113.1"];
        if has_ipv6() {
            ip("-6 route add unreachable 2001:db8:200::1");
            sysctl("ipv6.ip_nonlocal_bind", "1");
            elsewhere.push("2001:db8:200::1");
        }
        let proxy = everywhere(&[]);
        for address in elsewhere {
            for port in ports(&proxy) {
                proxy.client().say(&connect_request(at(address, port))).refused(4);
            }
        }
        own_ports_are_refused(&proxy, NEAR);
    });
}

/// A connection to an address that is local by a route comes from ::1 where there is no other IPv6 address, and a
/// service that trusts its own machine would take it for one of its own.
#[test]
fn nobody_passes_for_a_client_on_loopback() {
    in_namespace(test_name!("nobody_passes_for_a_client_on_loopback"), || {
        any_ip();
        let mut targets = vec!["192.0.2.65"];
        ip("route add local 192.0.2.64/28 dev lo src 127.0.0.1");
        if has_ipv6() {
            targets.push(ANY6);
        }
        let any: IpAddr = if has_ipv6() { "::" } else { "0.0.0.0" }.parse().expect("a literal");
        let listener = TcpListener::bind((any, 0)).expect("free");
        let port = listener.local_addr().expect("bound").port();
        let proxy = everywhere(&[]);
        let mut admin = proxy.admin();
        let steps = [(None, 2, 0), (Some("nobody"), 2, 2), (Some("all"), 0, 0)];
        for (local_for, near, loopback) in steps {
            if let Some(local_for) = local_for {
                admin.set("local-for", local_for);
            }
            for target in &targets {
                for (source, code) in [(NEAR, near), ("127.0.0.1", loopback)] {
                    let mut client = client_from(&proxy, source);
                    let reply = client.say(&connect_request(at(target, port))).reply();
                    assert_eq!(reply.0, code, "{target} from {source}, {local_for:?}");
                }
            }
        }
    });
}

/// RFC 9293 §3.5: a socket that connects to its own port meets itself.
#[test]
fn a_connection_to_itself_is_refused_and_leaves_the_port_free() {
    in_namespace(test_name!("a_connection_to_itself_is_refused_and_leaves_the_port_free"), || {
        let proxy = Builder::default().args(["--allow-local"]).listen(None).start();
        // The next port that the system chooses is this one.
        sysctl("ipv4.ip_local_port_range", "40000 40000");
        let mut targets = vec!["127.0.0.1", "127.0.0.2", "0.0.0.0"];
        if has_ipv6() {
            targets.extend(["::1", "::"]);
        }
        for (number, target) in (0_u16..).zip(targets) {
            let from = ([127, 0, 0, 1], 39_000 + number).into();
            let mut client = Client::new(connect_from(from, proxy.socks_address()));
            client = client.logged_in("admin", "1234");
            client.say(&connect_request(at(target, 40_000))).refused(5);
            // Without SO_REUSEADDR, as most services: it must not wait for the end of TIME-WAIT.
            let domain = Domain::for_address(at(target, 40_000));
            let service = Socket::new(domain, Type::STREAM, None).expect("a socket");
            service.bind(&at(target, 40_000).into()).unwrap_or_else(|e| panic!("{target}: {e}"));
        }
    });
}

fn connect_from(source: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(source), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("a socket");
    socket.bind(&source.into()).expect("free");
    socket.connect(&to.into()).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Another namespace, which ends when this is dropped.
struct Neighbour(Child);

impl Neighbour {
    fn start() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && echo && exec sleep 1000"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("tried before");
        let mut ready = child.stdout.take().expect("piped");
        support::read_exactly(&mut ready, 1);
        Neighbour(child)
    }

    fn run(&self, words: &str) {
        let space = format!("--net=/proc/{}/ns/net", self.0.id());
        let status = Command::new("nsenter").arg(space).args(["sh", "-c", words]).status();
        assert!(status.expect("nsenter comes with unshare").success(), "{words}");
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The route leads away, and the router sends the connection back to where it came from. Only when it is accepted
/// can be seen whose it is.
#[test]
fn a_connection_that_a_router_sends_back_to_an_own_port_is_reset() {
    in_namespace(
        test_name!("a_connection_that_a_router_sends_back_to_an_own_port_is_reset"),
        || {
            if !has_ipv6() {
                return println!("skipped: no IPv6");
            }
            let router = Neighbour::start();
            for (near, far) in [("v0", "w0"), ("v1", "w1")] {
                ip(&format!("link add {near} type veth peer name {far} netns {}", router.0.id()));
                router.run(&format!("ip link set {far} up"));
                ip(&format!("link set {near} up"));
            }
            ip("-6 addr add 2001:db8:9::7/64 dev v0 nodad");
            ip("-6 addr add 2001:db8:a::7/64 dev v1 nodad");
            router.run("ip -6 addr add 2001:db8:9::1/64 dev w0 nodad");
            router.run("ip -6 addr add 2001:db8:a::1/64 dev w1 nodad");
            router.run("echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
            router.run("ip -6 route add 2001:db8:100::/64 via 2001:db8:a::7");
            ip("-6 route add default via 2001:db8:9::1");
            // What comes in by the second interface is this machine's.
            ip("-6 route add local 2001:db8:100::/64 dev lo table 100");
            ip("-6 rule add iif v1 lookup 100");
            let proxy = everywhere(&["--allow-local", "--log-level", "debug"]);

            // The way is there: another service on all addresses answers.
            let listener = TcpListener::bind("[::]:0").expect("free");
            let other = at("2001:db8:100::1", listener.local_addr().expect("bound").port());
            assert_eq!(proxy.client().say(&connect_request(other)).reply().0, 0, "{other}");

            for port in ports(&proxy) {
                let mut client = proxy.client();
                client.say(&connect_request(at("2001:db8:100::1", port)));
                client.say(b"HELLO METP/1.0\n");
                let answer = read_what_comes(&mut client.stream);
                // Whatever the reply says: nothing comes from an own port.
                assert!(answer.len() <= 22, "{}", String::from_utf8_lossy(&answer));
            }
            for service in ["socks", "metp"] {
                let word = format!(" service={service} ");
                proxy
                    .stderr
                    .wait_for(|line| line.contains(&word) && line.ends_with(" cause=own-port"));
            }
        },
    );
}

fn read_what_comes(stream: &mut TcpStream) -> Vec<u8> {
    use std::io::Read;
    let mut all = Vec::new();
    let mut piece = [0; 256];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return all,
            Ok(count) => all.extend(&piece[..count]),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                return all;
            }
        }
    }
}
