//! Layer 1: what may block, off the loop: name look-ups and writing logs, in threads behind bounded queues.

pub mod dns_cache;
pub mod getaddrinfo;
pub mod log_writer;
pub mod resolver;
