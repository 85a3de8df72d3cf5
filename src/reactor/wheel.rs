//! A timer wheel: thousands of deadlines, constant time for each.
//!
//! The wheel only *asks*: when an alarm is due it returns the item, and the owner checks whether its deadline
//! has really passed. So moving a deadline (each byte of a tunnel does) costs the owner one store and no work
//! here. An alarm is never early, and late by one [`TICK`] at most.

use std::time::{Duration, Instant};

/// The resolution of the wheel.
pub const TICK: Duration = Duration::from_millis(32);

/// Slots of the wheel; one revolution takes 131 s. A deadline further ahead is asked about once a revolution.
const WHEEL_SLOTS: u64 = 4096;

/// The tick at which an alarm was promised. An owner that has armed an earlier alarm meanwhile
/// recognises the older one by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

/// Alarms, each with an item that is returned when it is due.
pub struct Wheel<T> {
    origin: Instant,
    /// The first tick whose alarms have not been returned yet.
    next: u64,
    slots: Vec<Vec<(Tick, T)>>,
    /// One bit for each slot that holds an alarm, so that the next one is found without walking.
    occupied: [u64; (WHEEL_SLOTS / 64) as usize],
}

impl<T> Wheel<T> {
    /// A wheel whose time begins at `now`.
    pub fn new(now: Instant) -> Self {
        Wheel {
            origin: now,
            next: 0,
            slots: std::iter::repeat_with(Vec::new).take(WHEEL_SLOTS as usize).collect(),
            occupied: [0; (WHEEL_SLOTS / 64) as usize],
        }
    }

    /// The tick of `deadline`, rounded up.
    fn tick_of(&self, deadline: Instant) -> u64 {
        let since = deadline.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(since.div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX)
    }

    /// Whether an alarm already promised for `armed` is soon enough for `deadline`.
    pub fn covers(&self, armed: Tick, deadline: Instant) -> bool {
        armed.0 <= self.tick_of(deadline).max(self.next)
    }

    /// Adds an alarm for `item` at `deadline`, or one revolution ahead if that is earlier. Returns its tick.
    pub fn arm(&mut self, deadline: Instant, item: T) -> Tick {
        let furthest = self.next.saturating_add(WHEEL_SLOTS - 1);
        let tick = self.tick_of(deadline).clamp(self.next, furthest);
        let slot = tick % WHEEL_SLOTS;
        if let Some(alarms) = self.slots.get_mut(slot as usize) {
            alarms.push((Tick(tick), item));
        }
        self.mark(slot, true);
        Tick(tick)
    }

    /// When the next alarm is due; `None` if there is none.
    pub fn next_alarm(&self) -> Option<Instant> {
        let distance = (0..=WHEEL_SLOTS / 64).find_map(|words| {
            // Whole words of 64 slots from the current one on; the first is cut to what lies ahead.
            let start = self.next % WHEEL_SLOTS;
            let word = (start / 64 + words) % (WHEEL_SLOTS / 64);
            let mut bits = self.occupied.get(word as usize).copied().unwrap_or(0);
            if words == 0 {
                bits &= u64::MAX << (start % 64);
            }
            let slot = word * 64 + u64::from(bits.trailing_zeros());
            (bits != 0).then_some((slot + WHEEL_SLOTS - start) % WHEEL_SLOTS)
        })?;
        let nanos = TICK.as_nanos().checked_mul(u128::from(self.next + distance))?;
        self.origin.checked_add(Duration::from_nanos(u64::try_from(nanos).ok()?))
    }

    /// Advances the wheel to `now` and appends all alarms that are due to `due`.
    pub fn expire(&mut self, now: Instant, due: &mut Vec<(Tick, T)>) {
        let since = now.saturating_duration_since(self.origin).as_nanos() / TICK.as_nanos();
        let end = u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1);
        // After a long sleep one revolution visits every slot.
        let first = self.next.max(end.saturating_sub(WHEEL_SLOTS));
        for slot in (first..end).map(|tick| tick % WHEEL_SLOTS) {
            if let Some(alarms) = self.slots.get_mut(slot as usize)
                && !alarms.is_empty()
            {
                // The slot frees its memory: 4096 slots would keep what a flood once needed.
                due.append(&mut std::mem::take(alarms));
                self.mark(slot, false);
            }
        }
        self.next = self.next.max(end);
    }

    fn mark(&mut self, slot: u64, occupied: bool) {
        if let Some(word) = self.occupied.get_mut((slot / 64) as usize) {
            match occupied {
                true => *word |= 1 << (slot % 64),
                false => *word &= !(1 << (slot % 64)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn due<T>(wheel: &mut Wheel<T>, now: Instant) -> Vec<T> {
        let mut due = Vec::new();
        wheel.expire(now, &mut due);
        due.into_iter().map(|(_, item)| item).collect()
    }

    #[test]
    fn an_alarm_is_never_early_and_a_tick_late_at_most() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let deadline = start + Duration::from_millis(1000);
        wheel.arm(deadline, "alarm");
        let alarm = wheel.next_alarm().expect("armed");
        assert!(alarm >= deadline && alarm < deadline + TICK);
        assert_eq!(due(&mut wheel, alarm - Duration::from_nanos(1)), [""; 0]);
        assert_eq!(due(&mut wheel, alarm), ["alarm"]);
        assert_eq!(wheel.next_alarm(), None);
    }

    #[test]
    fn a_deadline_in_the_past_is_due_within_a_tick() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        assert_eq!(due(&mut wheel, start + Duration::from_secs(5)), [0; 0]);
        wheel.arm(start, 7);
        let alarm = wheel.next_alarm().expect("armed");
        assert!(alarm <= start + Duration::from_secs(5) + TICK);
        assert_eq!(due(&mut wheel, alarm), [7]);
    }

    #[test]
    fn a_far_deadline_is_asked_about_within_a_turn() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let hour = start + Duration::from_secs(3600);
        let tick = wheel.arm(hour, ());
        assert!(wheel.covers(tick, hour));
        assert!(!wheel.covers(tick, start + Duration::from_secs(1)));
        let alarm = wheel.next_alarm().expect("armed");
        assert!(
            alarm > start + Duration::from_secs(100) && alarm < start + Duration::from_secs(140)
        );
        assert_eq!(due(&mut wheel, start + Duration::from_secs(7200)), [()]);
    }

    proptest! {
        #![proptest_config(support::property::config(256))]

        #[test]
        fn all_alarms_come_in_time(
            steps in prop::collection::vec((0u64..200_000, 0u64..90_000), 1..80),
        ) {
            let start = Instant::now();
            let mut wheel = Wheel::new(start);
            let (mut now, mut pending) = (start, Vec::<Instant>::new());
            for (delay, advance) in steps {
                let deadline = now + Duration::from_millis(delay);
                wheel.arm(deadline, deadline);
                pending.push(deadline);
                let soonest = pending.iter().min().expect("one was pushed");
                let alarm = wheel.next_alarm().expect("one is armed");
                prop_assert!(alarm < (*soonest).max(now) + TICK * 2);
                now += Duration::from_millis(advance);
                for deadline in due(&mut wheel, now) {
                    if deadline > now {
                        wheel.arm(deadline, deadline);
                    } else {
                        let at = pending.iter().position(|other| *other == deadline);
                        pending.swap_remove(at.expect("handed out once"));
                    }
                }
                prop_assert!(pending.iter().all(|deadline| *deadline + TICK * 2 > now));
            }
        }
    }
}
