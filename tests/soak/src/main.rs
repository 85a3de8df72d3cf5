//! `make soak MINUTES=5`: a long mixed load against a running socks5d.
//!
//! Good clients, slow ones, rude ones, hashed transfers of 256 MiB and an administrator who changes
//! everything, all at once. Every byte is compared with what it must be. The load rests after the first
//! minute and at the end; then descriptors must be back where they were, and memory within 5 MiB.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "to fail is how it reports")]

mod load;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use load::Load;
use support::proxy::Proxy;

/// How far memory at the end may be from its level after the first minute, in KiB.
const TOLERANCE_KIB: u64 = 5 * 1024;

fn main() {
    let minutes: f64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5.0);
    let warm_up = Duration::from_secs_f64(minutes * 60.0 / 2.0).min(Duration::from_secs(60));
    let whole = Duration::from_secs_f64(minutes * 60.0);
    let arguments =
        ["--handshake-timeout", "3", "--linger-timeout", "2", "--half-close-timeout", "20"];
    let proxy = Arc::new(Proxy::with(&arguments));
    let started = Instant::now();
    let before = proxy.descriptors();

    let load = Load::start(&proxy);
    watch(&proxy, &load, started, warm_up);
    let level = rest(&proxy, &load, "after the first phase", before);
    load.go_on();
    watch(&proxy, &load, started, whole);
    let end = rest(&proxy, &load, "at the end", before);
    load.stop();

    for (what, count) in load.figures() {
        println!("{what:<28} {count}");
    }
    let [historical, current, bytes] = proxy.metrics();
    println!("{:<28} {historical} accepted, {current} open, {bytes} bytes", "metrics");
    let corrupt = load.corrupt.load(Ordering::SeqCst);
    assert_eq!(corrupt, 0, "corrupt or lost bytes");
    assert!(end.abs_diff(level) <= TOLERANCE_KIB, "memory went from {level} to {end} KiB");
    println!(
        "soak: {:.1} minutes, no corrupt byte, no descriptor lost, memory {level} -> {end} KiB",
        minutes
    );
}

/// Shows how it goes, every ten seconds, until `until` has passed since the start.
fn watch(proxy: &Proxy, load: &Load, started: Instant, until: Duration) {
    let mut next = started.elapsed();
    while started.elapsed() < until {
        if started.elapsed() >= next {
            next += Duration::from_secs(10);
            println!(
                "{:>5.0} s  {:>7} KiB RSS  {:>5} descriptors  {:>8} tunnels  {:>6} MiB verified",
                started.elapsed().as_secs_f64(),
                proxy.status_kib("VmRSS"),
                proxy.descriptors(),
                load.tunnels.load(Ordering::Relaxed),
                load.verified.load(Ordering::Relaxed) >> 20,
            );
        }
        assert_eq!(load.corrupt.load(Ordering::SeqCst), 0, "corrupt or lost bytes");
        thread::sleep(Duration::from_millis(200));
    }
}

/// Lets the load rest, waits until no connection is open, and returns the memory in RAM (RSS) in KiB.
fn rest(proxy: &Proxy, load: &Load, when: &str, before: usize) -> u64 {
    load.rest();
    proxy.wait_until_idle();
    // Workers for names end after ten seconds without work, each with its descriptors.
    let deadline = Instant::now() + Duration::from_secs(15);
    while proxy.descriptors() != before && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(proxy.descriptors(), before, "descriptors {when}");
    let rss = proxy.status_kib("VmRSS");
    println!("at rest {when}: {rss} KiB RSS, {before} descriptors");
    rss
}
