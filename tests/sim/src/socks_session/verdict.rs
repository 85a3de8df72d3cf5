//! What must be so: after each turn of a session, and at its end.

use std::net::SocketAddr;

use super::Sim;
use crate::fake::{Making, Peer};
use crate::network::{OWN_PORT, literal, local, possible};
use crate::reference::{Asked, Stage, refusal};

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
                    let refused = rest.get(1).is_some_and(|code| *code != 0);
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
        assert!(self.pool.leased() <= 2 * self.largest + 4096, "more memory than two buffers");
    }

    /// The reply, as far as it has come, and the payload behind it.
    pub(super) fn check_reply<'r>(
        &self,
        asked: &Asked,
        rest: &'r [u8],
        target: Option<&Peer>,
    ) -> &'r [u8] {
        let Some(&code) = rest.get(1) else { return b"" };
        assert_eq!(self.network.accounts.valid.get(), Some(true), "a reply to nobody");
        if code == 0 {
            let target = target.expect("success without a connection");
            assert!(asked.command == 1 && target.making == Making::Made);
            assert_ne!(target.near, target.far, "connected to itself");
            let passes = target.near.ip().is_loopback();
            assert!(self.network.open || !passes, "passes for a client on loopback");
            let mut reply = match target.near {
                SocketAddr::V4(near) => [&[5, 0, 0, 1][..], &near.ip().octets()].concat(),
                SocketAddr::V6(near) => [&[5, 0, 0, 4][..], &near.ip().octets()].concat(),
            };
            reply.extend(target.near.port().to_be_bytes());
            let (reply_part, payload) = rest.split_at(rest.len().min(reply.len()));
            assert!(reply.starts_with(reply_part), "{reply_part:?} is no reply");
            return payload;
        }
        let address = literal(asked);
        let impossible = asked.host.as_ref().is_err_and(|name| !possible(name));
        match code {
            7 => assert_ne!(asked.command, 1),
            4 if impossible => {}
            2 if address.is_some_and(|ip| !self.network.open && local(ip)) => {}
            1..=6 => assert!(asked.command == 1 && !impossible, "{code} to {asked:?}"),
            _ => panic!("{code} to {asked:?}"),
        }
        assert!(refusal(code).starts_with(rest), "{rest:?} is no refusal");
        b""
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
            Stage::Asked(asked) => {
                let rest = &client.received[heard.answers.len()..];
                assert!(rest.len() >= 10, "no whole reply: {rest:?}");
                if rest[1] != 0 {
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
