//! The table of all settings that have a name.

use std::time::Duration;

use super::{Access, Applies, Knob, MAX_COUNT, Place, Words};
use crate::state::settings::{LocalFor, Settings, UdpFilter};
use crate::workers::families::Prefer;
use metp_protocol::BUFFER_SIZES;

macro_rules! place {
    ($($path:ident).+) => {
        Place(|settings| &settings.$($path).+, |settings| &mut settings.$($path).+)
    };
}

/// A place whose type lists its values in `ALL` and has a `word` for each.
macro_rules! words {
    ($type:ident, $($path:ident).+) => {
        Words {
            list: || $type::ALL.map($type::word).join(", "),
            get: |settings| settings.$($path).+.word(),
            set: |settings, word| {
                let choice = $type::ALL.into_iter().find(|choice| choice.word() == word)?;
                settings.$($path).+ = choice;
                Some(())
            },
        }
    };
}

const fn knob(
    key: &'static str,
    access: Access,
    unit: &'static str,
    applies: Applies,
    what: &'static str,
) -> Knob {
    Knob { key, unit, what, applies, access }
}

const fn timeout(key: &'static str, place: Place<Option<Duration>>, what: &'static str) -> Knob {
    knob(key, Access::Timeout(place), "seconds", Applies::Now, what)
}

