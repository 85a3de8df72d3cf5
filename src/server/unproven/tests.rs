use std::time::Duration;

use super::*;

/// Numbers without a pattern, fixed (xorshift64).
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[derive(Clone, Copy)]
struct Entry {
    number: u64,
    network: ClientNetwork,
    place: Place,
    progress: Progress,
    since: Instant,
}

/// What each unproven session weighs.
fn weights(model: &[Entry]) -> Vec<(Entry, usize)> {
    let (mut networks, mut levels) = (HashMap::new(), [0; 4]);
    for entry in model {
        let (unproven, proven, silent) =
            networks.entry(entry.network).or_insert((0_usize, 0_usize, 0_usize));
        let is_open = usize::from(!entry.place.is_proven());
        *unproven += is_open;
        *proven += 1 - is_open;
        levels[entry.progress as usize] += is_open;
        if entry.progress == Progress::Nothing {
            *silent += is_open;
        }
    }
    let weight = |entry: &Entry| {
        let (unproven, proven, silent) = networks[&entry.network];
        let weight = unproven.saturating_sub(proven);
        let is_silent = entry.progress == Progress::Nothing;
        let weight = if is_silent { weight.min(silent) } else { weight };
        weight * levels[entry.progress as usize]
    };
    let open = model.iter().filter(|entry| !entry.place.is_proven());
    open.map(|entry| (*entry, weight(entry))).collect()
}

/// Against a list that is searched from end to end.
#[test]
fn the_first_candidate_is_of_those_that_weigh_most() {
    let mut noise = Noise(1);
    for networks in [1, 3, 40] {
        let (mut unproven, mut model) = (Unproven::default(), Vec::<Entry>::new());
        let mut now = Instant::now();
        for number in 0..1000 {
            now += Duration::from_millis(1);
            let index = noise.below(model.len().max(1) as u64) as usize;
            let progress = Progress::ALL[noise.below(4) as usize];
            match (noise.below(5), model.get_mut(index)) {
                (0, Some(entry)) if !entry.place.is_proven() => {
                    entry.place = unproven.prove(entry.place).expect("it is there");
                    assert!(entry.place.is_proven());
                }
                (1, Some(entry)) => {
                    unproven.leave(entry.place);
                    model.remove(index);
                }
                (2, Some(entry)) if !entry.place.is_proven() && entry.progress != progress => {
                    unproven.advance(entry.place, progress, now);
                    (entry.progress, entry.since) = (progress, now);
                }
                _ => {
                    let network = ClientNetwork::V4(noise.below(networks) as u32);
                    let place = unproven.enter(Key::unpack(number), network, now).expect("room");
                    let progress = Progress::Nothing;
                    model.push(Entry { number, network, place, progress, since: now });
                }
            }
            let open = weights(&model);
            assert_eq!(unproven.len(), open.len());
            for network in (0..networks).map(|network| ClientNetwork::V4(network as u32)) {
                let here = model.iter().filter(|entry| entry.network == network).count();
                assert_eq!(unproven.open_from(network), here);
            }
            let Some(first) = unproven.candidates(1).next() else {
                assert!(open.is_empty());
                continue;
            };
            let (found, weight) = open
                .iter()
                .find(|(entry, _)| entry.number == first.key.pack())
                .expect("it is open");
            assert_eq!((found.progress, found.since), (first.progress, first.since));
            assert_eq!(open.iter().map(|(_, weight)| weight).max(), Some(weight));
            let mut cell = open
                .iter()
                .map(|(entry, _)| entry)
                .filter(|entry| (entry.network, entry.progress) == (found.network, found.progress));
            assert!(cell.all(|rival| rival.since >= found.since));
        }
        for entry in model {
            unproven.leave(entry.place);
        }
        let Unproven { networks, open, groups, cells, sessions, levels, len } = unproven;
        assert!(networks.is_empty() && open.is_empty() && len == 0, "nothing is left");
        assert!(groups.is_empty() && cells.is_empty() && sessions.is_empty());
        let ByProgress { refused, nothing, greeted, logged_in } = levels;
        for level in [refused, nothing, greeted, logged_in] {
            assert!(level.ranks.is_empty() && level.len == 0);
        }
    }
}

/// Weights without a candidate count against the limit, too.
#[test]
fn a_choice_looks_at_so_many_weights() {
    let (mut unproven, now) = (Unproven::default(), Instant::now());
    let mut number = 0;
    let mut enter = |network: u32, sessions: u32| {
        for _ in 0..sessions {
            number += 1;
            unproven.enter(Key::unpack(number), ClientNetwork::V4(network), now).expect("room");
        }
        unproven.len()
    };
    // Four that weigh 5, 4, 3 and 2, and behind them many that weigh 1.
    for weight in 2..=5 {
        enter(weight, weight);
    }
    assert_eq!((100..120).map(|network| enter(network, 1)).max(), Some(14 + 20));
    let heaviest = |limit| unproven.candidates(limit).map(|one| one.heaviest).collect::<Vec<_>>();
    assert_eq!(heaviest(0), []);
    assert_eq!(heaviest(1), [true]);
    assert_eq!(heaviest(4), [true]);
    assert_eq!(heaviest(5), [true, false]);
    assert_eq!(heaviest(usize::MAX), [true, false]);
}

#[test]
fn a_place_is_void_when_its_session_has_left() {
    let (mut unproven, now) = (Unproven::default(), Instant::now());
    let network = ClientNetwork::V4(1);
    let place = unproven.enter(Key::unpack(1), network, now).expect("room");
    let proven = unproven.prove(place).expect("it is there");
    assert_eq!(unproven.prove(place), None);
    assert_eq!(unproven.prove(proven), Some(proven));
    unproven.leave(place);
    unproven.advance(place, Progress::Greeted, now);
    unproven.advance(proven, Progress::Greeted, now);
    assert_eq!((unproven.len(), unproven.open_from(network)), (0, 1));
    assert_eq!(unproven.candidates(1).next(), None);
    unproven.leave(proven);
    unproven.leave(proven);
    assert_eq!(unproven.open_from(network), 0);
}

/// Addresses that weigh nothing, because they have as many proven sessions, stay in the order in which they came.
#[test]
fn among_addresses_that_weigh_nothing_none_is_forgotten() {
    let (mut unproven, now) = (Unproven::default(), Instant::now());
    let enter = |unproven: &mut Unproven, number: u64, network: u32| {
        unproven.enter(Key::unpack(number), ClientNetwork::V4(network), now).expect("room")
    };
    let proven = [1, 2, 3].map(|network| enter(&mut unproven, network.into(), network));
    proven.into_iter().for_each(|place| assert!(unproven.prove(place).is_some()));
    let silent = [(11, 1), (12, 2), (13, 3)]
        .map(|(number, network)| (number, enter(&mut unproven, number, network)));
    for (number, place) in silent {
        let first = unproven.candidates(1).next().map(|candidate| candidate.key.pack());
        assert_eq!(first, Some(number));
        unproven.leave(place);
    }
    assert_eq!(unproven.len(), 0);
}
