//! What is read under a rate, with a clock of the test.

use proptest::prelude::*;

use super::*;

const TURN: u64 = 256 * 1024;

/// Reads as much as may be read, a turn at a time, each so many microseconds; returns what was read until `time` is over.
fn greedy(shaper: &mut Shaper, begin: Instant, time: Duration, steps: &[u64]) -> u64 {
    let (mut now, mut read) = (begin, 0);
    for step in steps.iter().cycle() {
        if now >= begin + time {
            break;
        }
        let bytes = shaper.available(Direction::Down, now).min(TURN);
        if bytes >= LEAST_GRANT {
            shaper.charge(Direction::Down, bytes, now);
            read += bytes;
        }
        now += Duration::from_micros(*step);
    }
    read
}

proptest! {
    #![proptest_config(support::property::config(128))]

    /// From slow rates, where each byte is looked at, to fast ones, where a while passes between looks.
    #[test]
    fn a_greedy_reader_gets_the_rate(
        power in 13_u32..34, steps in prop::collection::vec(1_u64..4000, 1..20),
    ) {
        let rate = NonZeroU64::new(1 << power).expect("not zero");
        let (mut shaper, begin, time) = (Shaper::new(rate), Instant::now(), Duration::from_secs(2));
        let read = greedy(&mut shaper, begin, time, &steps);
        let burst = bytes_in(burst(rate), rate);
        let most = bytes_in(time, rate) + burst + bytes_in(COMPUTED_FOR, rate) + TURN;
        prop_assert!(read <= most, "{read} of {most}");
        // A reader that comes rarely cannot read more than a turn each time.
        let turns = steps.iter().cycle().scan(0, |at, step| {
            *at += step;
            (*at < 2_000_000).then_some(())
        });
        let least = (turns.count() as u64 * TURN).min(bytes_in(time, rate));
        prop_assert!(read + 2 * TURN >= least / 100 * 97, "{read} of {least}");
    }

    /// Whoever reads rarely or in bursts never gets more than the rate and a burst in any while.
    #[test]
    fn no_while_has_more_than_its_rate_and_a_burst(
        power in 20_u32..34, reads in prop::collection::vec((0_u64..200_000, 1_u64..2_000_000), 1..80),
    ) {
        let rate = NonZeroU64::new(1 << power).expect("not zero");
        let (mut shaper, begin) = (Shaper::new(rate), Instant::now());
        let (mut now, mut history) = (begin, Vec::new());
        for (wait, wanted) in reads {
            now += Duration::from_micros(wait);
            let bytes = shaper.available(Direction::Up, now).min(wanted);
            shaper.charge(Direction::Up, bytes, now);
            history.push((now, bytes));
        }
        let slack = bytes_in(burst(rate) + COMPUTED_FOR, rate) + 1024;
        for first in 0..history.len() {
            let mut sum = 0;
            for (at, bytes) in &history[first..] {
                sum += bytes;
                let most = bytes_in(at.duration_since(history[first].0), rate) + slack;
                prop_assert!(sum <= most, "{sum} of {most}");
            }
        }
    }
}

/// What was read while nobody looked is paid for when the rate changes, and what is given back is given back.
#[test]
fn what_was_read_without_a_look_is_paid_for() {
    let rate = |bytes| NonZeroU64::new(bytes).expect("not zero");
    let (mut shaper, now) = (Shaper::new(rate(1 << 30)), Instant::now());
    let burst = shaper.available(Direction::Up, now);
    assert_eq!(burst, bytes_in(super::burst(rate(1 << 30)), rate(1 << 30)));
    shaper.charge(Direction::Up, 1_000_000, now);
    assert_eq!(shaper.available(Direction::Up, now), burst - 1_000_000);
    shaper.refund(Direction::Up, 400_000, now);
    let left = shaper.available(Direction::Up, now);
    assert!(left.abs_diff(burst - 600_000) < 16, "{left}");
    shaper.charge(Direction::Up, left, now);
    assert!(shaper.available(Direction::Up, now) < 16);
    shaper.set_rate(rate(1 << 20));
    assert!(shaper.available(Direction::Up, now) < LEAST_GRANT);
    let later = now + Duration::from_millis(32);
    assert!(
        shaper.available(Direction::Up, later)
            >= bytes_in(Duration::from_millis(31), rate(1 << 20))
    );
}
