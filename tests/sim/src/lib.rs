//! What must hold whatever bytes come: one function for each fuzz target, which panics where it does not.
//!
//! The parsers are compared with the bytes they read, a whole SOCKS session with the RFCs as
//! `reference.rs` reads them, a whole METP session with itself under another segmentation. `fuzz/` calls these
//! functions with new bytes; `tests/sim/tests/replay.rs` calls them with the corpus, in every test run.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "to panic is what a check is for"
)]

mod associate;
mod config_file;
mod datagrams;
mod fake;
#[cfg(test)]
mod metp_changes;
mod metp_session;
mod network;
mod parsers;
mod quantity;
#[cfg(test)]
mod rates;
mod records;
mod reference;
mod rules;
mod script;
mod socks_session;
mod udp_network;
mod users_file;
mod verifier;
mod ways_in;

pub use associate::associate;
pub use config_file::config_file;
pub use metp_session::metp_session;
pub use parsers::{credentials, datagram, hello, metp_line, request};
pub use quantity::quantity;
pub use records::metp_records;
pub use rules::rules;
pub use socks_session::{race, socks_session};
pub use users_file::{usage_file, users_file};
pub use ways_in::{cidr, http_head, socks4};

/// A check: any bytes are a case.
pub type Check = fn(&[u8]);

/// The checks, by the names of their fuzz targets.
pub const TARGETS: [(&str, Check); 18] = [
    ("hello", hello),
    ("credentials", credentials),
    ("request", request),
    ("metp_line", metp_line),
    ("metp_records", metp_records),
    ("quantity", quantity),
    ("datagram", datagram),
    ("associate", associate),
    ("race", race),
    ("socks_session", socks_session),
    ("metp_session", metp_session),
    ("socks4", socks4),
    ("http_head", http_head),
    ("cidr", cidr),
    ("users_file", users_file),
    ("usage_file", usage_file),
    ("config_file", config_file),
    ("rules", rules),
];
