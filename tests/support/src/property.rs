//! The cases of property tests: fixed ones with `make test`, so that its verdict does not change, and random ones with
//! `make fuzz`.

use proptest::test_runner::{Config, RngSeed, TestRunner};

/// The variable that, set to a number, makes each property test draw other cases, and [`MORE`] times as many.
pub const SEED: &str = "PROPTEST_RNG_SEED";
/// How many times as many cases are drawn where [`SEED`] is set.
pub const MORE: u32 = 10;
/// The seed where [`SEED`] is not set.
const FIXED: u64 = 1928;

/// What each `proptest!` has to be configured with; a test of the documents sees to it.
pub fn config(cases: u32) -> Config {
    let seed = std::env::var(SEED).ok().map(|seed| seed.parse::<u64>().expect("a number"));
    Config {
        cases: cases * if seed.is_some() { MORE } else { 1 },
        rng_seed: RngSeed::Fixed(seed.unwrap_or(FIXED)),
        // A case that once failed belongs into a test of its own, not into a file that is read first.
        failure_persistence: None,
        // What follows would be read from the environment otherwise. These are the defaults of proptest.
        max_local_rejects: 65_536,
        max_global_rejects: 1024,
        max_flat_map_regens: 1_000_000,
        max_shrink_time: 0,
        max_shrink_iters: 10_000,
        max_default_size_range: 100,
        ..Config::default()
    }
}

/// The cases for a test that is not written with `proptest!`.
pub fn runner(cases: u32) -> TestRunner {
    TestRunner::new(config(cases))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    use super::*;

    #[test]
    fn each_run_draws_the_same_cases() {
        let draw = || {
            let mut runner = runner(1);
            let mut value = || any::<u64>().new_tree(&mut runner).expect("a value").current();
            [value(), value(), value()]
        };
        let drawn = draw();
        assert_eq!(drawn, draw());
        assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2]);
    }
}
