//! The keys of bodies and events (§3.4, §5), each with the form of its value. Server and client use these
//! constants in place of strings: what one of them shows, the other has.
//!
//! In which lines a key stands, and in which order, is said in `record.rs`.

use std::fmt;

use crate::quantity::is_digits;

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueForm {
    /// A line of text with blanks in it.
    Line,
    /// Text, also where it looks like a number: a name, a word, an address.
    Text,
    /// Words with commas between them.
    List,
    /// A number of things.
    Count,
    /// A number of octets.
    Octets,
    /// Seconds with three digits behind the point.
    Millis,
    /// Seconds with six digits behind the point.
    Micros,
    /// The value of a setting or an end of its range: a number or a word, depending on the setting.
    Setting,
}

/// A key. Displays as it stands on the wire.
///
/// ```
/// use metp_protocol::key::{self, MetpKey, ValueForm};
///
/// let line = "user=alice role=user connections=2 total=7 up=512 down=- later-key=1";
/// assert_eq!(key::USER.of(line), Some("alice"));
/// assert_eq!(key::TOTAL.digits(line), Some("7"));
/// assert_eq!((key::DOWN.of(line), key::PEER.of(line)), (None, None));
/// assert_eq!(MetpKey::find("up").map(|key| key.form), Some(ValueForm::Octets));
/// assert_eq!(MetpKey::find("later-key"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetpKey {
    /// The key on the wire.
    pub name: &'static str,
    /// The form of its values.
    pub form: ValueForm,
}

impl MetpKey {
    /// The key with this name; `None` if the protocol has none.
    pub fn find(name: &str) -> Option<MetpKey> {
        ALL.iter().chain(&FIGURES).find(|key| key.name == name).copied()
    }

    /// The value of this key in a line of pairs. `None` if the line lacks the key, or the value is `-`.
    pub fn of(self, line: &str) -> Option<&str> {
        value(line, self.name)
    }

    /// The value of this key in a line of pairs if it is a whole number of any size: its digits.
    pub fn digits(self, line: &str) -> Option<&str> {
        self.of(line).filter(|value| is_digits(value.as_bytes()))
    }
}

impl fmt::Display for MetpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The pairs of a line, in their order. Words without `=` are left out.
///
/// ```
/// let pairs: Vec<_> = metp_protocol::key::pairs("up=1 word state=a=b").collect();
/// assert_eq!(pairs, [("up", "1"), ("state", "a=b")]);
/// ```
pub fn pairs(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split(' ').filter_map(|word| word.split_once('='))
}

/// The value of the key with this name in a line of pairs, which may be of a later version. `None` if the line
/// lacks the key, or the value is `-`.
///
/// ```
/// assert_eq!(metp_protocol::key::value("up=1 later-key=2", "later-key"), Some("2"));
/// ```
pub fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    find(pairs(line), name)
}

/// The value of a key among pairs; `None` if it is missing or `-`. Of several values the first counts.
pub(crate) fn find<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    name: &str,
) -> Option<&'a str> {
    let found = pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value);
    found.filter(|value| *value != "-")
}

macro_rules! keys {
    ($all:ident: $($name:ident = $wire:literal $form:ident;)+) => {
        $(
            #[allow(missing_docs, reason = "the protocol explains its keys")]
            pub const $name: MetpKey = MetpKey { name: $wire, form: ValueForm::$form };
        )+
        /// All of them, in this order.
        pub const $all: [MetpKey; [$($wire),+].len()] = [$($name),+];
    };
}