/// All settings, in the order in which they are listed.
pub const KNOBS: [Knob; 40] = {
    use Access::{Level, Limit, Number, Switch, Time, Timeout, Word};
    [
        knob(
            "buffer-size",
            Number(BUFFER_SIZES, place!(buffer_size)),
            "bytes",
            Applies::Now,
            "set the size of the buffer of each direction of a tunnel, in bytes",
        ),
        knob(
            "buffer-memory",
            Number(0..=1 << 40, place!(buffer_memory)),
            "bytes",
            Applies::Now,
            "read in pieces of 4 KiB while all buffers together exceed this many bytes",
        ),
        knob(
            "max-connections",
            Number(1..=MAX_COUNT, place!(max_connections)),
            "connections",
            Applies::New,
            "serve at most this many SOCKS connections at once",
        ),
        knob(
            "max-connections-per-ip",
            Limit(0..=MAX_COUNT, place!(max_connections_per_ip)),
            "connections",
            Applies::New,
            "serve at most this many SOCKS connections at once from one address",
        ),
        knob(
            "max-metp-sessions",
            Number(1..=MAX_COUNT, place!(max_metp_sessions)),
            "sessions",
            Applies::New,
            "serve at most this many METP sessions at once",
        ),
        knob(
            "dns-threads",
            Number(1..=1024, place!(dns_threads)),
            "threads",
            Applies::Now,
            "run at most this many look-ups at once, of which a name takes two",
        ),
        knob(
            "dns-queue",
            Number(1..=1_000_000, place!(dns_queue)),
            "names",
            Applies::Now,
            "queue at most this many names for look-up",
        ),
        knob(
            "allow-local",
            Switch(allows_local, allow_local),
            "switch",
            Applies::New,
            "let clients from any address connect to loopback and link-local addresses",
        ),
        knob(
            "local-for",
            Word(words!(LocalFor, local_for)),
            "clients",
            Applies::New,
            "let these clients connect to loopback and link-local addresses: loopback, nobody, all",
        ),
        knob(
            "log-entries",
            Number(0..=MAX_COUNT, place!(log_entries)),
            "records",
            Applies::Now,
            "keep this many records in the access log of METP",
        ),
        knob(
            "log-level",
            Level(place!(log_level)),
            "level",
            Applies::Now,
            "log to stderr at this level: off, error, warn, info, debug, trace",
        ),
        knob(
            "grace",
            Time(place!(grace)),
            "seconds",
            Applies::Now,
            "give open connections this many seconds to finish when the server shuts down",
        ),
        timeout(
            "drain-wait",
            place!(timeouts.drain_wait),
            "accept connections for this many seconds after a shutdown has begun",
        ),
        knob(
            "drain-limit",
            Time(place!(drain_limit)),
            "seconds",
            Applies::Now,
            "give open connections this many seconds to finish when another server has taken over",
        ),
        timeout(
            "handshake-timeout",
            place!(timeouts.handshake),
            "close a client whose request is not complete after this many seconds",
        ),
        timeout(
            "resolve-timeout",
            place!(timeouts.resolve),
            "give up looking up a name after this many seconds",
        ),
        timeout(
            "connect-timeout",
            place!(timeouts.connect),
            "give up connecting to one address after this many seconds",
        ),
        timeout(
            "connect-total-timeout",
            place!(timeouts.connect_total),
            "give up connecting to all addresses of a name after this many seconds",
        ),
        timeout(
            "idle-timeout",
            place!(timeouts.idle),
            "close a tunnel after this many seconds without a byte",
        ),
        timeout(
            "half-close-timeout",
            place!(timeouts.half_close),
            "close a tunnel of which one side has closed after this many seconds without a byte",
        ),
        // Open connections keep the value that was set on their sockets.
        knob(
            "keepalive",
            Timeout(place!(timeouts.keepalive)),
            "seconds",
            Applies::New,
            "probe a peer that has been silent for this many seconds",
        ),
        timeout(
            "ack-timeout",
            place!(timeouts.ack),
            "close a connection whose peer acknowledges nothing for this many seconds",
        ),
        timeout(
            "linger-timeout",
            place!(timeouts.linger),
            "wait at most this many seconds for a peer to receive what was sent last",
        ),
        timeout(
            "metp-login-timeout",
            place!(timeouts.metp_login),
            "close a METP session that has not logged in after this many seconds",
        ),
        timeout(
            "metp-idle-timeout",
            place!(timeouts.metp_idle),
            "close a METP session after this many seconds without a byte",
        ),
        timeout(
            "subscriber-timeout",
            place!(timeouts.subscriber),
            "close a METP subscriber that has not read its events for this many seconds",
        ),
        knob(
            "dns-cache",
            Timeout(place!(names.found)),
            "seconds",
            Applies::New,
            "cache the addresses of a name for this many seconds",
        ),
        knob(
            "dns-negative-cache",
            Timeout(place!(names.failed)),
            "seconds",
            Applies::New,
            "cache for this many seconds that a name has no address",
        ),
        knob(
            "prefer",
            Word(words!(Prefer, prefer)),
            "family",
            Applies::New,
            "try the addresses of this family first: ipv4, ipv6, system (as RFC 6724 orders them)",
        ),
        knob(
            "trust-any-login",
            Switch(
                |settings| settings.trust.any_login,
                |settings, on| settings.trust.any_login = on,
            ),
            "switch",
            Applies::New,
            "let clients of trusted networks in with a wrong login too, as the account -",
        ),
        knob(
            "http-connect",
            Switch(|settings| settings.http_connect, |settings, on| settings.http_connect = on),
            "switch",
            Applies::New,
            "serve HTTP CONNECT on the port of SOCKS",
        ),
        knob(
            "allow-resolve",
            Switch(|settings| settings.resolve, |settings, on| settings.resolve = on),
            "switch",
            Applies::New,
            "let clients look up names and addresses (RESOLVE): on, off",
        ),
        knob(
            "allow-bind",
            Switch(|settings| settings.bind.enabled, |settings, on| settings.bind.enabled = on),
            "switch",
            Applies::New,
            "let clients accept connections from their targets (BIND): on, off",
        ),
        timeout(
            "bind-timeout",
            place!(timeouts.bind),
            "give up waiting for the connection of a target (BIND) after this many seconds",
        ),
        knob(
            "udp",
            Switch(|settings| settings.udp.enabled, |settings, on| settings.udp.enabled = on),
            "switch",
            Applies::New,
            "relay datagrams for clients (UDP ASSOCIATE): on, off",
        ),
        knob(
            "udp-filter",
            Word(words!(UdpFilter, udp.filter)),
            "senders",
            Applies::Now,
            "pass datagrams on to a client from these senders: any, address, port",
        ),
        timeout(
            "udp-idle-timeout",
            place!(timeouts.udp_idle),
            "close an association after this many seconds without a datagram",
        ),
        knob(
            "udp-log",
            Number(0..=1000, place!(udp.log)),
            "targets",
            Applies::Now,
            "write a line of the access log for this many targets of an association",
        ),
        knob(
            "max-associations",
            Limit(0..=MAX_COUNT, place!(udp.max_associations)),
            "associations",
            Applies::New,
            "serve at most this many associations of one account at once",
        ),
        knob(
            "auth-threads",
            Number(1..=16, place!(auth_threads)),
            "threads",
            Applies::Now,
            "verify at most this many password hashes at once, in threads of low priority",
        ),
    ]
};

/// `allow-local` is the older name of `local-for all`, so the two never disagree. Switching it off leaves a
/// stricter choice as it is.
fn allow_local(settings: &mut Settings, on: bool) {
    match (on, settings.local_for) {
        (true, _) => settings.local_for = LocalFor::All,
        (false, LocalFor::All) => settings.local_for = LocalFor::Loopback,
        (false, LocalFor::Loopback | LocalFor::Nobody) => {}
    }
}

fn allows_local(settings: &Settings) -> bool {
    settings.local_for == LocalFor::All
}
