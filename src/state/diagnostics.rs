//! What is said of clients that do not get in, and how often: nobody can flood the diagnostics with one kind of
//! line, and what has to be remembered for that is bounded.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::network::Network;
use crate::reactor::errno;
use crate::reactor::selector::Service;

/// Failed logins of one source that have a line each, in one [`WINDOW`]; the others share one.
pub const LINES_EACH: u64 = 10;

/// How long failed logins of one source are counted together, from the first of them on.
pub const WINDOW: Duration = Duration::from_secs(1);

/// Sources whose failed logins are counted at once; an IPv6 /64 is one. Those of further sources have a line each:
/// whoever comes from so many addresses must not hide others from programs that read the lines.
pub const SOURCES: usize = 1024;

/// An episode is over when its cause has not been met for this long.
const EPISODE: Duration = Duration::from_secs(10);

/// Episodes of one kind that are known at once. With one more, that which was met least lately is forgotten.
const EPISODES: usize = 128;

/// What has been said lately.
#[derive(Default)]
pub struct Diagnostics {
    failures: Failures,
    full_addresses: Episodes<Network>,
    local_errors: Episodes<Option<i32>>,
}

/// Says that a client has got nowhere, and why, at level debug.
pub fn not_let_in(service: Service, source: SocketAddr, cause: impl fmt::Display) {
    log::debug!("not let in: service={service} remote={source} cause={cause}");
}

impl Diagnostics {
    /// A login of this source has failed. Says whether it has a line of its own; if not, it is counted. What is due
    /// has to be [`counted`](Diagnostics::counted) before.
    pub fn tells_failure(&mut self, source: IpAddr, now: Instant) -> bool {
        self.failures.tells(source, now)
    }

    /// When the next count of failed logins is to be told.
    pub fn next_count(&self) -> Option<Instant> {
        self.failures.next()
    }

    /// The address of the latest failure of the next source whose failed logins have been counted for long enough, and
    /// how many had no line; `None` once there is no other. Without a time all have been counted for long enough.
    pub fn counted(&mut self, now: Option<Instant>) -> Option<(IpAddr, u64)> {
        self.failures.take(now)
    }

    /// A connection was closed because its address has as many as it may have.
    pub fn address_is_full(&mut self, service: Service, source: IpAddr, now: Instant) {
        if self.full_addresses.begins(source.into(), now) {
            log::info!("{service}: {source} has as many connections as one address may have");
        }
    }

    /// A connection could not even be begun. If that is for want of something that this machine lacks, it is told
    /// once for each episode: the client hears no more than `general failure`.
    pub fn cannot_connect(&mut self, target: SocketAddr, error: &std::io::Error, now: Instant) {
        let code = error.raw_os_error();
        let what = match code {
            Some(libc::EADDRNOTAVAIL) => "no free local port or address for a connection",
            // EAGAIN: connect(2) has it for want of local ports, or of room in the table of routes.
            Some(code) if errno::is_shortage(code) || code == libc::EAGAIN => {
                "no resources for a connection"
            }
            _ => return,
        };
        if self.local_errors.begins(code, now) {
            log::info!("{what} to {target}: {error}");
        }
    }
}

/// Causes that are met again and again, and told once.
struct Episodes<K>(HashMap<K, Instant>);

impl<K> Default for Episodes<K> {
    fn default() -> Self {
        Episodes(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash> Episodes<K> {
    /// The cause is met. Says whether that begins an episode.
    fn begins(&mut self, cause: K, now: Instant) -> bool {
        let is_over = |met: Instant| now.saturating_duration_since(met) >= EPISODE;
        if let Some(met) = self.0.get_mut(&cause) {
            let begins = is_over(*met);
            *met = now;
            return begins;
        }
        if self.0.len() >= EPISODES {
            self.0.retain(|_, met| !is_over(*met));
        }
        if self.0.len() >= EPISODES
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, met)| **met).map(|(cause, _)| *cause)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(cause, now);
        true
    }
}

/// Failed logins of late, by source.
#[derive(Default)]
struct Failures {
    /// How many there were since the window of each source began, and the address of the latest.
    counts: HashMap<Network, (u64, IpAddr)>,
    /// When the windows began, the oldest first.
    windows: VecDeque<(Instant, Network)>,
    /// Sources with more than have a line.
    crowded: usize,
}

impl Failures {
    fn tells(&mut self, source: IpAddr, now: Instant) -> bool {
        let network = Network::from(source);
        if let Some((count, latest)) = self.counts.get_mut(&network) {
            *latest = source;
            *count = count.saturating_add(1);
            self.crowded += usize::from(*count == LINES_EACH + 1);
            return *count <= LINES_EACH;
        }
        if self.counts.len() < SOURCES {
            self.counts.insert(network, (1, source));
            self.windows.push_back((now, network));
        }
        true
    }

