//! The datagrams' way through an association, in both directions.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::known_targets::KnownTargets;
use super::name_book::Named;
use super::{Association, LARGEST_BATCH};
use crate::proto::socks5::datagram::{Datagram, DatagramError, Destination, Header};
use crate::proto::socks5::{Host, ReplyCode, Target};
use crate::reactor::datagram::{LONGEST_PAYLOAD, Received, Run, Scratch, Sent};
use crate::reactor::endpoint::Stream;
use crate::reactor::listener::canonical;
use crate::socks::Context;
use crate::socks::name::hostname;
use crate::socks::rules;
use crate::state::metrics::DropCause;
use crate::state::protected::{
    datagram_permitted, is_own_port, may_come_from, may_use_local_address,
};
use crate::state::settings::UdpFilter;
use crate::state::{Direction, Transferred};
use metp_protocol::text::ip_literal;

/// Datagrams of the client whose headers are read and judged in one turn. The kernel joins up to 64 datagrams of a
/// client into one message, each with a header of its own, so that a batch can be 2,048 different ones. What is beyond is
/// dropped, as a full buffer would drop it.
const MOST_JUDGED: u32 = 256;
/// After more than these in a turn fewer messages are asked for.
const MANY_JUDGED: u32 = 64;
/// A target with the number of one of the server's own ports counts as much: the kernel is asked for the route.
const ROUTE_COST: u32 = 8;

/// An address of loopback: whether a client may use one decides whether near ends are looked at.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What becomes of a datagram of the client.
enum Fate {
    /// Its payload goes to this target.
    Send(SocketAddr),
    /// It waits until its name has been looked up.
    Waits,
    /// It is dropped.
    Drop(DropCause),
}

/// The header of the last datagram of a batch, and where it leads. A client mostly sends to one target, so that its
/// datagrams begin with equal bytes, and the rules need not be asked again.
#[derive(Default)]
struct LastHeader {
    bytes: Vec<u8>,
    target: Option<SocketAddr>,
}

impl Association {
    /// Relays a batch from the client to targets, of about `allowance` bytes.
    pub(super) fn relay_up<S: Stream>(&mut self, allowance: u64, cx: &mut Context<'_, S>) {
        if allowance == 0 || !self.client_socket.datagrams.readable() {
            return;
        }
        let mut scratch = cx.pool.take_scratch();
        // An error is about a datagram that was sent earlier: nobody listens at the client's port.
        let most = usize::from(self.batch).min(messages(allowance));
        if let Received::Messages = self.client_socket.datagrams.receive(&mut scratch, most) {
            let mut last = LastHeader::default();
            self.judged = 0;
            for slot in 0..scratch.runs() {
                if let Some(run) = scratch.run(slot) {
                    self.relay_run_up(slot, &run, &mut last, &mut scratch, cx);
                }
            }
            self.send_up(&mut scratch, last.target, cx);
            self.batch = match self.judged {
                ..=MANY_JUDGED => self.batch.saturating_mul(2).min(LARGEST_BATCH),
                _ => 1,
            };
        }
        cx.pool.keep_scratch(scratch);
    }

    /// Puts what a slot holds into the outbox, if it is the client's.
    fn relay_run_up<S: Stream>(
        &mut self,
        slot: usize,
        run: &Run,
        last: &mut LastHeader,
        scratch: &mut Scratch,
        cx: &mut Context<'_, S>,
    ) {
        let (source, ports, network) = (canonical(run.source), &cx.pool.ports, &mut *cx.network);
        // Whether an address is this machine's is asked only for a port that a socket for targets has: a client elsewhere
        // may have any.
        let is_own = || {
            let perhaps = ports.is_open_everywhere(source);
            ports.is_open(source) || (perhaps && network.is_local_delivery(source).unwrap_or(true))
        };
        if !self.client.accepts(source, cx.now, is_own) {
            return self.drop_datagrams(DropCause::Stranger, run.datagrams(), cx);
        }
        if run.truncated {
            return self.drop_datagrams(DropCause::Size, 1, cx);
        }
        for range in run.segments() {
            let bytes = scratch.bytes(slot, range.clone());
            if let Some(target) = last.target
                && bytes.starts_with(&last.bytes)
            {
                scratch.push(None, slot, range.start + last.bytes.len()..range.end, target);
                continue;
            }
            if self.judged >= MOST_JUDGED {
                self.drop_datagrams(DropCause::Busy, 1, cx);
                continue;
            }
            self.judged += 1;
            let (header, fate) = self.judge(bytes, cx);
            match fate {
                Fate::Send(target) => {
                    let header = bytes.get(..header).unwrap_or_default();
                    let payload = range.start + header.len()..range.end;
                    last.bytes.clear();
                    last.bytes.extend_from_slice(header);
                    if last.target.is_some_and(|last| last.is_ipv4() != target.is_ipv4()) {
                        self.send_up(scratch, last.target, cx);
                    }
                    last.target = Some(target);
                    scratch.push(None, slot, payload, target);
                }
                Fate::Waits => {}
                Fate::Drop(cause) => self.drop_datagrams(cause, 1, cx),
            }
        }
    }

