//! Layer 0: wire formats. Bytes to meaning and back, without I/O; METP has a crate of its own, `metp_protocol`.
//!
//! A parser here is *pure* (the same bytes give the same answer), *total* (any bytes give an answer, none
//! a panic) and *restartable*: it looks at everything received so far, from the start, each time.
//! SOCKS messages are at most 520 bytes, METP lines at most 4096 and heads of HTTP at most 8192, so parsing again costs
//! less than remembering where parsing stopped, and no split of the input can change the result.

pub mod addresses;
pub mod foreign;
pub mod http;
pub mod limits;
pub mod rules;
pub mod secret;
pub mod socks4;
pub mod socks5;
pub mod usage_file;
pub mod users_file;

pub use metp_protocol::Parsed;
