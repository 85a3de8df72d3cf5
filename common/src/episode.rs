//! Causes that may be met again and again, of which the log gets the first of each episode.

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

#[cfg(test)]
mod tests {
    use super::*;

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