    /// The end of the oldest window, if any source has a count that is to be told.
    fn next(&self) -> Option<Instant> {
        let (began, _) = self.windows.front().filter(|_| self.crowded > 0)?;
        began.checked_add(WINDOW)
    }

    fn take(&mut self, now: Option<Instant>) -> Option<(IpAddr, u64)> {
        loop {
            let (began, network) = *self.windows.front()?;
            if now.is_some_and(|now| now.saturating_duration_since(began) < WINDOW) {
                return None;
            }
            self.windows.pop_front();
            let Some((count, latest)) = self.counts.remove(&network) else { continue };
            let untold = count.saturating_sub(LINES_EACH);
            if untold > 0 {
                self.crowded = self.crowded.saturating_sub(1);
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
        let (mut told, start) = (Diagnostics::default(), Instant::now());
        let lines = (0..57).filter(|_| told.tells_failure(address(1), start)).count();
        assert_eq!(lines, 10);
        assert!(told.tells_failure(address(2), start + MS));
        assert_eq!(told.next_count(), Some(start + WINDOW));
        assert_eq!(told.counted(Some(start + WINDOW - MS)), None);
        assert_eq!(told.counted(Some(start + WINDOW)), Some((address(1), 47)));
        assert_eq!((told.counted(Some(start + WINDOW)), told.next_count()), (None, None));
        // Another second, another ten.
        let later = start + WINDOW * 2;
        assert_eq!(told.counted(Some(later)), None);
        let lines = (0..11).filter(|_| told.tells_failure(address(1), later)).count();
        assert_eq!((lines, told.next_count()), (10, Some(later + WINDOW)));
        // At the end nothing is kept back.
        assert_eq!(told.counted(None), Some((address(1), 1)));
        assert_eq!(told.counted(None), None);
        assert!(told.failures.counts.is_empty());
    }

    /// A client with a network of IPv6 has addresses beyond number.
    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let (mut told, start) = (Diagnostics::default(), Instant::now());
        let address = |number: u128| IpAddr::V6((0x2001_0db8 << 96 | number).into());
        let lines = (0..3000).filter(|number| told.tells_failure(address(*number), start)).count();
        assert_eq!(lines, 10);
        assert_eq!(told.counted(None), Some((address(2999), 2990)));
        let told =
            (0..200).filter(|number| told.full_addresses.begins(address(*number).into(), start));
        assert_eq!(told.count(), 1);
    }

    /// Each failure has a line, or its place in a count.
    #[test]
    fn no_failure_is_forgotten() {
        let (mut told, mut now) = (Diagnostics::default(), Instant::now());
        let (mut lines, mut counted) = (0, 0);
        for round in 0..1000 {
            now += MS * 7;
            while let Some((_, count)) = told.counted(Some(now)) {
                counted += count;
            }
            lines += u64::from(told.tells_failure(address(round % 3), now));
        }
        while let Some((_, count)) = told.counted(None) {
            counted += count;
        }
        assert_eq!(lines + counted, 1000);
        assert!(counted > 0);
    }

    #[test]
    fn sources_are_bounded_and_none_is_hidden_by_the_others() {
        let (mut told, start) = (Diagnostics::default(), Instant::now());
        let many = u32::try_from(SOURCES).expect("few") * 2;
        assert!((0..many).all(|number| told.tells_failure(address(number), start)));
        assert_eq!(told.failures.counts.len(), SOURCES);
        assert_eq!(told.failures.windows.len(), SOURCES);
        assert_eq!(told.next_count(), None, "nobody has to be woken");
        assert!((0..100).all(|_| told.tells_failure(address(many), start)));
        assert_eq!(told.counted(Some(start + WINDOW)), None);
        assert!(told.tells_failure(address(many), start + WINDOW));
        assert_eq!(told.failures.counts.len(), 1);
    }

    #[test]
    fn an_episode_is_told_once() {
        let (mut episodes, start) = (Episodes::<u32>::default(), Instant::now());
        assert!(episodes.begins(1, start));
        assert!(!episodes.begins(1, start + EPISODE - MS));
        assert!(!episodes.begins(1, start + EPISODE));
        assert!(episodes.begins(1, start + EPISODE * 2));
        for cause in 2..1000 {
            let now = start + EPISODE * 2 + MS * cause;
            assert!(episodes.begins(cause, now), "no number of causes hides another");
            assert!(!episodes.begins(cause, now));
        }
        assert_eq!(episodes.0.len(), EPISODES);
        assert!(episodes.begins(2000, start + EPISODE * 4));
        assert_eq!(episodes.0.len(), 1);
    }
}
