//! What an administrator can set.

use std::time::Duration;

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Capacity of each direction's buffer in a tunnel, in bytes.
    pub buffer_size: usize,
    /// SOCKS connections that may be open at once.
    pub max_connections: usize,
    /// METP sessions that may be open at once.
    pub max_metp_sessions: usize,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The ports of this server itself, which no client may connect to.
    pub own_ports: Vec<u16>,
}

/// How long things may take; `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the connection to the whole request.
    pub handshake: Option<Duration>,
    /// From the request to the addresses of its name.
    pub resolve: Option<Duration>,
    /// For connecting to one address.
    pub connect: Option<Duration>,
    /// For connecting to all addresses of a name.
    pub connect_total: Option<Duration>,
    /// Of a tunnel in which no byte moves.
    pub idle: Option<Duration>,
    /// Of a tunnel with one direction over, in which no byte moves.
    pub half_close: Option<Duration>,
    /// For a client to take the last reply and close.
    pub goodbye: Option<Duration>,
    /// From a METP connection to its login.
    pub metp_login: Option<Duration>,
    /// Of a METP session in which nothing moves.
    pub metp_idle: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        Timeouts {
            handshake: seconds(10),
            resolve: seconds(15),
            connect: seconds(10),
            connect_total: seconds(30),
            idle: seconds(3600),
            half_close: seconds(300),
            goodbye: seconds(5),
            metp_login: seconds(10),
            metp_idle: seconds(600),
        }
    }
}
