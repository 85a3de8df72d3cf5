//! Layer 1: readiness, sockets, buffers, timers, signals. It knows descriptors and bytes, and not what they mean: no
//! SOCKS, no METP, no users. It imports no other module of this program and no protocol crate.

pub mod abortive_close;
pub mod buffer;
pub mod datagram;
pub mod endpoint;
pub mod errno;
pub mod family;
pub mod handover;
pub mod lane;
pub mod lingering_close;
pub mod listener;
pub mod liveness;
pub mod network;
pub mod peer_listener;
pub mod pipe;
pub mod ports;
pub mod process_usage;
pub mod readiness;
pub mod reserve;
pub mod route;
pub mod selector;
pub mod signal;
pub mod slab;
pub mod stream;
pub mod tcp_state;
pub mod token;
pub mod waker;
pub mod wheel;

/// What a session wants after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Another turn when an event, an answer or an alarm comes.
    Wait,
    /// Another turn soon: its budget was spent before its work was done.
    Again,
    /// To be closed.
    Close,
}

/// What kind of work a session makes, and so with which others it shares the turns of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A handshake or an interactive tunnel: short turns that must not wait.
    Talk,
    /// Datagrams, which are lost when they wait for long.
    Datagrams,
    /// A bulk transfer, which yields to the others.
    Bulk,
}
