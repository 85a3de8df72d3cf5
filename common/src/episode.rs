//! Causes that may be met again and again, of which the log gets the first of each episode.
//!
//! Some causes are met by chance, such as a client that comes too often: time alone ends their [`Episode`]. Others are
//! found out by an operation that fails until it succeeds: that is an [`Outage`].

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// An episode is over when its cause has not been met for this long.
pub const QUIET: Duration = Duration::from_secs(10);

/// Episodes of one kind that are known at once. With one more, the one met longest ago is forgotten.
const EPISODES: usize = 128;

/// The episode of a single cause.
#[derive(Clone, Copy, Debug, Default)]
pub struct Episode {
    /// When the cause was last met.
    met: Option<Instant>,
}

impl Episode {
    /// The cause is met at `now`. Returns whether that begins an episode, which the caller logs.
    pub fn begins(&mut self, now: Instant) -> bool {
        self.end_if_quiet(now);
        self.begins_if_ended(now)
    }

    /// Like [`begins`](Episode::begins), for a cause whose absence alone does not end its episode: that takes
    /// [`end_if_quiet`](Episode::end_if_quiet).
    pub fn begins_if_ended(&mut self, now: Instant) -> bool {
        self.met.replace(now).is_none()
    }

    /// Ends an episode whose cause has not been met for [`QUIET`].
    pub fn end_if_quiet(&mut self, now: Instant) {
        self.met = self.met.filter(|met| now.saturating_duration_since(*met) < QUIET);
    }
}

/// The episodes of causes of one kind.
#[derive(Debug)]
pub struct Episodes<K>(HashMap<K, Episode>);

impl<K> Default for Episodes<K> {
    fn default() -> Self {
        Episodes(HashMap::new())
    }
}

impl<K: Copy + Eq + Hash> Episodes<K> {
    /// The cause is met at `now`. Returns whether that begins an episode, which the caller logs.
    pub fn begins(&mut self, cause: K, now: Instant) -> bool {
        if let Some(episode) = self.0.get_mut(&cause) {
            return episode.begins(now);
        }
        if self.0.len() >= EPISODES {
            self.0.retain(|_, episode| {
                episode.end_if_quiet(now);
                episode.met.is_some()
            });
        }
        if self.0.len() >= EPISODES
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, episode)| episode.met).map(|(cause, _)| *cause)
        {
            self.0.remove(&oldest);
        }
        self.0.entry(cause).or_default().begins(now)
    }
}

/// Causes of one outage that are known. What fails in further ways is part of it, and not logged.
const CAUSES: usize = 8;

/// An operation that fails for a while. The episode is over when it has succeeded again and has not failed for
/// [`QUIET`], however rarely it is tried.
#[derive(Clone, Debug)]
pub struct Outage<K> {
    /// What it has failed for since the episode began; empty outside of one.
    causes: Vec<K>,
    /// When it failed last, and whether it has succeeded since then.
    failed: Option<(Instant, bool)>,
}

impl<K> Default for Outage<K> {
    fn default() -> Self {
        Outage { causes: Vec::new(), failed: None }
    }
}

impl<K: PartialEq> Outage<K> {
    /// The operation fails at `now`. Returns whether this cause is a new one in its episode: the caller logs it then.
    pub fn fails(&mut self, cause: K, now: Instant) -> bool {
        if self.failed.is_some_and(|(_, succeeded)| succeeded) && self.is_quiet(now) {
            self.causes.clear();
        }
        self.failed = Some((now, false));
        let begins = self.causes.len() < CAUSES && !self.causes.contains(&cause);
        if begins {
            self.causes.push(cause);
        }
        begins
    }

    /// The operation succeeds at `now`. Returns whether an episode is over, which the caller may log.
    pub fn succeeds(&mut self, now: Instant) -> bool {
        let Some((_, succeeded)) = &mut self.failed else { return false };
        *succeeded = true;
        let is_over = self.is_quiet(now);
        if is_over {
            *self = Outage::default();
        }
        is_over
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.failed.is_some_and(|(failed, _)| now.saturating_duration_since(failed) >= QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Retries that are further apart than [`QUIET`] are one episode.
    #[test]
    fn an_outage_lasts_until_the_operation_succeeds() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!outage.succeeds(start), "there is none yet");
        assert!(outage.fails("disk full", start));
        for seconds in [0, 11, 25, 3600] {
            assert!(!outage.fails("disk full", at(seconds)), "{seconds}");
        }
        assert!(outage.succeeds(at(3700)), "the end");
        assert!(!outage.succeeds(at(3800)), "there is one end");
        assert!(outage.fails("disk full", at(3801)));
    }

    /// Where some succeed and others fail, there is no line for each of them.
    #[test]
    fn successes_between_failures_end_no_outage() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        assert!(outage.fails(1, start));
        let often = QUIET - MS;
        for step in 1..1000 {
            assert!(!outage.succeeds(start + often * step));
            assert!(!outage.fails(1, start + often * step));
        }
        // It succeeds for the last time while it is not quiet yet.
        let last = start + often * 999;
        assert!(!outage.succeeds(last + MS));
        assert!(outage.fails(1, last + QUIET), "another episode");
    }

    #[test]
    fn causes_of_an_outage_are_logged_once_each_and_bounded() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let logged = (0..200).filter(|number| outage.fails(number % 100, start + MS * *number));
        assert_eq!(logged.count(), CAUSES);
        assert!(outage.succeeds(start + QUIET * 2));
        assert!(outage.fails(99, start + QUIET * 2), "none is left of the one before");
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_of_an_episode_begins_it() {
        let (mut episode, now) = (Episode::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        let begins = [0, 0, 1, 9, 18, 28, 29, 40].map(|seconds| episode.begins(at(seconds)));
        assert_eq!(begins, [true, false, false, false, false, true, false, true]);
    }

    #[test]
    fn an_episode_may_need_more_than_quiet_to_end() {
        let (mut episode, now) = (Episode::default(), Instant::now());
        assert!(episode.begins_if_ended(now));
        assert!(!episode.begins_if_ended(now + QUIET * 2));
        episode.end_if_quiet(now + QUIET * 3 - MS);
        assert!(!episode.begins_if_ended(now + QUIET * 3));
        episode.end_if_quiet(now + QUIET * 4);
        assert!(episode.begins_if_ended(now + QUIET * 4));
    }

    #[test]
    fn causes_have_episodes_of_their_own_and_are_bounded() {
        let (mut episodes, start) = (Episodes::<u32>::default(), Instant::now());
        assert!(episodes.begins(1, start));
        assert!(!episodes.begins(1, start + QUIET - MS));
        assert!(!episodes.begins(1, start + QUIET));
        assert!(episodes.begins(1, start + QUIET * 2));
        for cause in 2..1000 {
            let now = start + QUIET * 2 + MS * cause;
            assert!(episodes.begins(cause, now), "no number of causes hides another");
            assert!(!episodes.begins(cause, now));
        }
        assert_eq!(episodes.0.len(), EPISODES);
        assert!(episodes.begins(2000, start + QUIET * 4));
        assert_eq!(episodes.0.len(), 1);
    }
}