    /// Reads the header of a datagram and asks the rules. Returns the header's length as well.
    fn judge<S: Stream>(&mut self, bytes: &[u8], cx: &mut Context<'_, S>) -> (usize, Fate) {
        let datagram = match Datagram::parse(bytes) {
            Ok(datagram) => datagram,
            Err(DatagramError::Fragment(_)) => return (0, Fate::Drop(DropCause::Fragment)),
            Err(DatagramError::Malformed) => return (0, Fate::Drop(DropCause::Malformed)),
        };
        let fate = match datagram.destination {
            Destination::Address(target) => self.judge_target(None, canonical(target), cx),
            Destination::Name(name, port) => match hostname(name) {
                None => Fate::Drop(DropCause::Name),
                Some(name) => match ip_literal(name) {
                    Some(ip) => self.judge_target(None, canonical(SocketAddr::new(ip, port)), cx),
                    None => {
                        let payload = bytes.get(datagram.header..).unwrap_or_default();
                        self.judge_name(name, port, payload, cx)
                    }
                },
            },
        };
        (datagram.header, fate)
    }

    /// Whether the client may send to `target`, which is canonical, and has this name in the datagram. If so, it may
    /// answer.
    fn judge_target<S: Stream>(
        &mut self,
        name: Option<&str>,
        target: SocketAddr,
        cx: &mut Context<'_, S>,
    ) -> Fate {
        let named = Target { host: Host::Ip(target.ip()), port: target.port() };
        // What is closed above the rules is closed by none of them.
        if !self.permits(target, cx) || !self.may_leave(target, cx) {
            self.log_target(named, (ReplyCode::NotAllowed, None), cx);
            return Fate::Drop(DropCause::Rules);
        }
        let source = self.client.ip();
        let decision = rules::decide_datagram(&self.request, source, (name, target), cx.shared);
        rules::overrule(&mut self.request, decision, cx.shared);
        if !decision.allow {
            self.log_target(named, (ReplyCode::NotAllowed, decision.line()), cx);
            return Fate::Drop(DropCause::Rules);
        }
        if self.target_socket(target.ip(), cx).is_none() {
            return Fate::Drop(DropCause::Error);
        }
        self.forget_denied(cx);
        self.known.add(target, cx.shared.process.settings.udp.filter, cx.now);
        if cx.shared.process.rules.is_some() {
            // This one was judged, whatever the filter compares.
            self.known.add(target, UdpFilter::Port, cx.now);
        }
        self.log_target(named, (ReplyCode::Succeeded, decision.line()), cx);
        self.latest = Some(target);
        Fate::Send(target)
    }

    fn permits<S: Stream>(&mut self, target: SocketAddr, cx: &mut Context<'_, S>) -> bool {
        let (network, settings) = (&mut *cx.network, &cx.shared.process.settings);
        if is_own_port(target, settings) {
            self.judged += ROUTE_COST;
        }
        let is_local_delivery = |address| network.is_local_delivery(address);
        datagram_permitted(self.client.ip(), target, settings, is_local_delivery)
    }

