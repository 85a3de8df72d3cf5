//! Rules for destinations (`--rules`), with real sockets and literal bytes.

mod datagrams;
mod examples;
mod live;
mod names;
mod requests;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use support::eventually;
use support::proxy::{Builder, Proxy};
use support::socks::{Client, connect_request};
use tempfile::TempDir;

/// The reply to a request that is not allowed (RFC 1928 section 6).
pub const NOT_ALLOWED: u8 = 2;

/// A file of rules in a directory of its own.
pub struct Rules {
    directory: TempDir,
}

impl Rules {
    pub fn new(text: &str) -> Self {
        let rules = Rules { directory: tempfile::tempdir().expect("a directory") };
        rules.write(text);
        rules
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("rules")
    }

    pub fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("written");
    }

    pub fn text(&self) -> String {
        fs::read_to_string(self.path()).expect("UTF-8")
    }

    pub fn builder(&self) -> Builder {
        Builder::default().args([&PathBuf::from("--rules"), &self.path()])
    }

    /// A proxy with these rules and the account `alice`.
    pub fn proxy(&self) -> Proxy {
        self.builder().args(["-u", "alice:pw"]).start()
    }
}

/// A client that is logged in as alice.
pub fn alice(proxy: &Proxy) -> Client {
    Client::new(proxy.socks()).logged_in("alice", "pw")
}

/// The reply to a CONNECT of a client.
pub fn code(mut client: Client, target: SocketAddr) -> u8 {
    client.say(&connect_request(target)).reply().0
}

/// An address of loopback at this port.
pub fn local(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), port).into()
}

/// The thirteenth field of each line of the access log about this port, once there are so many.
pub fn rules_of(proxy: &Proxy, port: u16, count: usize) -> Vec<String> {
    let port = port.to_string();
    let lines = || {
        let all = proxy.stdout.all();
        let about = |line: &String| line.split('\t').nth(6) == Some(&port);
        all.into_iter().filter(about).collect::<Vec<_>>()
    };
    eventually("the lines are written", || lines().len() >= count);
    let rule = |line: &String| {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(fields.len(), 13, "{line}");
        fields[12].to_owned()
    };
    lines().iter().map(rule).collect()
}
