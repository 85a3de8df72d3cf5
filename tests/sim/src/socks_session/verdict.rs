//! What must be so: after each turn of a session, and at its end.

use std::net::SocketAddr;

use super::{HOST, Sim};
use crate::fake::{Making, Peer};
use crate::network::{OWN_PORT, literal, local, possible};
use crate::reference::{Asked, Dialect, Stage, Who, refusal};

/// What opens a tunnel over HTTP.
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// A refusal of SOCKS4.
const REJECTED: &[u8] = &[0, 0x5b, 0, 0, 0, 0, 0, 0];

/// Whether the beginning of a reply is that of a refusal.
pub(super) fn is_refusal(dialect: Dialect, rest: &[u8]) -> bool {
    match dialect {
        Dialect::Socks5 => rest.get(1).is_some_and(|code| *code != 0),
        Dialect::Socks4 => rest.get(1).is_some_and(|code| *code != 0x5a),
        Dialect::Http => rest.get(9).is_some_and(|digit| *digit != b'2'),
    }
}

/// RFC 9112 §4, RFC 9110 §8.6: a refusal of HTTP with one of these statuses, as far as it has come. Returns whether it
/// is whole.
fn check_status(rest: &[u8], allowed: &[u16]) -> bool {
    let text = std::str::from_utf8(rest).expect("ASCII");
    let status = |code: &u16| format!("HTTP/1.1 {code} ");
    let good = |begins: &String| begins.starts_with(text) || text.starts_with(begins);
    assert!(
        allowed.iter().map(status).any(|begins| good(&begins)),
        "{text:?} is none of {allowed:?}"
    );
    let Some((head, sentence)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.expect("a length").parse().expect("a number");
    assert!(sentence.len() <= length && head.ends_with("\r\nConnection: close"), "{text:?}");
    assert_eq!(head.contains("\r\nProxy-Authenticate: Basic "), head.contains(" 407 "), "{text:?}");
    sentence.len() == length && sentence.ends_with(".\n")
}

/// What a refusal may have as its status.
const REFUSALS: [u16; 4] = [403, 502, 503, 504];
const ALL_REFUSALS: [u16; 7] = [400, 403, 407, 501, 502, 503, 504];

impl Sim<'_> {
    /// The client has received what it should, target and client get each other's bytes, and the counters
    /// agree.
    pub(super) fn check(&self) {
        let heard = self.network.heard();
        let client = self.client.borrow();
        let (mut to_target, mut to_client) = (0, 0);
        let answers = heard.answers.len().min(client.received.len());
        let (said, rest) = client.received.split_at(answers);
        assert!(heard.answers.starts_with(said), "{said:?} is no answer: {heard:?}");
        match &heard.stage {
            Stage::Unfinished | Stage::Over => assert_eq!(rest, b"", "said unasked: {heard:?}"),
            Stage::Head => drop(check_status(rest, &[400])),
            Stage::Status(code) => drop(check_status(rest, &[*code])),
            Stage::Unknown => drop(check_status(rest, &ALL_REFUSALS)),
            Stage::Asked(asked) => {
                let target = self.network.target().map(|target| target.borrow());
                let payload = self.check_reply(asked, rest, target.as_deref());
                if let Some(target) = target {
                    let sent = &client.sent[asked.taken..client.read];
                    assert!(sent.starts_with(&target.received), "the target gets other bytes");
                    assert!(target.sent[..target.read].starts_with(payload), "the client does");
                    (to_target, to_client) = (target.received.len(), payload.len());
                    let all = to_target == client.sent.len() - asked.taken;
                    assert!(!target.finished || (client.end_read && all), "EOF before its time");
                    let all = to_client == target.sent.len();
                    let refused = is_refusal(asked.dialect, rest);
                    let over = refused || (target.end_read && all);
                    assert!(!client.finished || over, "EOF before its time");
                    let idle = target.read == to_client && client.read - asked.taken == to_target;
                    if idle && !payload.is_empty() {
                        assert_eq!(self.pool.leased(), 0, "memory for nothing");
                    }
                }
            }
        }
        assert_eq!(self.shared.metrics.bytes(), (to_target + to_client) as u64, "miscounted");
        for target in self.network.live().map(|target| target.borrow()) {
            let known = self.shared.process.to_own_ports.contains_key(&target.near);
            assert_eq!(known, target.far.port() == OWN_PORT, "near ends to own ports are known");
        }
        let head = if self.network.policy.http { 8192 } else { 0 };
        assert!(
            self.pool.leased() <= 2 * self.largest + 4096 + head,
            "more memory than two buffers"
        );
    }

    /// The reply, as far as it has come, and the payload behind it.
    pub(super) fn check_reply<'r>(
        &self,
        asked: &Asked,
        rest: &'r [u8],
        target: Option<&Peer>,
    ) -> &'r [u8] {
        if rest.is_empty() {
            return rest;
        }
        assert_eq!(self.network.accounts.valid.get(), Some(true), "a reply to nobody");
        if asked.dialect == Dialect::Http && rest.len() < 10 {
            assert!(b"HTTP/1.1 ".starts_with(&rest[..rest.len().min(9)]));
            return b"";
        }
        let Some(&code) = rest.get(1) else { return b"" };
        if !is_refusal(asked.dialect, rest) {
            let replies = self.successes(asked, target);
            let fits = |reply: &&Vec<u8>| {
                let shared = rest.len().min(reply.len());
                reply[..shared] == rest[..shared]
            };
            let reply = replies.iter().find(fits);
            let reply = reply.unwrap_or_else(|| panic!("{rest:?} is none of {replies:?}"));
            return rest.get(reply.len()..).unwrap_or_default();
        }
        match asked.dialect {
            Dialect::Socks5 => {}
            Dialect::Socks4 => {
                assert!(REJECTED.starts_with(rest), "{rest:?}");
                return b"";
            }
            Dialect::Http => {
                check_status(rest, &REFUSALS);
                return b"";
            }
        }
        let address = literal(asked);
        let impossible = asked.host.as_ref().is_err_and(|name| !possible(name));
        match code {
            7 => assert!(!matches!(asked.command, 1 | 0xf0 | 0xf1)),
            8 => assert!(asked.command == 0xf1 && address.is_none()),
            4 if impossible => {}
            1 | 4 if matches!(asked.command, 0xf0 | 0xf1) => {}
            2 if address.is_some_and(|ip| !self.network.open && local(ip)) => {}
            1..=6 => assert!(asked.command == 1 && !impossible, "{code} to {asked:?}"),
            _ => panic!("{code} to {asked:?}"),
        }
        assert!(refusal(code).starts_with(rest), "{rest:?} is no refusal");
        b""
    }

    /// What may be said of success.
    fn successes(&self, asked: &Asked, target: Option<&Peer>) -> Vec<Vec<u8>> {
        let written = |address: SocketAddr| match (asked.dialect, address) {
            (Dialect::Http, _) => ESTABLISHED.to_vec(),
            (Dialect::Socks4, SocketAddr::V6(_)) => vec![0, 0x5a, 0, 0, 0, 0, 0, 0],
            (Dialect::Socks4, SocketAddr::V4(v4)) => {
                [&[0, 0x5a][..], &v4.port().to_be_bytes(), &v4.ip().octets()].concat()
            }
            (Dialect::Socks5, SocketAddr::V4(v4)) => {
                [&[5, 0, 0, 1][..], &v4.ip().octets(), &v4.port().to_be_bytes()].concat()
            }
            (Dialect::Socks5, SocketAddr::V6(v6)) => {
                [&[5, 0, 0, 4][..], &v6.ip().octets(), &v6.port().to_be_bytes()].concat()
            }
        };
        match asked.command {
            0xf0 => {
                let known = self.network.offered.iter().map(SocketAddr::ip).chain(literal(asked));
                known.map(|ip| written(SocketAddr::new(ip.to_canonical(), 0))).collect()
            }
            0xf1 => {
                assert!(literal(asked).is_some(), "the name of a name");
                let length = u8::try_from(HOST.len()).expect("short");
                vec![[&[5, 0, 0, 3, length][..], HOST.as_bytes(), &[0, 0]].concat()]
            }
            _ => {
                let target = target.expect("success without a connection");
                assert!(asked.command == 1 && target.making == Making::Made);
                assert_ne!(target.near, target.far, "connected to itself");
                let passes = target.near.ip().is_loopback();
                assert!(self.network.open || !passes, "passes for a client on loopback");
                vec![written(target.near)]
            }
        }
    }

    /// The line of the access log names who was let in, and how the request came.
    pub(super) fn check_who(&self, fields: &[&str]) {
        let heard = self.network.heard();
        let Stage::Asked(asked) = &heard.stage else { panic!("a line without a request") };
        let name = if heard.who == Some(Who::Trusted) { "-" } else { "alice" };
        let kind = match asked.dialect {
            Dialect::Socks5 => "A",
            Dialect::Socks4 => "4",
            Dialect::Http => "H",
        };
        assert_eq!(fields[1..3], [name, kind]);
    }

    /// An end that is not orderly is a reset for both sides; an orderly one is the end of both directions, and
    /// never a reset.
    pub(super) fn check_end(&self, reason: &str) {
        let client = self.client.borrow();
        let target = self.network.target().map(|target| target.borrow());
        let tunnel = client.received.len() > self.network.heard().answers.len() + 1
            && self.shared.metrics.replies[0] == 1;
        let target = target.filter(|target| tunnel && target.making == Making::Made);
        let orderly = matches!(reason, "finished" | "refused");
        assert_eq!(client.aborted, !orderly, "{reason}");
        let any = self.network.targets.iter().any(|target| target.borrow().write_starved);
        let starved = client.write_starved || any;
        assert!(reason != "local-error" || starved, "{reason}");
        if let Some(target) = target {
            assert_eq!(target.aborted, !orderly, "{reason}");
            let ended = client.end_read && target.end_read;
            assert!(!orderly || ended, "{reason}");
        }
    }

    pub(super) fn check_all(&self) {
        let (client, heard) = (self.client.borrow(), self.network.heard());
        if self.disturbed {
            return;
        }
        let accounts = &self.network.accounts;
        let left = accounts.undecided.get() && accounts.asked.get().is_some();
        assert!(!left, "closed before the verdict");
        match heard.stage {
            Stage::Unfinished => {}
            Stage::Over => {
                assert_eq!(client.received, heard.answers);
                assert!(client.finished, "closed without a half-close");
            }
            Stage::Head => {}
            Stage::Status(_) | Stage::Unknown => {
                assert!(check_status(&client.received, &ALL_REFUSALS), "no whole answer");
                assert!(client.finished, "closed without a half-close");
            }
            Stage::Asked(asked) => {
                let rest = &client.received[heard.answers.len()..];
                assert!(rest.len() >= 8, "no whole reply: {rest:?}");
                if asked.dialect == Dialect::Http && is_refusal(asked.dialect, rest) {
                    assert!(check_status(rest, &REFUSALS), "no whole answer");
                }
                if is_refusal(asked.dialect, rest) || asked.command != 1 {
                    assert!(client.finished, "closed without a half-close");
                } else {
                    let target = self.network.target().expect("checked").borrow();
                    assert_eq!(target.received, client.sent[asked.taken..], "payload is missing");
                    // The direction that ends last may leave its EOF to the closing of the socket.
                    assert!(rest.ends_with(&target.sent) && (target.finished || client.finished));
                    let moved = target.received.len() + target.sent.len();
                    assert_eq!(self.shared.metrics.bytes(), moved as u64);
                }
            }
        }
    }
}