    /// Whether datagrams to `target` leave from an address that this client may use, as connections have to: what comes
    /// from loopback looks like a client on this machine. A route of type local is enough for that. Asked once for each
    /// address and some minutes.
    fn may_leave<S: Stream>(&mut self, target: SocketAddr, cx: &mut Context<'_, S>) -> bool {
        let settings = &cx.shared.process.settings;
        if may_come_from(self.client.ip(), LOOPBACK, settings) {
            return true;
        }
        let checked = self.checked.get_or_insert_with(|| Box::new(KnownTargets::new(cx.now)));
        if checked.may_answer(target, UdpFilter::Address, cx.now) {
            return true;
        }
        self.judged += ROUTE_COST;
        match cx.network.source_for(target) {
            Ok(near) if !may_come_from(self.client.ip(), near, settings) => false,
            Ok(_) => {
                checked.add(target, UdpFilter::Address, cx.now);
                true
            }
            // There is no way out at all, which sending tells.
            Err(error) => {
                matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH))
            }
        }
    }

    fn judge_name<S: Stream>(
        &mut self,
        name: &str,
        port: u16,
        payload: &[u8],
        cx: &mut Context<'_, S>,
    ) -> Fate {
        let source = self.client.ip();
        let (shared, asked) = (&*cx.shared, (name, port));
        let decision = rules::decide_datagram_name(&self.request, source, asked, shared);
        if !decision.allow {
            rules::overrule(&mut self.request, decision, shared);
            let named = Target { host: Host::Name(name.as_bytes().into()), port };
            self.log_target(named, (ReplyCode::NotAllowed, decision.line()), cx);
            return Fate::Drop(DropCause::Rules);
        }
        let failed = cx.shared.process.settings.names.failed;
        let names = self.names.get_or_insert_default();
        match names.look_up(name, cx.key, cx.dns, cx.now, failed) {
            Named::Addresses(addresses) => {
                let addresses = addresses.to_vec();
                self.judge_addresses(name, (&addresses, port), cx)
            }
            Named::Pending => {
                let dropped = names.hold(name, port, payload);
                self.drop_datagrams(DropCause::Name, dropped, cx);
                Fate::Waits
            }
            Named::Nothing => Fate::Drop(DropCause::Name),
        }
    }

    /// The first address of a name that the client may send to, and that this machine can send to.
    fn judge_addresses<S: Stream>(
        &mut self,
        name: &str,
        (addresses, port): (&[IpAddr], u16),
        cx: &mut Context<'_, S>,
    ) -> Fate {
        let mut fate = Fate::Drop(DropCause::Name);
        for ip in addresses {
            fate = self.judge_target(Some(name), SocketAddr::new(*ip, port), cx);
            if matches!(fate, Fate::Send(_)) {
                break;
            }
        }
        fate
    }

    /// Sends datagrams that have waited for their names, of about `allowance` bytes.
    pub(super) fn send_waiting<S: Stream>(&mut self, allowance: u64, cx: &mut Context<'_, S>) {
        let end = self.request.traffic.up.saturating_add(allowance);
        while self.request.traffic.up < end
            && let Some((datagram, addresses, more)) =
                self.names.as_mut().and_then(|names| names.take_ready(cx.now))
        {
            match self.judge_addresses(&datagram.name, (&addresses, datagram.port), cx) {
                Fate::Drop(_) if more && let Some(names) = &mut self.names => {
                    names.hold_on(datagram);
                }
                Fate::Send(target) => {
                    let mut scratch = cx.pool.take_scratch();
                    scratch.push_copy(&datagram.payload, target);
                    self.send_up(&mut scratch, Some(target), cx);
                    cx.pool.keep_scratch(scratch);
                }
                Fate::Drop(cause) => self.drop_datagrams(cause, 1, cx),
                Fate::Waits => {}
            }
        }
    }

    /// Sends the outbox through the socket for the family of `to`.
    fn send_up<S: Stream>(
        &mut self,
        scratch: &mut Scratch,
        to: Option<SocketAddr>,
        cx: &mut Context<'_, S>,
    ) {
        let Some(to) = to else { return };
        let Some(socket) = self.target_sockets.of_mut(to.ip()) else { return };
        let sent = socket.datagrams.send(scratch);
        self.count(Direction::Up, sent, scratch, cx);
        for (target, errno) in scratch.failures() {
            if matches!(*errno, libc::ENETUNREACH | libc::EHOSTUNREACH)
                && let Some(names) = &mut self.names
            {
                names.unreachable(target.ip());
            }
        }
    }

    /// Relays a batch of each family from targets to the client, of about `allowance` bytes.
    pub(super) fn relay_down<S: Stream>(&mut self, allowance: u64, cx: &mut Context<'_, S>) {
        let end = self.request.traffic.down.saturating_add(allowance);
        self.v6_first = !self.v6_first;
        let order = if self.v6_first { [Family::V6, Family::V4] } else { [Family::V4, Family::V6] };
        for family in order {
            match end.saturating_sub(self.request.traffic.down) {
                0 => return,
                left => self.relay_family_down(family, left, cx),
            }
        }
    }

    fn relay_family_down<S: Stream>(
        &mut self,
        family: Family,
        allowance: u64,
        cx: &mut Context<'_, S>,
    ) {
        let socket = match family {
            Family::V4 => &mut self.target_sockets.v4,
            Family::V6 => &mut self.target_sockets.v6,
        };
        let Some(socket) = socket.as_mut().filter(|socket| socket.datagrams.readable()) else {
            return;
        };
        let mut scratch = cx.pool.take_scratch();
        let most = usize::from(LARGEST_BATCH).min(messages(allowance));
        let received = socket.datagrams.receive(&mut scratch, most);
        if let Received::Messages = received {
            let mut last = None;
            for slot in 0..scratch.runs() {
                if let Some(run) = scratch.run(slot) {
                    self.relay_run_down(slot, &run, &mut last, &mut scratch, cx);
                }
            }
            let sent = self.client_socket.datagrams.send(&mut scratch);
            self.count(Direction::Down, sent, &scratch, cx);
        }
        cx.pool.keep_scratch(scratch);
    }

    /// Puts what a slot holds into the outbox, each datagram with the header of its source, if that may answer. `last`
    /// is the source of the run before, and whether it may.
    fn relay_run_down<S: Stream>(
        &mut self,
        slot: usize,
        run: &Run,
        last: &mut Option<(SocketAddr, bool)>,
        scratch: &mut Scratch,
        cx: &mut Context<'_, S>,
    ) {
        let source = canonical(run.source);
        let passes = match *last {
            Some((known, passes)) if known == source => passes,
            _ => self.may_answer(source, cx),
        };
        *last = Some((source, passes));
        let Some(client) = self.client.get().filter(|_| passes) else {
            return self.drop_datagrams(DropCause::Filtered, run.datagrams(), cx);
        };
        if run.truncated {
            return self.drop_datagrams(DropCause::Size, 1, cx);
        }
        let header = scratch.add_header(Header::new(source).bytes());
        for range in run.segments() {
            scratch.push(Some(header), slot, range, client);
        }
    }

    fn may_answer<S: Stream>(&mut self, source: SocketAddr, cx: &mut Context<'_, S>) -> bool {
        if !may_use_local_address(self.client.ip(), source.ip(), &cx.shared.process.settings) {
            return false;
        }
        self.forget_denied(cx);
        if !self.known.may_answer(source, cx.shared.process.settings.udp.filter, cx.now) {
            return false;
        }
        // Who has not been sent anything has not been judged. The association has done nothing by that, so no rule counts.
        let (request, client) = (&*self.request, self.client.ip());
        cx.shared.process.rules.is_none()
            || self.known.may_answer(source, UdpFilter::Port, cx.now)
            || rules::decide_datagram(request, client, (None, source), cx.shared).allow
    }

    /// When there are other rules, targets that they do not allow may not answer any more. Those that were allowed by
    /// their names are judged again with the next datagram to them.
    fn forget_denied<S: Stream>(&mut self, cx: &Context<'_, S>) {
        let number = cx.shared.process.rules_number;
        if std::mem::replace(&mut self.rules_number, number) == number {
            return;
        }
        let (request, client) = (&*self.request, self.client.ip());
        self.known.retain(|target| {
            rules::decide_datagram(request, client, (None, *target), cx.shared).allow
        });
    }

    /// Counts what has been sent of an outbox, and what has not.
    fn count<S: Stream>(
        &mut self,
        direction: Direction,
        sent: Sent,
        scratch: &Scratch,
        cx: &mut Context<'_, S>,
    ) {
        for (_, errno) in scratch.failures() {
            let cause = match *errno {
                libc::EMSGSIZE => DropCause::Size,
                libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => DropCause::Busy,
                _ => DropCause::Error,
            };
            self.drop_datagrams(cause, 1, cx);
        }
        if sent.datagrams == 0 {
            return;
        }
        self.last = cx.now;
        self.relayed += sent.datagrams;
        let counts = &mut cx.shared.metrics.datagrams;
        *match direction {
            Direction::Up => &mut counts.up,
            Direction::Down => &mut counts.down,
        } += sent.datagrams;
        let moved = Transferred { direction, bytes: sent.payload, now: cx.now };
        let request = &mut *self.request;
        cx.shared.count(&mut request.traffic, &request.guard, moved);
    }
}

/// Messages that may be received under an allowance in bytes: each may be as long as can be, and one of them longer than
/// what is left.
fn messages(allowance: u64) -> usize {
    let whole = allowance / LONGEST_PAYLOAD as u64;
    usize::try_from(whole).unwrap_or(usize::MAX).max(1)
}

/// A family of addresses.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}
