//! The parsers: what one SOCKS handshake and one METP command cost without the system calls around them.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    reason = "made by criterion_group; a benchmark may panic"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use metp_protocol::{Command, PreAuthCommand, Role};
use socks5d::proto::socks5::{Credentials, Hello, Reply, ReplyCode, Request};

const HELLO: &[u8] = &[5, 2, 0, 2];
const CREDENTIALS: &[u8] = b"\x01\x05alice\x0awonderland";
const IPV4: &[u8] = &[5, 1, 0, 1, 192, 0, 2, 7, 0, 80];
const NAME: &[u8] = b"\x05\x01\x00\x03\x0fwww.example.com\x01\xbb";

fn socks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("socks5");
    group.bench_function("hello", |b| b.iter(|| Hello::parse(black_box(HELLO))));
    group.bench_function("credentials", |b| b.iter(|| Credentials::parse(black_box(CREDENTIALS))));
    group.bench_function("request, IPv4", |b| b.iter(|| Request::parse(black_box(IPV4))));
    group.bench_function("request, name", |b| b.iter(|| Request::parse(black_box(NAME))));
    group.bench_function("request, first half", |b| {
        b.iter(|| Request::parse(black_box(&IPV4[..5])))
    });
    let reply = Reply { code: ReplyCode::Succeeded, bound: ([192, 0, 2, 1], 40_000).into() };
    group.bench_function("reply", |b| b.iter(|| black_box(&reply).encode()));
    group.finish();
}

fn metp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("metp");
    let short = b"GET_METRICS\r\nQUIT\r\n";
    let long = vec![b'a'; metp_protocol::LINE_LIMIT - 1];
    group.bench_function("line", |b| b.iter(|| metp_protocol::line(black_box(short)).map(|_| ())));
    group.bench_function("line, 4095 octets and no end", |b| {
        b.iter(|| metp_protocol::line(black_box(&long)).map(|_| ()))
    });
    let login = b"AUTH admin correct horse";
    group.bench_function("AUTH", |b| b.iter(|| PreAuthCommand::parse(black_box(login))));
    for line in ["GET_METRICS", "CHANGE-BUFFER 262144", "ADD-USER bob builder", "NONSENSE"] {
        group.bench_function(line, |b| {
            b.iter(|| Command::parse(black_box(line.as_bytes()), Role::Admin))
        });
    }
    group.finish();
}

criterion_group!(benches, socks, metp);
criterion_main!(benches);
