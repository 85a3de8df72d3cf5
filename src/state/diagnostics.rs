//! Log messages about clients that are refused, with a limited rate: no client can flood the diagnostics with one
//! kind of line, and the state needed for that is bounded.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use common::episode::Episodes;

use super::client_network::ClientNetwork;
use crate::state::service::Service;

/// Failed logins of one source in one [`FAILURE_WINDOW`] that are logged one by one; the others are logged as a count.
pub const LINES_PER_SOURCE: u64 = 10;

/// The time over which failed logins of one source are counted, from the first of them on.
pub const FAILURE_WINDOW: Duration = Duration::from_secs(1);

/// Sources whose failed logins are counted at once; an IPv6 /64 is one. Failures of further sources are logged one
/// by one: an attacker with that many addresses must not hide other sources from fail2ban.
pub const MAX_FAILURE_SOURCES: usize = 1024;

/// The state of the rate limits.
#[derive(Default)]
pub struct Diagnostics {
    failures: Failures,
    full_addresses: Episodes<ClientNetwork>,
}

/// Logs at level debug that a client was refused or left before its request, and why.
pub fn not_let_in(service: Service, source: SocketAddr, cause: impl fmt::Display) {
    log::debug!("not let in: service={service} remote={source} cause={cause}");
}

impl Diagnostics {
    /// A login of this source has failed. Returns whether it is to be logged; if not, it is counted. Counts that are
    /// due have to be taken by [`counted`](Diagnostics::counted) before.
    pub fn logs_failure(&mut self, source: IpAddr, now: Instant) -> bool {
        self.failures.logs(source, now)
    }

    /// When the next count of failed logins is due.
    pub fn next_count(&self) -> Option<Instant> {
        self.failures.next()
    }

    /// Takes the next count that is due at `now` (`None`: any): the address of the source's latest failure, and how
    /// many failures were not logged. `None`: no further one is due.
    pub fn counted(&mut self, now: Option<Instant>) -> Option<(IpAddr, u64)> {
        self.failures.take(now)
    }

    /// Logs, once in an episode, that an address has reached its limit of connections.
    pub fn address_is_full(&mut self, service: Service, source: IpAddr, now: Instant) {
        if self.full_addresses.begins(source.into(), now) {
            log::info!("{service}: {source} has as many connections as one address may have");
        }
    }
}

/// Recent failed logins by source.
#[derive(Default)]
struct Failures {
    /// By source: the failures since its window began, and the address of the latest.
    counts: HashMap<ClientNetwork, (u64, IpAddr)>,
    /// The beginnings of the windows, oldest first.
    windows: VecDeque<(Instant, ClientNetwork)>,
    /// Sources with failures that were not logged.
    counted_sources: usize,
}

impl Failures {
    fn logs(&mut self, source: IpAddr, now: Instant) -> bool {
        let network = ClientNetwork::from(source);
        if let Some((count, latest)) = self.counts.get_mut(&network) {
            *latest = source;
            *count = count.saturating_add(1);
            self.counted_sources += usize::from(*count == LINES_PER_SOURCE + 1);
            return *count <= LINES_PER_SOURCE;
        }
        if self.counts.len() < MAX_FAILURE_SOURCES {
            self.counts.insert(network, (1, source));
            self.windows.push_back((now, network));
        }
        true
    }

    /// The end of the oldest window, if a count is to be logged.
    fn next(&self) -> Option<Instant> {
        let (began, _) = self.windows.front().filter(|_| self.counted_sources > 0)?;
        began.checked_add(FAILURE_WINDOW)
    }

