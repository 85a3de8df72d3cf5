//! What is measured: socks5d, other SOCKS5 servers, plain relays, and nothing at all.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::load::client::{NAME, PASSWORD};
use crate::load::{ADDRESSES, Route};
use crate::process::Proxy;
use crate::workload::{Task, Workload};

/// Which program, and how it is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setup {
    /// No proxy at all: what the machine and the load can do.
    Direct,
    Socks5d,
    /// A relay that knows the origin: what a proxy without SOCKS can do.
    Haproxy {
        splice: bool,
    },
    Microsocks,
    /// Without login: it would need an account of the system.
    Danted,
    /// A command line with `{port}` in it, for a SOCKS5 server that takes the benchmark's login.
    Other(String),
}

/// A peer that is there.
#[derive(Clone, Debug)]
pub struct Peer {
    pub name: String,
    setup: Setup,
    program: PathBuf,
}

/// A peer that runs, or none if it is `direct`.
pub struct Running {
    pub route: Route,
    /// The way to the origin of the probes.
    pub probes: Route,
    pub proxy: Option<Proxy>,
    _folder: tempfile::TempDir,
}

/// The peers known by name, in the order of the tables.
pub const KNOWN: &str = "direct,haproxy,haproxy-splice,socks5d,microsocks,danted";

impl Peer {
    /// The peer of this name, or of `NAME=COMMAND`. `Ok(None)`: it is not installed.
    pub fn find(text: &str, socks5d: &Path) -> Result<Option<Self>, String> {
        if let Some((name, command)) = text.split_once('=') {
            let setup = Setup::Other(command.to_owned());
            return Ok(Some(Peer { name: name.to_owned(), setup, program: PathBuf::new() }));
        }
        let (setup, program) = match text {
            "direct" => (Setup::Direct, Some(PathBuf::new())),
            "socks5d" => (Setup::Socks5d, Some(socks5d.to_owned()).filter(|path| path.is_file())),
            "haproxy" => (Setup::Haproxy { splice: false }, installed("haproxy")),
            "haproxy-splice" => (Setup::Haproxy { splice: true }, installed("haproxy")),
            "microsocks" => (Setup::Microsocks, installed("microsocks")),
            "danted" => (Setup::Danted, installed("danted")),
            other => return Err(format!("no such peer: {other:?} (known: {KNOWN})")),
        };
        Ok(program.map(|program| Peer { name: text.to_owned(), setup, program }))
    }

    /// Whether it can do this.
    pub fn can(&self, workload: Workload) -> bool {
        let relays_datagrams = match self.setup {
            Setup::Direct | Setup::Socks5d | Setup::Danted | Setup::Other(_) => true,
            Setup::Haproxy { .. } | Setup::Microsocks => false,
        };
        relays_datagrams || matches!(workload.task, Task::Tunnels(_))
    }

    /// Starts it before an origin on `origin`, and one for probes on `probes`.
    pub fn start(&self, origin: u16, probes: u16, core: Option<usize>) -> io::Result<Running> {
        let folder = tempfile::tempdir()?;
        let [port, port2] = free_ports()?;
        let [address, address2] = [port, port2].map(|p| SocketAddr::from((Ipv4Addr::LOCALHOST, p)));
        let login = Route::Socks { server: address, login: true };
        let program = self.program.to_string_lossy().into_owned();
        let (line, route, probes) = match &self.setup {
            Setup::Direct => {
                let (route, probes) = (Route::Direct, Route::Direct);
                return Ok(Running { route, probes, proxy: None, _folder: folder });
            }
            Setup::Socks5d => {
                let line = format!("-l 127.0.0.1 -p {port} -P 0 -u {NAME}:{PASSWORD}");
                (line, login, login)
            }
            Setup::Microsocks => {
                let line = format!("-i 127.0.0.1 -p {port} -u {NAME} -P {PASSWORD}");
                (line, login, login)
            }
            Setup::Danted => {
                let file = folder.path().join("danted.conf");
                std::fs::write(&file, danted(port, folder.path()))?;
                let open = Route::Socks { server: address, login: false };
                (format!("-f {}", file.display()), open, open)
            }
            Setup::Haproxy { splice } => {
                let file = folder.path().join("haproxy.cfg");
                std::fs::write(&file, haproxy([port, port2], [origin, probes], *splice))?;
                let line = format!("-db -f {}", file.display());
                (line, Route::Relay(address), Route::Relay(address2))
            }
            Setup::Other(command) => (command.replace("{port}", &port.to_string()), login, login),
        };
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if !program.is_empty() {
            words.insert(0, program);
        }
        let proxy = Some(Proxy::start(&words, address, core, folder.path())?);
        Ok(Running { route, probes, proxy, _folder: folder })
    }
}

/// Where PATH, or a folder for administrators' programs, has a program.
fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Two ports that were free a moment ago.
fn free_ports() -> io::Result<[u16; 2]> {
    let [one, two] = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    Ok([one?.local_addr()?.port(), two?.local_addr()?.port()])
}

/// One thread, as socks5d has. Splicing is an option; what haproxy splices by itself is not measured.
fn haproxy(ports: [u16; 2], origins: [u16; 2], splice: bool) -> String {
    let [port, port2] = ports;
    let [origin, probes] = origins;
    let mut text = String::from("global\n  nbthread 1\n  maxconn 9500\n  maxpipes 200\n");
    text.push_str("defaults\n  mode tcp\n  balance roundrobin\n  timeout connect 10s\n");
    text.push_str("  timeout client 300s\n  timeout server 300s\n");
    if splice {
        text.push_str("  option splice-request\n  option splice-response\n");
    }
    let _ = writeln!(text, "listen load\n  bind 127.0.0.1:{port}");
    for last in 1..=ADDRESSES {
        let _ = writeln!(text, "  server origin{last} 127.0.0.{last}:{origin}");
    }
    let _ = writeln!(text, "listen probes\n  bind 127.0.0.1:{port2}");
    let _ = writeln!(text, "  server probe 127.0.0.1:{probes}");
    text
}

fn danted(port: u16, folder: &Path) -> String {
    let log = folder.join("log");
    format!(
        "logoutput: {}\ninternal: 127.0.0.1 port = {port}\nexternal: lo\nsocksmethod: none\n\
         clientmethod: none\nuser.privileged: root\nuser.unprivileged: nobody\n\
         client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}\n\
         socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}\n",
        log.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_found_by_name() {
        let nowhere = Path::new("/nonexistent/socks5d");
        assert!(Peer::find("direct", nowhere).expect("known").is_some());
        assert!(Peer::find("socks5d", nowhere).expect("known").is_none());
        assert!(Peer::find("squid", nowhere).is_err());
        let other = Peer::find("old=/x/socks5d -p {port} -P 0", nowhere).expect("a command");
        assert_eq!(other.map(|peer| peer.name).as_deref(), Some("old"));
    }

    #[test]
    fn haproxy_splices_only_when_told() {
        let [plain, splice] = [false, true].map(|splice| haproxy([1, 2], [3, 4], splice));
        assert!(!plain.contains("splice"));
        assert!(splice.contains("option splice-request\n  option splice-response\n"));
        assert!(plain.contains("mode tcp") && plain.contains("server origin16 127.0.0.16:3\n"));
    }
}
