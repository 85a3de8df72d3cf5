//! Descriptors that the process has inherited are none that it can promise to anybody.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use support::origin::Origin;
use support::proxy::{Builder, connect, wait_for_exit};
use support::socks::{HELLO, connect_request, credentials};
use support::{PATIENCE, binary, eventually, exchange, read_exactly};

/// Seven descriptors for each child of this shell, besides the standard streams.
const INHERIT: &str = "exec 3<&0 4<&0 5<&0 6<&0 7<&0 8<&0 9<&0";

/// Whoever is let in gets a tunnel, although a quarter of the descriptors was taken before the start.
#[test]
fn what_the_parent_has_left_open_is_not_promised() {
    // 16 for the process itself, 4 for METP, two for each tunnel.
    for (limits, tunnels) in
        [("-n 40", 10), ("-n 40 && exec 3<&0 4<&0 5<&0 6<&0 7<&0 8<&0 9<&0", 6)]
    {
        let builder = Builder::default().limits(limits).args(["--max-connections", "1000"]);
        let (proxy, echo) = (builder.start(), Origin::echo());
        let mut admin = proxy.admin();
        let limit: usize = admin.info("connections-limit").parse().expect("a number");
        // The parent of this test may have left some open, too.
        assert!((1..=tunnels).contains(&limit), "{limit} with {limits}");
        assert_eq!(admin.info("descriptors-limit"), "40");
        let all = [HELLO, &credentials(b"admin", b"1234")[..], &connect_request(echo.address)[..]];
        let knock = |_| {
            let mut stream = connect(proxy.socks_address());
            stream.write_all(&all.concat()).expect("taken");
            stream
        };
        let mut clients: Vec<TcpStream> = (0..limit + 5).map(knock).collect();
        eventually("it is full", || admin.metrics()[1] == limit as u64);
        // Three more administrators find the place that is kept for them.
        let _others = [proxy.admin(), proxy.admin(), proxy.admin()];
        while !clients.is_empty() {
            assert!(admin.metrics()[1] <= limit as u64);
            let mut tunnel = clients.remove(0);
            assert_eq!(read_exactly(&mut tunnel, 14)[..6], [5, 2, 1, 0, 5, 0], "{limits}");
            exchange(&mut tunnel, 100);
        }
        assert!(proxy.stderr.all().iter().all(|line| !line.contains("os error")));
    }
}

/// The setting, or what the descriptors allow, whichever is less.
#[test]
fn the_limit_that_is_shown_is_the_one_that_admits() {
    let builder = Builder::default().limits("-n 40").args(["--max-connections", "3"]);
    let proxy = builder.start();
    let mut admin = proxy.admin();
    assert_eq!(admin.info("connections-limit"), "3");
    admin.set("max-connections", 1_000_000);
    let affordable: usize = admin.info("connections-limit").parse().expect("a number");
    assert!((1..=10).contains(&affordable), "{affordable}");
    assert_eq!(admin.setting("max-connections"), "1000000");
}

/// With too few it says so, in one line, before it serves anybody.
#[test]
fn too_few_descriptors_are_no_start() {
    for (limits, least) in
        [("ulimit -n 21".to_owned(), 22), (format!("ulimit -n 28 && {INHERIT}"), 29)]
    {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{limits} && exec \"$0\" -p 0 -P 0")]).arg(binary("socks5d"));
        shell.env_remove("PROXY_CTRL_SUPERUSER").env_remove("RUST_LOG").stdin(Stdio::null());
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().expect("there is a shell");
        let status = wait_for_exit(&mut child, PATIENCE);
        let (mut stdout, mut said) = (String::new(), String::new());
        child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("it has ended");
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("it has ended");
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""));
        assert!(said.starts_with("socks5d: too few descriptors: the limit is 2"), "{said:?}");
        assert_eq!(said.matches('\n').count(), 1, "{said:?}");
        let needed = said.split(", and ").nth(1).and_then(|rest| rest.split(' ').next());
        let needed: usize = needed.and_then(|number| number.parse().ok()).expect("a number");
        assert!(needed >= least, "{said:?}");
    }
}
