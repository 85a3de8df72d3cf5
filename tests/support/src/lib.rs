//! Helpers of the tests: a proxy under test, peers on loopback, literal bytes.
//!
//! Nothing here sleeps instead of waiting for a condition, and every wait has a limit.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that panics fails its test"
)]

pub mod alone;
pub mod client;
pub mod descriptors;
pub mod diag;
pub mod metp;
pub mod namespace;
pub mod origin;
pub mod place;
pub mod property;
pub mod proxy;
pub mod seccomp;
pub mod socks;
pub mod strace;
pub mod system;
pub mod terminal;
pub mod udp;
pub mod usage;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long anything may take before its test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What is soon on a busy machine, and sooner than anything that only a default deadline brings about: those of
/// the handshake and of METP's login are 10 s.
pub const SOON: Duration = Duration::from_secs(8);

/// A binary of this workspace, built with the tests.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    // Tests are built into target/*/deps, binaries into target/*.
    let mut candidates = test.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    candidates
        .find(|binary| binary.exists())
        .unwrap_or_else(|| panic!("{name} is not built: run `cargo build --workspace --bins`"))
}

/// The name that the test harness has for a test of the module in which this stands, for a test that starts its own
/// program again.
#[macro_export]
macro_rules! test_name {
    ($name:literal) => {
        $crate::without_crate(concat!(module_path!(), "::", $name))
    };
}

/// A path without its crate.
#[doc(hidden)]
pub fn without_crate(path: &'static str) -> &'static str {
    path.split_once("::").map_or(path, |(_, rest)| rest)
}

/// Whether this machine has IPv6. If not, a note says what was not tried for want of it.
pub fn has_ipv6(what: &str) -> bool {
    let found = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !found {
        note(&format!("there is no IPv6 on this machine, {what} was not tried"));
    }
    found
}

/// Writes a note that is shown although the test succeeds, unlike with eprintln.
pub fn note(text: &str) {
    let line = format!("NOTE: {text}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("somebody reads it");
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads exactly `count` bytes.
pub fn read_exactly(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{count} bytes expected: {error}"));
    bytes
}

/// Reads until EOF.
pub fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("EOF expected: {error}"));
    bytes
}

/// Reads until a reset, which must not look like EOF.
pub fn read_to_reset(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => bytes,
        other => panic!("a reset expected: {other:?} after {} bytes", bytes.len()),
    }
}

/// Sends bytes through a tunnel to an echoing server and waits until they are back.
pub fn exchange(tunnel: &mut TcpStream, count: usize) {
    let sent = noise(count, 7);
    tunnel.write_all(&sent).expect("taken");
    assert!(read_exactly(tunnel, count) == sent, "what came back is not what was sent");
}

/// Expects the end of a connection: EOF or a reset, and no byte before it.
pub fn read_the_end(stream: &mut TcpStream) {
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the end expected: {other:?}"),
    }
}

/// Bytes without a pattern, fixed for each seed.
pub fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    bytes.truncate(count);
    bytes
}