    fn take(&mut self, now: Option<Instant>) -> Option<(IpAddr, u64)> {
        loop {
            let (began, network) = *self.windows.front()?;
            if now.is_some_and(|now| now.saturating_duration_since(began) < FAILURE_WINDOW) {
                return None;
            }
            self.windows.pop_front();
            let Some((count, latest)) = self.counts.remove(&network) else { continue };
            let untold = count.saturating_sub(LINES_PER_SOURCE);
            if untold > 0 {
                self.counted_sources = self.counted_sources.saturating_sub(1);
                return Some((latest, untold));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0xc000_0200 + number).into()
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn ten_failures_a_second_have_a_line_each_and_the_others_one() {
        let (mut diagnostics, start) = (Diagnostics::default(), Instant::now());
        let lines = (0..57).filter(|_| diagnostics.logs_failure(address(1), start)).count();
        assert_eq!(lines, 10);
        assert!(diagnostics.logs_failure(address(2), start + MS));
        assert_eq!(diagnostics.next_count(), Some(start + FAILURE_WINDOW));
        assert_eq!(diagnostics.counted(Some(start + FAILURE_WINDOW - MS)), None);
        assert_eq!(diagnostics.counted(Some(start + FAILURE_WINDOW)), Some((address(1), 47)));
        assert_eq!(
            (diagnostics.counted(Some(start + FAILURE_WINDOW)), diagnostics.next_count()),
            (None, None)
        );
        // Another second, another ten.
        let later = start + FAILURE_WINDOW * 2;
        assert_eq!(diagnostics.counted(Some(later)), None);
        let lines = (0..11).filter(|_| diagnostics.logs_failure(address(1), later)).count();
        assert_eq!((lines, diagnostics.next_count()), (10, Some(later + FAILURE_WINDOW)));
        // At the end nothing is kept back.
        assert_eq!(diagnostics.counted(None), Some((address(1), 1)));
        assert_eq!(diagnostics.counted(None), None);
        assert!(diagnostics.failures.counts.is_empty());
    }

    /// A client with an IPv6 network has more addresses than can be counted one by one.
    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let (mut diagnostics, start) = (Diagnostics::default(), Instant::now());
        let address = |number: u128| IpAddr::V6((0x2001_0db8 << 96 | number).into());
        let lines =
            (0..3000).filter(|number| diagnostics.logs_failure(address(*number), start)).count();
        assert_eq!(lines, 10);
        assert_eq!(diagnostics.counted(None), Some((address(2999), 2990)));
        let diagnostics = (0..200)
            .filter(|number| diagnostics.full_addresses.begins(address(*number).into(), start));
        assert_eq!(diagnostics.count(), 1);
    }

    /// Each failure has a line, or its place in a count.
    #[test]
    fn no_failure_is_forgotten() {
        let (mut diagnostics, mut now) = (Diagnostics::default(), Instant::now());
        let (mut lines, mut counted) = (0, 0);
        for round in 0..1000 {
            now += MS * 7;
            while let Some((_, count)) = diagnostics.counted(Some(now)) {
                counted += count;
            }
            lines += u64::from(diagnostics.logs_failure(address(round % 3), now));
        }
        while let Some((_, count)) = diagnostics.counted(None) {
            counted += count;
        }
        assert_eq!(lines + counted, 1000);
        assert!(counted > 0);
    }

    #[test]
    fn sources_are_bounded_and_none_is_hidden_by_the_others() {
        let (mut diagnostics, start) = (Diagnostics::default(), Instant::now());
        let many = u32::try_from(MAX_FAILURE_SOURCES).expect("few") * 2;
        assert!((0..many).all(|number| diagnostics.logs_failure(address(number), start)));
        assert_eq!(diagnostics.failures.counts.len(), MAX_FAILURE_SOURCES);
        assert_eq!(diagnostics.failures.windows.len(), MAX_FAILURE_SOURCES);
        assert_eq!(diagnostics.next_count(), None, "nobody has to be woken");
        assert!((0..100).all(|_| diagnostics.logs_failure(address(many), start)));
        assert_eq!(diagnostics.counted(Some(start + FAILURE_WINDOW)), None);
        assert!(diagnostics.logs_failure(address(many), start + FAILURE_WINDOW));
        assert_eq!(diagnostics.failures.counts.len(), 1);
    }
}
