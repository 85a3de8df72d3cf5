//! # socks5d: a SOCKS5 proxy that is administered while it runs
//!
//! One thread, one event loop, and a small state machine for each connection; names are looked up by
//! worker threads. The house has floors, and a file imports from lower floors only:
//!
//! ```text
//! floor 4   main  args  process  server     owns everything, knows everybody
//! floor 3   socks/   metp/                  conversations: a session and its states
//! floor 2   state/                         facts that all conversations share
//! floor 1   reactor/                        readiness, buffers, time, threads
//! floor 0   proto/                          languages: bytes <-> meaning
//! ```
//!
//! To know the house, read [`proto`], [`server`], [`socks`] and [`reactor::lane`], in this order, and
//! `selector-notes.md` beside them.
//!
//! This library exists for the binary `socks5d`, for the METP command line `client`, which shares
//! [`proto::metp`] with the server, and for the tests.

#![deny(unsafe_code)]
#![warn(missing_docs, clippy::unwrap_used, clippy::expect_used)]
#![warn(clippy::panic, clippy::todo, clippy::unimplemented, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]
#![cfg_attr(test, allow(clippy::panic))]

pub mod args;
pub mod metp;
pub mod process;
pub mod proto;
pub mod reactor;
pub mod server;
pub mod socks;
pub mod state;
pub mod workers;
