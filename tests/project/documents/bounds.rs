//! Figures that the documents promise: bounds of memory, descriptors and sessions are those of the sources.

use metp_protocol::{LINE_LIMIT, REPLY_LIMIT};
use socks5d::proto::http::LONGEST_HEAD;
use socks5d::reactor::buffer::SMALL_LEASE;
use socks5d::workers::dns_cache::{MAX_ADDRESSES, MAX_NAMES};
use socks5d::workers::log_writer::QUEUE_BYTES;

use super::options::options;
use super::{NOTES, PROTOCOL, README, SECURITY, SERVER_MANUAL, between, file, read};

/// The value of a constant of a source: products and shifts of numbers.
pub fn constant(source: &str, name: &str) -> usize {
    let text = read(source);
    let values = between(&text, &format!("const {name}: "), ";");
    let (_, value) = values.first().and_then(|value| value.split_once(" = ")).expect(name);
    let number = |text: &str| text.trim().replace('_', "").parse::<usize>().expect(name);
    match value.split_once("<<") {
        Some((number_of, bits)) => number(number_of) << number(bits),
        None => value.split('*').map(number).product(),
    }
}

/// The text with all line ends and blanks made single blanks.
fn flowing(name: &str) -> String {
    read(name).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `SECURITY.md`, "Bounds of memory": each figure of the formula covers what the sources allow.
#[test]
fn the_formula_of_memory_covers_what_the_sources_allow() {
    let (kib, mib) = (1024, 1024 * 1024);
    let formula =
        " + C x 14 KiB + M x 78 KiB + D x 512 KiB + L x 1 KiB + A x 1 KiB + U x 112 KiB + 31 MiB\n";
    assert!(read(SECURITY).contains(&format!("    B{formula}")));
    assert!(read(SERVER_MANUAL).contains(&format!("buffer-memory{formula}")));
    // A head of HTTP and what is behind it in one direction, a small lease in the other.
    assert!(14 * kib >= LONGEST_HEAD + SMALL_LEASE + 2 * kib);
    assert_eq!(constant("src/main.rs", "CONNECTION_BYTES"), 14 * kib);
    let (much, piece) = (
        constant("src/metp/mod.rs", "UNSENT_LIMIT"),
        constant("src/metp/listing.rs", "CHUNK_BYTES"),
    );
    let output = much + piece + REPLY_LIMIT + ".\n".len();
    assert!(output <= 73 * kib && LINE_LIMIT == 4 * kib, "{output}");
    assert!(78 * kib >= output + LINE_LIMIT + kib);
    let stack = constant("src/workers/resolver.rs", "STACK_BYTES");
    assert_eq!(stack, 256 * kib);
    for name in [SECURITY, SERVER_MANUAL, NOTES] {
        assert!(flowing(name).contains(&format!("{} KiB", stack / kib)), "{name}");
        let margin = constant("common/src/thread.rs", "MARGIN_BYTES") / mib;
        assert!(flowing(name).contains(&format!("{margin} MiB")), "{name}");
    }
    let known = 2 * constant("src/socks/associate/known_targets.rs", "GENERATION");
    let book = "src/socks/associate/name_book.rs";
    let addresses = constant(book, "MOST_ADDRESSES") * size_of::<std::net::IpAddr>();
    let names = constant(book, "MOST_NAMES") * (addresses + 255);
    assert!(64 * kib >= known * (size_of::<std::net::SocketAddr>() + 1) * 8 / 7);
    assert!(26 * kib >= names && 16 * kib == constant(book, "MOST_WAITING_BYTES"));
    let slots = constant("src/reactor/datagram/scratch.rs", "MESSAGES");
    assert_eq!(slots * constant("src/reactor/datagram/scratch.rs", "SLOT_BYTES"), 2 * mib);
    // A name stands in the table and in the order, with its addresses in the former.
    let address = size_of::<std::net::SocketAddr>();
    assert!(8 * mib >= MAX_NAMES * (2 * 255 + MAX_ADDRESSES * address + 512));
    let logs = 2 * 2 * QUEUE_BYTES;
    let kept = constant("src/reactor/buffer.rs", "KEPT_BYTES");
    assert_eq!((logs, kept), (4 * mib, 4 * mib));
    for name in [SECURITY, SERVER_MANUAL] {
        let text = flowing(name);
        assert!(text.contains(&format!("{MAX_NAMES} ")), "{name}");
        assert!(text.contains(&format!("{MAX_ADDRESSES} addresses")), "{name}");
    }
    assert!(flowing(NOTES).contains(&format!("at most {MAX_NAMES} names")));
}

/// The defaults that `SECURITY.md` names beside options are those of `-h`.
#[test]
fn the_defaults_of_the_security_statement_are_those_of_the_program() {
    let text = read(SECURITY);
    let named = between(&text, "`--", ")");
    let mut count = 0;
    for option in options("socks5d") {
        let long = option.long.trim_start_matches('-');
        for rest in named.iter().filter_map(|rest| rest.strip_prefix(&format!("{long}` ("))) {
            assert_eq!(Some(rest), option.preset(), "{long}");
            count += 1;
        }
    }
    assert_eq!(count, 4, "buffer-memory, max-metp-sessions, dns-threads, log-entries");
}

/// `(limit - reserve) / 2`, where the reserve is a quarter of the limit and 128 at most.
#[test]
fn the_default_of_connections_is_what_the_documents_say() {
    let main = read("src/main.rs");
    assert!(main.contains("let reserve = (descriptors / 4).min(128);"));
    assert!(main.contains("(descriptors.saturating_sub(reserve) / 2).max(1)"));
    let formula = ".Dl (n - reserve) / 2, where reserve = min(128, n / 4)\n";
    assert!(read(SERVER_MANUAL).contains(formula));
    // (1024 - min(128, 256)) / 2
    let says = "448 connections with 1024 descriptors";
    assert!(flowing(README).contains(says), "{says}");
    let resolver = read("src/workers/resolver.rs");
    assert!(resolver.contains("threads.saturating_mul(16).min((descriptors / 3).max(4))"));
    for name in [SECURITY, SERVER_MANUAL, NOTES] {
        assert!(flowing(name).contains("a third of the descriptors"), "{name}");
    }
}

/// METP §8: sessions that have not logged in.
#[test]
fn sessions_without_a_login_are_as_many_as_the_documents_say() {
    let most = constant("src/server/service.rs", "METP_UNPROVEN");
    let row = format!("   | sessions that have not logged in     | {most:<26} |\n");
    assert!(read(PROTOCOL).contains(&row), "{row}");
    assert!(flowing(PROTOCOL).contains(&format!("At most {most} sessions have not logged in")));
    assert!(flowing(SECURITY).contains(&format!("METP clients without a login at most {most}.")));
    let says = format!("METP clients that have not logged in are at most {most}.");
    assert!(flowing(SERVER_MANUAL).contains(&says));
    assert!(flowing(NOTES).contains(&format!("or {most} with METP")));
}

/// The silence that keepalive takes is that of the program.
#[test]
fn the_range_of_keepalive_is_in_the_manual() {
    let source = read("src/reactor/liveness.rs");
    let bound = |name: &str| {
        let before = format!("const {name}: Duration = Duration::from_secs(");
        between(&source, &before, ")").first().map(|seconds| (*seconds).to_owned()).expect("there")
    };
    let range = format!("{} to {}.", bound("SHORTEST_IDLE"), bound("LONGEST_IDLE"));
    assert!(flowing(SERVER_MANUAL).contains(&format!("whole seconds, {range}")), "{range}");
    assert_eq!((bound("PROBE_INTERVAL").as_str(), constant_text(&source)), ("10", "6"));
    let probes = "every 10 seconds; after the sixth probe without an answer";
    assert!(flowing(SERVER_MANUAL).contains(probes));
    assert!(flowing(NOTES).contains("then every 10 s, six in all"));
}

fn constant_text(source: &str) -> &str {
    between(source, "const PROBES: u32 = ", ";").first().copied().expect("it is there")
}

/// What a server can have the client keep.
#[test]
fn the_bounds_of_the_client_are_those_of_its_sources() {
    let line = constant("client/src/connection.rs", "LINE_LIMIT_BYTES");
    let column = constant("client/src/table.rs", "MAX_COLUMN_WIDTH");
    let connections = constant("client/src/watch/model.rs", "MAX_CONNECTIONS");
    let octets = constant("client/src/watch/feed.rs", "LIST_LIMIT_BYTES");
    for says in [
        format!("lines of {line} octets at most"),
        format!("no column of a table more than {column} characters"),
        format!("at most {connections} connections of a list, or {} MiB of them", octets >> 20),
    ] {
        assert!(flowing(SECURITY).contains(&says), "{says}");
    }
}

/// The jail uses the filter, and the README names both.
#[test]
fn the_files_for_fail2ban_are_there_and_fit_the_readme() {
    let (filter, jail) =
        ("contrib/fail2ban/filter.d/socks5d.conf", "contrib/fail2ban/jail.d/socks5d.conf");
    let (readme, text) = (read(README), read(jail));
    for path in [filter, jail] {
        assert!(file(path).is_file() && readme.contains(&format!("({path})")), "{path}");
    }
    assert!(between(&text, "filter   = ", "\n") == ["socks5d"]);
    assert!(read(filter).contains("auth failed: service=(?:socks|metp|http) remote=<HOST>"));
    assert!(readme.contains("WARN  auth failed: service=socks remote="));
}

/// The map of the source leads to every folder of `src`.
#[test]
fn the_map_of_the_readme_has_every_folder() {
    let readme = read(README);
    let mut folders = 0;
    for entry in std::fs::read_dir(file("src")).expect("it is there") {
        let entry = entry.expect("readable");
        let name = entry.file_name().into_string().expect("text");
        // Those beside a file of their name hold its tests.
        if entry.path().is_dir() && !file(&format!("src/{name}.rs")).exists() {
            assert!(readme.contains(&format!("[src/{name}](src/{name})")), "src/{name}");
            folders += 1;
        }
    }
    assert!(folders >= 6, "{folders}");
}