// Keys of pairs: `key=value`.
keys! { ALL:
    // CAPA (§5.10) and INFO (§5.12)
    IMPLEMENTATION = "implementation" Text;
    VERSION = "version" Text;
    PROTOCOL = "protocol" Text;
    VERBS = "verbs" List;
    TOPICS = "topics" List;
    COMMAND_OCTETS = "command-octets" Count;
    REPLY_OCTETS = "reply-octets" Count;
    NAME_OCTETS = "name-octets" Count;
    PASSWORD_OCTETS = "password-octets" Count;
    UNSENT_OCTETS = "unsent-octets" Count;
    SUBSCRIBERS = "subscribers" Count;
    PID = "pid" Count;
    UPTIME = "uptime" Millis;
    DESCRIPTORS = "descriptors" Count;
    DESCRIPTORS_LIMIT = "descriptors-limit" Count;
    CONNECTIONS = "connections" Count;
    CONNECTIONS_LIMIT = "connections-limit" Count;
    CONNECTIONS_HELLO = "connections-hello" Count;
    CONNECTIONS_AUTH = "connections-auth" Count;
    CONNECTIONS_REQUEST = "connections-request" Count;
    CONNECTIONS_RESOLVE = "connections-resolve" Count;
    CONNECTIONS_CONNECT = "connections-connect" Count;
    CONNECTIONS_RELAY = "connections-relay" Count;
    CONNECTIONS_LINGER = "connections-linger" Count;
    METP_SESSIONS = "metp-sessions" Count;
    METP_SESSIONS_LIMIT = "metp-sessions-limit" Count;
    BUFFERS = "buffers" Octets;
    BUFFERS_LIMIT = "buffers-limit" Octets;
    PIPES = "pipes" Count;
    RSS = "rss" Octets;
    DNS_QUEUED = "dns-queued" Count;
    DNS_RUNNING = "dns-running" Count;
    DNS_CACHED = "dns-cached" Count;
    LOOP_LAG = "loop-lag" Micros;
    LOOP_P50 = "loop-p50" Micros;
    LOOP_P99 = "loop-p99" Micros;
    LOG_LINES_DROPPED = "log-lines-dropped" Count;
    CLOSING_IN = "closing-in" Millis;
    CONNECTIONS_ASSOCIATE = "connections-associate" Count;
    CONNECTIONS_BIND = "connections-bind" Count;
    TRUSTED_NETWORKS = "trusted-networks" Count;
    TRUSTED_EVERYWHERE = "trusted-everywhere" List;
    // USER-METRICS (§5.13), CONNECTIONS (§5.15), KILL (§5.16) and events (§5.18)
    USER = "user" Text;
    ROLE = "role" Text;
    TOTAL = "total" Count;
    UP = "up" Octets;
    DOWN = "down" Octets;
    LAST_SEEN = "last-seen" Text;
    ID = "id" Text;
    SOURCE = "source" Text;
    DESTINATION = "destination" Text;
    PEER = "peer" Text;
    STATE = "state" Text;
    AGE = "age" Millis;
    IDLE = "idle" Millis;
    BUFFERED = "buffered" Octets;
    TARGETS = "targets" Count;
    DATAGRAMS = "datagrams" Count;
    DROPPED = "dropped" Count;
    KILLED = "killed" Count;
    EVENT = "event" Text;
    TIME = "time" Text;
    REPLY = "reply" Count;
    DURATION = "duration" Millis;
    REASON = "reason" Text;
    ACCEPTED = "accepted" Count;
    SERVICE = "service" Text;
    RESULT = "result" Text;
    COUNT = "count" Count;
    // CONFIG GET (§5.17)
    KEY = "key" Text;
    VALUE = "value" Setting;
    UNIT = "unit" Text;
    MIN = "min" Setting;
    MAX = "max" Setting;
    APPLIES = "applies" Text;
    // TRUST (§5.21)
    NETWORK = "network" Text;
    // Accounts (§5.22 to §5.25)
    LOCKED = "locked" Text;
    ORIGIN = "origin" Text;
    PASSWORD = "password" Text;
    CREATED = "created" Text;
    ACCOUNTS = "accounts" Count;
    ADDED = "added" Count;
    DELETED = "deleted" Count;
    CHANGED = "changed" Count;
    SETTINGS = "settings" Count;
    // Limits (§5.26)
    CONNS = "conns" Count;
    SOURCES = "sources" Count;
    RATE = "rate" Text;
    QUOTA = "quota" Text;
    QUOTA_USED = "quota-used" Octets;
    EXPIRES = "expires" Text;
    FROM = "from" List;
    OF_ALL = "of-all" List;
    // Rules (§5.27)
    RULE = "rule" Count;
    HITS = "hits" Count;
    TEXT = "text" Line;
    VERDICT = "verdict" Text;
    BY = "by" Text;
    RULES = "rules" Count;
    CUT = "cut" Count;
}

/// Keys of `GET_METRICS` and `GET_METRICS ALL` (§5.2): `KEY: number`.
pub mod figure {
    use super::{MetpKey, ValueForm};

