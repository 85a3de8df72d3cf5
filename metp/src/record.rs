//! Lines and bodies made of pairs (§3.4): which keys each has, in which order, and of which types. One table
//! for each writes it and reads it.
//!
//! A reader skips keys that it does not know, as later versions append some. Values that are missing are `-`,
//! none or zero.

use std::fmt;
use std::time::Duration;

use super::ended;
use super::field::{Field, Value};
use super::key::{self, MetpKey, find, pairs};

/// Writes pairs with a separator between two of them.
struct Pairs<'f, 'b> {
    f: &'f mut fmt::Formatter<'b>,
    separator: &'static str,
    begun: bool,
}

impl Pairs<'_, '_> {
    fn put<'a>(&mut self, key: MetpKey, value: &impl Value<'a>) -> fmt::Result {
        if self.begun {
            self.f.write_str(self.separator)?;
        }
        self.begun = true;
        write!(self.f, "{key}=")?;
        value.write(key.form, self.f)
    }
}

/// Declares a record: for each pair its key, the field and its type. Displays with a blank between two pairs.
macro_rules! record {
    (
        $(#[$about:meta])*
        $name:ident {
            $($(#[$what:meta])* $key:ident $field:ident: $type:ty,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the protocol explains its keys")]
        pub struct $name<'a> {
            $($(#[$what])* pub $field: $type,)+
        }

        impl<'a> $name<'a> {
            /// The keys, in their order.
            pub const KEYS: [MetpKey; [$(stringify!($key)),+].len()] = [$(key::$key),+];

            fn write(
                &self,
                f: &mut fmt::Formatter<'_>,
                separator: &'static str,
            ) -> fmt::Result {
                let mut pairs = Pairs { f, separator, begun: false };
                $(pairs.put(key::$key, &self.$field)?;)+
                Ok(())
            }

            fn read(pairs: &[(&'a str, &'a str)]) -> Self {
                let value = |key: MetpKey| find(pairs.iter().copied(), key.name);
                $name {
                    $($field: value(key::$key).and_then(Value::read).unwrap_or_default(),)+
                }
            }
        }
    };
}

/// Declares a record that is a line, or the fields of an event.
macro_rules! line {
    ($(#[$about:meta])* $name:ident $fields:tt) => {
        record! { $(#[$about])* $name $fields }

        impl<'a> $name<'a> {
            /// Reads a line without its LF. Keys that it does not know are skipped.
            pub fn parse(line: &'a str) -> Self {
                Self::read(&pairs(line).collect::<Vec<_>>())
            }
        }

        /// The line without its LF.
        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.write(f, " ")
            }
        }
    };
}

/// Declares a record that is a body with one pair in each line.
macro_rules! body {
    ($(#[$about:meta])* $name:ident $fields:tt) => {
        record! { $(#[$about])* $name $fields }

        impl<'a> $name<'a> {
            /// Reads the lines of a body, without their LF. Keys that it does not know are skipped.
            pub fn parse(lines: impl IntoIterator<Item = &'a str>) -> Self {
                let pairs = lines.into_iter().filter_map(|line| line.split_once('='));
                Self::read(&pairs.collect::<Vec<_>>())
            }

            /// The lines, each with its LF.
            pub fn lines(&self) -> String {
                self.to_string().lines().map(|line| ended(line.to_owned())).collect()
            }
        }

        /// The lines with an LF between two of them.
        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.write(f, "\n")
            }
        }
    };
}

body! {
    /// The body of `CAPA` (§5.10).
    ///
    /// ```
    /// let capa = metp_protocol::Capabilities::parse(["version=0.1.0", "verbs=QUIT,CAPA", "name-octets=64"]);
    /// assert_eq!(capa.verbs.as_str().split(',').collect::<Vec<_>>(), ["QUIT", "CAPA"]);
    /// assert_eq!(capa.name_octets, 64);
    /// ```
    Capabilities {
        IMPLEMENTATION implementation: Field<'a>,
        VERSION version: Field<'a>,
        PROTOCOL protocol: Field<'a>,
        VERBS verbs: Field<'a>,
        TOPICS topics: Field<'a>,
        COMMAND_OCTETS command_octets: u64,
        REPLY_OCTETS reply_octets: u64,
        NAME_OCTETS name_octets: u64,
        PASSWORD_OCTETS password_octets: u64,
        UNSENT_OCTETS unsent_octets: u64,
        SUBSCRIBERS subscribers: u64,
    }
}

body! {
    /// The body of `INFO` (§5.12).
    ///
    /// ```
    /// use std::time::Duration;
    /// use metp_protocol::Info;
    ///
    /// let info = Info::parse(["state=closing", "uptime=90.500", "closing-in=3.250", "later-key=1"]);
    /// assert_eq!(info.state.as_str(), "closing");
    /// assert_eq!(info.uptime, Duration::from_millis(90_500));
    /// assert_eq!(info.closing_in, Some(Duration::from_millis(3250)));
    /// ```
    Info {
        IMPLEMENTATION implementation: Field<'a>,
        VERSION version: Field<'a>,
        PID pid: u64,
        UPTIME uptime: Duration,
        STATE state: Field<'a>,
        DESCRIPTORS descriptors: u64,
        DESCRIPTORS_LIMIT descriptors_limit: u64,
        CONNECTIONS connections: u64,
        CONNECTIONS_LIMIT connections_limit: u64,
        CONNECTIONS_HELLO connections_hello: u64,
        CONNECTIONS_AUTH connections_auth: u64,
        CONNECTIONS_REQUEST connections_request: u64,
        CONNECTIONS_RESOLVE connections_resolve: u64,
        CONNECTIONS_CONNECT connections_connect: u64,
        CONNECTIONS_RELAY connections_relay: u64,
        CONNECTIONS_LINGER connections_linger: u64,
        METP_SESSIONS metp_sessions: u64,
        METP_SESSIONS_LIMIT metp_sessions_limit: u64,
        SUBSCRIBERS subscribers: u64,
        BUFFERS buffers: u64,
        BUFFERS_LIMIT buffers_limit: u64,
        PIPES pipes: u64,
        RSS rss: u64,
        DNS_QUEUED dns_queued: u64,
        DNS_RUNNING dns_running: u64,
        DNS_CACHED dns_cached: u64,
        LOOP_LAG loop_lag: Duration,
        LOOP_P50 loop_p50: Duration,
        LOOP_P99 loop_p99: Duration,
        LOG_LINES_DROPPED log_lines_dropped: u64,
        CLOSING_IN closing_in: Option<Duration>,
        CONNECTIONS_ASSOCIATE connections_associate: u64,
        CONNECTIONS_BIND connections_bind: u64,
        TRUSTED_NETWORKS trusted_networks: u64,
        TRUSTED_EVERYWHERE trusted_everywhere: Field<'a>,
    }
}

line! {
    /// A line of `USER-METRICS` (§5.13).
    ///
    /// ```
    /// use metp_protocol::{Field, UsageLine};
    ///
    /// let usage = UsageLine { user: Field::name(b"a b"), role: Field::new("user"), up: 512, ..UsageLine::default() };
    /// let line = "user=a\\x20b role=user connections=0 total=0 up=512 down=0 last-seen=- locked=- origin=- \
    ///             quota=- quota-used=- expires=- sources=- rate=-";
    /// assert_eq!(usage.to_string(), line);
    /// assert_eq!(UsageLine::parse(line), usage);
    /// ```
    UsageLine {
        USER user: Field<'a>,
        ROLE role: Field<'a>,
        CONNECTIONS connections: u64,
        TOTAL total: u64,
        UP up: u64,
        DOWN down: u64,
        LAST_SEEN last_seen: Field<'a>,
        LOCKED locked: Field<'a>,
        ORIGIN origin: Field<'a>,
        QUOTA quota: Field<'a>,
        QUOTA_USED quota_used: Field<'a>,
        EXPIRES expires: Field<'a>,
        SOURCES sources: Field<'a>,
        RATE rate: Field<'a>,
    }
}

line! {
    /// A line of `CONNECTIONS` (§5.15).
    ///
    /// ```
    /// use std::time::Duration;
    /// use metp_protocol::{ConnectionLine, Field};
    ///
    /// let line = ConnectionLine::parse("id=17.3 user=- state=relay age=12.500 up=x later-key=1");
    /// assert_eq!((line.id.as_str(), line.state.as_str()), ("17.3", "relay"));
    /// assert_eq!((line.user, line.peer), (Field::NONE, Field::NONE));
    /// assert_eq!((line.age, line.up), (Duration::from_millis(12_500), 0));
    /// ```
    ConnectionLine {
        ID id: Field<'a>,
        USER user: Field<'a>,
        SOURCE source: Field<'a>,
        DESTINATION destination: Field<'a>,
        PEER peer: Field<'a>,
        STATE state: Field<'a>,
        AGE age: Duration,
        IDLE idle: Duration,
        UP up: u64,
        DOWN down: u64,
        BUFFERED buffered: u64,
        TARGETS targets: Option<u64>,
        DATAGRAMS datagrams: Option<u64>,
        DROPPED dropped: Option<u64>,
        RULE rule: Option<u64>,
    }
}

line! {
    /// A line of `CONFIG GET` (§5.17).
    ///
    /// ```
    /// let line = "key=grace value=10 unit=seconds min=0 max=86400 applies=now";
    /// assert_eq!(metp_protocol::SettingLine::parse(line).value.as_str(), "10");
    /// ```
    SettingLine {
        KEY key: Field<'a>,
        VALUE value: Field<'a>,
        UNIT unit: Field<'a>,
        MIN min: Field<'a>,
        MAX max: Field<'a>,
        APPLIES applies: Field<'a>,
        SOURCE source: Field<'a>,
    }
}

line! {
    /// A line of `LIMITS` (§5.26).
    ///
    /// ```
    /// let line = "user=alice conns=20 sources=- rate=10Mbit quota=50GB/month expires=- from=- of-all=rate";
    /// assert_eq!(metp_protocol::LimitsLine::parse(line).rate.as_str(), "10Mbit");
    /// ```
    LimitsLine {
        USER user: Field<'a>,
        CONNS conns: Field<'a>,
        SOURCES sources: Field<'a>,
        RATE rate: Field<'a>,
        QUOTA quota: Field<'a>,
        EXPIRES expires: Field<'a>,
        FROM from: Field<'a>,
        OF_ALL of_all: Field<'a>,
    }
}

line! {
    /// A line of `RULES` (§5.27).
    ///
    /// ```
    /// let line = metp_protocol::RuleLine::parse("rule=3 hits=7 text=deny\\x20port\\x2025");
    /// assert_eq!((line.rule, line.hits), (3, 7));
    /// ```
    RuleLine {
        RULE rule: u64,
        HITS hits: u64,
        TEXT text: Field<'a>,
    }
}

line! {
    /// The line of `RULES TEST` (§5.27).
    ///
    /// ```
    /// let line = metp_protocol::VerdictLine::parse("verdict=deny by=own-port rule=- text=-");
    /// assert_eq!((line.verdict.as_str(), line.rule), ("deny", None));
    /// ```
    VerdictLine {
        VERDICT verdict: Field<'a>,
        BY by: Field<'a>,
        RULE rule: Option<u64>,
        TEXT text: Field<'a>,
    }
}

line! {
    /// A line of `TRUST` (§5.21).
    ///
    /// ```
    /// assert_eq!(metp_protocol::TrustLine::parse("network=10.0.0.0/8").network.as_str(), "10.0.0.0/8");
    /// ```
    TrustLine {
        NETWORK network: Field<'a>,
    }
}

line! {
    /// A tunnel has opened: `connections event=open` (§5.18).
    ///
    /// ```
    /// let line = "id=17.3 user=alice source=192.0.2.1:5000 destination=example.com:80 rule=7";
    /// assert_eq!(metp_protocol::OpenEvent::parse(line).to_string(), line);
    /// ```
    OpenEvent {
        ID id: Field<'a>,
        USER user: Field<'a>,
        SOURCE source: Field<'a>,
        DESTINATION destination: Field<'a>,
        RULE rule: Option<u64>,
    }
}

line! {
    /// A tunnel has ended: `connections event=close` (§5.18).
    ///
    /// ```
    /// let event = metp_protocol::CloseEvent::parse("id=17.3 up=512 down=1024 reason=killed");
    /// assert_eq!((event.up, event.down, event.reason.as_str()), (512, 1024, "killed"));
    /// ```
    CloseEvent {
        ID id: Field<'a>,
        USER user: Field<'a>,
        SOURCE source: Field<'a>,
        DESTINATION destination: Field<'a>,
        UP up: u64,
        DOWN down: u64,
        DURATION duration: Duration,
        REASON reason: Field<'a>,
        RULE rule: Option<u64>,
    }
}

line! {
    /// A request is over: `logs` (§5.18).
    ///
    /// ```
    /// let event = metp_protocol::LogEvent::parse("time=2025-06-28T14:32:10Z user=alice reply=5 reason=refused");
    /// assert_eq!((event.time.as_str(), event.reply), ("2025-06-28T14:32:10Z", 5));
    /// ```
    LogEvent {
        TIME time: Field<'a>,
        USER user: Field<'a>,
        SOURCE source: Field<'a>,
        DESTINATION destination: Field<'a>,
        REPLY reply: u64,
        UP up: u64,
        DOWN down: u64,
        DURATION duration: Duration,
        REASON reason: Field<'a>,
        RULE rule: Option<u64>,
    }
}

line! {
    /// Totals: `metrics` (§5.18).
    ///
    /// ```
    /// let event = metp_protocol::MetricsEvent::parse("accepted=7 connections=2 up=512 down=1024");
    /// assert_eq!((event.accepted, event.connections), (7, 2));
    /// ```
    MetricsEvent {
        TIME time: Field<'a>,
        ACCEPTED accepted: u64,
        CONNECTIONS connections: u64,
        UP up: u64,
        DOWN down: u64,
    }
}

line! {
    /// A login: `auth` (§5.18).
    ///
    /// ```
    /// let event = metp_protocol::AuthEvent::parse("service=socks user=alice source=[::1]:5000 result=ok");
    /// assert_eq!((event.service.as_str(), event.result.as_str()), ("socks", "ok"));
    /// ```
    AuthEvent {
        SERVICE service: Field<'a>,
        USER user: Field<'a>,
        SOURCE source: Field<'a>,
        RESULT result: Field<'a>,
    }
}

#[cfg(test)]
mod tests;
