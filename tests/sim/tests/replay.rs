//! The kept corpus of the fuzz targets, replayed: each file, its beginnings, and thousands of inputs made
//! from the files by the same few changes each time.
//!
//! `make fuzz` searches; this holds what the search has found. An input that broke something belongs into
//! `fuzz/corpus/`.

#![cfg(test)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use sim::{Check, TARGETS};

/// Inputs made from the corpus of each target.
const MADE: usize = 3_000;
/// Beginnings tried of each file; of a longer one as many, evenly spread.
const BEGINNINGS: usize = 256;
/// The longest input, in bytes.
const LONGEST: usize = 4200;
/// No single input may take as long as that: a session is in an endless loop.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn hello() {
    replay("hello");
}

#[test]
fn credentials() {
    replay("credentials");
}

#[test]
fn request() {
    replay("request");
}

#[test]
fn metp_line() {
    replay("metp_line");
}

#[test]
fn metp_records() {
    replay("metp_records");
}

#[test]
fn quantity() {
    replay("quantity");
}

#[test]
fn datagram() {
    replay("datagram");
}

#[test]
fn associate() {
    replay("associate");
}

#[test]
fn race() {
    replay("race");
}

#[test]
fn socks_session() {
    replay("socks_session");
}

#[test]
fn metp_session() {
    replay("metp_session");
}

#[test]
fn socks4() {
    replay("socks4");
}

#[test]
fn http_head() {
    replay("http_head");
}

#[test]
fn cidr() {
    replay("cidr");
}

#[test]
fn users_file() {
    replay("users_file");
}

#[test]
fn usage_file() {
    replay("usage_file");
}

#[test]
fn config_file() {
    replay("config_file");
}

#[test]
fn rules() {
    replay("rules");
}

/// Every check is a fuzz target with a corpus, and the other way round.
#[test]
fn each_check_has_its_target_and_its_corpus() {
    let listed = |folder: &str| {
        let entries = fs::read_dir(home().join(folder)).expect("it is there");
        let name = |entry: fs::DirEntry| entry.path().file_stem().map(|stem| stem.to_owned());
        let mut names: Vec<_> =
            entries.filter_map(|entry| name(entry.expect("readable"))).collect();
        names.sort();
        names
    };
    let mut names = TARGETS.map(|(name, _)| name);
    names.sort();
    assert_eq!(listed("corpus"), names);
    assert_eq!(listed("fuzz_targets"), names);
}

fn home() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz"))
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = fs::read_dir(home().join("corpus").join(target)).expect("a corpus");
    let mut files: Vec<_> = folder.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|file| fs::read(file).expect("readable")).collect()
}

/// Runs a check over everything, in a thread of its own so that a loop without end is found too.
fn replay(target: &'static str) {
    let (_, check) = TARGETS.into_iter().find(|(name, _)| *name == target).expect("a target");
    let (tell, told) = mpsc::channel();
    let worker = thread::spawn(move || {
        let corpus = corpus(target);
        let run = |input: &[u8]| {
            let _ = tell.send(input.to_vec());
            one(target, check, input);
        };
        for file in &corpus {
            let step = file.len().div_ceil(BEGINNINGS).max(1);
            (0..=file.len()).step_by(step).for_each(|end| run(&file[..end]));
            run(file);
        }
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        (0..MADE).for_each(|_| run(&dice.input(&corpus)));
    });
    let mut last = Vec::new();
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok(input) => last = input,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("{target} hangs at {}", shown(&last)),
        }
    }
    if let Err(panic) = worker.join() {
        resume_unwind(panic);
    }
}

fn one(target: &str, check: Check, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        eprintln!("{target} breaks at {}", shown(input));
        resume_unwind(panic);
    }
}

/// An input as `printf` takes it.
fn shown(input: &[u8]) -> String {
    input.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// Changes that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.roll(256) as u8
    }

    /// A file with a few changes.
    fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.roll(corpus.len())].clone();
        for _ in 0..=self.roll(5) {
            let at = self.roll(input.len() + 1);
            match self.roll(6) {
                0 => input.truncate(at),
                1 => input.insert(at, self.byte()),
                2 if at < input.len() => drop(input.remove(at)),
                3 if at < input.len() => input[at] ^= 1 << self.roll(8),
                4 if at < input.len() => input[at] = self.byte(),
                _ => {
                    // A piece of another file, or of this one, comes in between.
                    let other = &corpus[self.roll(corpus.len())];
                    let from = self.roll(other.len());
                    let to = from + self.roll(other.len() - from + 1);
                    let piece = other[from..to].to_vec();
                    input.splice(at..at, piece);
                }
            }
        }
        input.truncate(LONGEST);
        input
    }
}