    // The first three are the whole of METP/1.0.
    keys! { ALL:
        HISTORICAL_CONNECTIONS = "HISTORICAL_CONNECTIONS" Count;
        CURRENT_CONNECTIONS = "CURRENT_CONNECTIONS" Count;
        BYTES_TRANSFERRED = "BYTES_TRANSFERRED" Octets;
        BYTES_UP = "BYTES_UP" Octets;
        BYTES_DOWN = "BYTES_DOWN" Octets;
        ACCEPTED = "ACCEPTED" Count;
        REFUSED_LIMIT = "REFUSED_LIMIT" Count;
        REFUSED_AUTH = "REFUSED_AUTH" Count;
        REFUSED_RULES = "REFUSED_RULES" Count;
        REPLY_0 = "REPLY_0" Count;
        REPLY_1 = "REPLY_1" Count;
        REPLY_2 = "REPLY_2" Count;
        REPLY_3 = "REPLY_3" Count;
        REPLY_4 = "REPLY_4" Count;
        REPLY_5 = "REPLY_5" Count;
        REPLY_6 = "REPLY_6" Count;
        REPLY_7 = "REPLY_7" Count;
        REPLY_8 = "REPLY_8" Count;
        HANDSHAKE_FAILED = "HANDSHAKE_FAILED" Count;
        DNS_QUERIES = "DNS_QUERIES" Count;
        DNS_FAILURES = "DNS_FAILURES" Count;
        DNS_CACHE_HITS = "DNS_CACHE_HITS" Count;
        CONNECT_TIME_LE_1MS = "CONNECT_TIME_LE_1MS" Count;
        CONNECT_TIME_LE_4MS = "CONNECT_TIME_LE_4MS" Count;
        CONNECT_TIME_LE_16MS = "CONNECT_TIME_LE_16MS" Count;
        CONNECT_TIME_LE_64MS = "CONNECT_TIME_LE_64MS" Count;
        CONNECT_TIME_LE_256MS = "CONNECT_TIME_LE_256MS" Count;
        CONNECT_TIME_LE_1S = "CONNECT_TIME_LE_1S" Count;
        CONNECT_TIME_LE_4S = "CONNECT_TIME_LE_4S" Count;
        CONNECT_TIME_LE_INF = "CONNECT_TIME_LE_INF" Count;
        METP_SESSIONS_TOTAL = "METP_SESSIONS_TOTAL" Count;
        METP_SESSIONS = "METP_SESSIONS" Count;
        METP_AUTH_FAILED = "METP_AUTH_FAILED" Count;
        EVENTS_LOST = "EVENTS_LOST" Count;
        LOG_LINES_DROPPED = "LOG_LINES_DROPPED" Count;
        PANICS = "PANICS" Count;
        CONNECTIONS_KILLED = "CONNECTIONS_KILLED" Count;
        UDP_ASSOCIATIONS = "UDP_ASSOCIATIONS" Count;
        UDP_ASSOCIATIONS_OPEN = "UDP_ASSOCIATIONS_OPEN" Count;
        UDP_DATAGRAMS_UP = "UDP_DATAGRAMS_UP" Count;
        UDP_DATAGRAMS_DOWN = "UDP_DATAGRAMS_DOWN" Count;
        UDP_DROPPED_STRANGER = "UDP_DROPPED_STRANGER" Count;
        UDP_DROPPED_FRAGMENT = "UDP_DROPPED_FRAGMENT" Count;
        UDP_DROPPED_MALFORMED = "UDP_DROPPED_MALFORMED" Count;
        UDP_DROPPED_RULES = "UDP_DROPPED_RULES" Count;
        UDP_DROPPED_FILTERED = "UDP_DROPPED_FILTERED" Count;
        UDP_DROPPED_NAME = "UDP_DROPPED_NAME" Count;
        UDP_DROPPED_SIZE = "UDP_DROPPED_SIZE" Count;
        UDP_DROPPED_BUSY = "UDP_DROPPED_BUSY" Count;
        UDP_DROPPED_ERROR = "UDP_DROPPED_ERROR" Count;
        UDP_KERNEL_DROPS = "UDP_KERNEL_DROPS" Count;
        CONNECT_ATTEMPTS = "CONNECT_ATTEMPTS" Count;
        CONNECT_RACES = "CONNECT_RACES" Count;
        CONNECT_LOST = "CONNECT_LOST" Count;
        BINDS = "BINDS" Count;
        BIND_STRANGERS = "BIND_STRANGERS" Count;
        LOGINS_SHED = "LOGINS_SHED" Count;
        STORE_ERRORS = "STORE_ERRORS" Count;
        COUNTED_SINCE = "COUNTED_SINCE" Count;
        LOGINS_OK = "LOGINS_OK" Count;
        LOGINS_FAILED = "LOGINS_FAILED" Count;
        LOGINS_QUEUED = "LOGINS_QUEUED" Count;
        STORE_OK = "STORE_OK" Count;
        RELOAD_OK = "RELOAD_OK" Count;
        RELOADED = "RELOADED" Count;
    }
}

use figure::ALL as FIGURES;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A client that knows the form of a key by its name may rely on it wherever the key stands.
    #[test]
    fn each_key_has_one_name_and_one_form() {
        let names: HashSet<&str> = ALL.iter().chain(&FIGURES).map(|key| key.name).collect();
        assert_eq!(names.len(), ALL.len() + FIGURES.len());
        for key in ALL.iter().chain(&FIGURES) {
            assert_eq!(MetpKey::find(key.name), Some(*key));
            assert_eq!(key.to_string(), key.name);
        }
    }

    #[test]
    fn values_are_found_by_their_keys() {
        let line = "id=17.3 user=a\\x20b peer=- up=12 x=y=z new";
        assert_eq!((ID.of(line), USER.of(line)), (Some("17.3"), Some("a\\x20b")));
        assert_eq!((PEER.of(line), value(line, "ser"), value(line, "new")), (None, None, None));
        assert_eq!(value(line, "x"), Some("y=z"));
        assert_eq!(pairs(line).count(), 5);
        assert_eq!((UP.digits(line), ID.digits(line), UP.digits("up=")), (Some("12"), None, None));
    }

    #[test]
    fn keys_are_spelt_as_the_grammar_has_it() {
        let lower = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let upper = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_');
        assert!(ALL.iter().all(|key| key.name.bytes().all(lower)));
        assert!(FIGURES.iter().all(|key| key.name.bytes().all(upper)));
    }
}
