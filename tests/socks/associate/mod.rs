//! UDP ASSOCIATE (RFC 1928 sections 4, 6 and 7), with real sockets and literal bytes.
//!
//! That a datagram is dropped is seen by the next one, which arrives first: nothing on loopback overtakes.

mod accounting;
mod client_side;
mod lifetime;
mod links;
mod names;
mod target_side;
