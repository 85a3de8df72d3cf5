//! Snapshots, events and records as data, parsed from lines of the server. They are not trusted: texts are
//! printable and short, and a value that is missing or malformed counts as none.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use metp_protocol::text::split_endpoint;
use metp_protocol::timestamp::Timestamp;
use metp_protocol::{
    CloseEvent, ConnectionLine, Event, Field, Info, LogEvent, LogWords, OpenEvent, Stage,
};

use super::limits::UserLimits;
use crate::locale::LocalTime;
use crate::{render, units};

/// The longest text that is kept, in characters; those of a METP server are shorter (METP §3.4).
const MAX_TEXT_CHARS: usize = 300;

/// Payload octets, or octets per second, in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From clients to destinations.
    pub up: u64,
    /// From destinations to clients.
    pub down: u64,
}

impl Bytes {
    /// The sum of both directions.
    pub fn total(self) -> u64 {
        self.up.saturating_add(self.down)
    }

    /// Adds up each direction.
    #[must_use]
    pub fn plus(self, other: Bytes) -> Self {
        let (up, down) = (self.up.saturating_add(other.up), self.down.saturating_add(other.down));
        Bytes { up, down }
    }

    /// The difference to an earlier count, in each direction.
    #[must_use]
    pub fn since(self, before: Bytes) -> Self {
        let (up, down) = (self.up.saturating_sub(before.up), self.down.saturating_sub(before.down));
        Bytes { up, down }
    }

    /// Octets per second in each direction, if these were delivered within `period`.
    #[must_use]
    pub fn per_second(self, period: Duration) -> Self {
        let rate = |octets| per_second(octets, period);
        Bytes { up: rate(self.up), down: rate(self.down) }
    }
}

/// Octets per second if `octets` were delivered within `period`; 0 if that is zero.
pub fn per_second(octets: u64, period: Duration) -> u64 {
    let nanos = u128::from(octets).saturating_mul(1_000_000_000);
    nanos.checked_div(period.as_nanos()).map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

/// A SOCKS connection, as CONNECTIONS or an event describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The id that KILL takes.
    pub id: String,
    /// The account, or `-` before the login.
    pub user: String,
    /// Address and port of the client.
    pub source: String,
    /// The destination of the request, or `-` before it.
    pub destination: String,
    /// The state, as `relay`.
    pub state: String,
    /// The time since it was accepted.
    pub age: Duration,
    /// The payload delivered so far.
    pub bytes: Bytes,
}

impl ConnectionInfo {
    /// Parses a line of CONNECTIONS.
    pub fn parse(line: &str) -> Self {
        let line = ConnectionLine::parse(line);
        ConnectionInfo {
            id: text(&line.id),
            user: text(&line.user),
            source: text(&line.source),
            destination: text(&line.destination),
            state: text(&line.state),
            age: line.age,
            bytes: Bytes { up: line.up, down: line.down },
        }
    }

    fn opened(event: &OpenEvent<'_>) -> Self {
        ConnectionInfo {
            id: text(&event.id),
            user: text(&event.user),
            source: text(&event.source),
            destination: text(&event.destination),
            // The event has none.
            state: text(&Field::NONE),
            ..ConnectionInfo::default()
        }
    }

    fn closed(event: &CloseEvent<'_>) -> Self {
        ConnectionInfo {
            id: text(&event.id),
            user: text(&event.user),
            source: text(&event.source),
            destination: text(&event.destination),
            state: text(&Field::NONE),
            bytes: Bytes { up: event.up, down: event.down },
            ..ConnectionInfo::default()
        }
    }
}

/// The state of the server at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The time of the snapshot.
    pub at: Instant,
    /// The number of open SOCKS connections.
    pub connections: u64,
    /// The payload delivered since the start of the server.
    pub bytes: Bytes,
    pub status: ServerStatus,
    /// The open connections.
    pub list: Vec<ConnectionInfo>,
    /// The limits of their users, as far as they have any.
    pub limits: HashMap<String, UserLimits>,
}

/// The part of INFO that is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerStatus {
    /// `running` or `closing`.
    pub state: String,
    /// The time since the start of the server.
    pub uptime: Duration,
    /// The limit of SOCKS connections.
    pub limit: u64,
    /// The time that a draining server still waits for its connections.
    pub closing_in: Option<Duration>,
}

impl ServerStatus {
    /// Parses the lines of INFO.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let info = Info::parse(lines);
        ServerStatus {
            state: text(&info.state),
            uptime: info.uptime,
            limit: info.connections_limit,
            closing_in: info.closing_in,
        }
    }
}

/// An event of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// A tunnel was opened.
    Opened(ConnectionInfo),
    /// A tunnel was closed, with its duration.
    Closed(ConnectionInfo, Duration),
    /// A request has finished; or events were lost.
    Logged(LogLine),
}

impl WatchEvent {
    /// Parses an event; `None` for those that are not shown.
    pub fn parse(topic: &str, pairs: &str) -> Option<Self> {
        Some(match Event::parse(topic, pairs)? {
            Event::Open(event) => WatchEvent::Opened(ConnectionInfo::opened(&event)),
            Event::Close(event) => {
                WatchEvent::Closed(ConnectionInfo::closed(&event), event.duration)
            }
            Event::Log(event) => WatchEvent::Logged(LogLine::from_event(&event)),
            Event::Lost(count) => WatchEvent::Logged(LogLine::lost(count)),
            Event::Metrics(_) | Event::Auth(_) => return None,
        })
    }
}

/// A line of the access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogLine {
    /// Month to second, in local time.
    pub time: String,
    pub user: String,
    /// The address of the client, without its port.
    pub source: String,
    /// The destination of the request.
    pub destination: String,
    /// What became of the request.
    pub outcome: String,
    /// Whether the request failed, or events were lost.
    pub warns: bool,
}

impl LogLine {
    fn from_event(event: &LogEvent<'_>) -> Self {
        let reason = text(&event.reason);
        let outcome = if event.reply == 0 {
            let octets = units::size(Bytes { up: event.up, down: event.down }.total());
            format!("{octets} in {}, {reason}", units::age(event.duration))
        } else {
            format!("reply {}, {reason}", event.reply)
        };
        LogLine {
            time: moment(&text(&event.time)),
            user: text(&event.user),
            // Without the port, as in records.
            source: address(&text(&event.source)).to_owned(),
            destination: text(&event.destination),
            outcome,
            warns: event.reply != 0,
        }
    }

    fn lost(count: u64) -> Self {
        LogLine { outcome: format!("{count} events lost"), warns: true, ..LogLine::default() }
    }
}

/// The host of `HOST:PORT`: `::1` of `[::1]:80`.
pub fn address(endpoint: &str) -> &str {
    split_endpoint(endpoint).map_or(endpoint, |(address, _)| address)
}

/// The local time of a timestamp: `06-28 14:32:10` of `2025-06-28T14:32:10Z`. Text that is no timestamp is
/// returned unchanged.
pub fn moment(timestamp: &str) -> String {
    let local = Timestamp::parse(timestamp).and_then(LocalTime::at);
    local.map_or_else(|| timestamp.to_owned(), LocalTime::without_year)
}

fn text(field: &Field<'_>) -> String {
    cut(field.as_str())
}

/// The text, cut to [`MAX_TEXT_CHARS`].
pub fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

/// A record of GET_LOGS: `[time] user source destination octets`. It has no connection id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    line: LogLine,
    octets: u64,
}

impl LogRecord {
    /// Parses a line.
    pub fn parse(line: &[u8]) -> Self {
        let line = render::text(line);
        let words = LogWords::parse(&line);
        let octets = words.bytes.parse().unwrap_or(0);
        let line = LogLine {
            time: moment(&cut(words.time)),
            user: cut(words.user),
            source: cut(words.source),
            destination: cut(words.destination),
            outcome: units::size(octets),
            warns: false,
        };
        LogRecord { line, octets }
    }

    /// Whether it may be the record of this open tunnel, whose bytes were read later and cannot have become
    /// fewer.
    fn may_be_of(&self, tunnel: &ConnectionInfo) -> bool {
        let LogLine { user, source, destination, .. } = &self.line;
        *destination == tunnel.destination
            && *user == tunnel.user
            && source == address(&tunnel.source)
            && self.octets <= tunnel.bytes.total()
    }
}

/// The lines of finished requests among `records`. Records of open tunnels are left out: the table of
/// connections shows these, and an event comes when they finish. Which record belongs to a tunnel has to be
/// guessed, as records have no id: the one with the most bytes of those that may, and the newest among equals.
pub fn finished(mut records: Vec<LogRecord>, connections: &[ConnectionInfo]) -> Vec<LogLine> {
    let tunnels = connections.iter().filter(|connection| connection.state == Stage::Relay.word());
    let mut tunnels: Vec<&ConnectionInfo> = tunnels.collect();
    tunnels.sort_by_key(|tunnel| Reverse(tunnel.bytes.total()));
    for tunnel in tunnels {
        let candidates = records.iter().enumerate().filter(|(_, record)| record.may_be_of(tunnel));
        if let Some((index, _)) = candidates.max_by_key(|(_, record)| record.octets) {
            records.remove(index);
        }
    }
    records.into_iter().map(|record| record.line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections() {
        let line = "id=17.3 user=a\\x20b source=127.0.0.1:5000 destination=[::1]:80 peer=[::1]:80 \
                    state=relay age=12.500 idle=0.000 up=512 down=1024 buffered=0 new=1";
        let connection = ConnectionInfo::parse(line);
        assert_eq!(connection.id, "17.3");
        assert_eq!(connection.user, "a\\x20b");
        assert_eq!(
            (connection.source.as_str(), connection.destination.as_str()),
            ("127.0.0.1:5000", "[::1]:80")
        );
        assert_eq!(connection.age, Duration::from_millis(12_500));
        assert_eq!(connection.bytes, Bytes { up: 512, down: 1024 });
        let odd =
            ConnectionInfo::parse("id=1.1 age=1e999 up=-1 user=- down=99999999999999999999999");
        assert_eq!(
            (odd.user.as_str(), odd.age, odd.bytes),
            ("-", Duration::ZERO, Bytes::default())
        );
        assert_eq!(
            ConnectionInfo::parse(&format!("user={}", "x".repeat(60_000))).user.len(),
            MAX_TEXT_CHARS
        );
    }

    #[test]
    fn lines_of_the_log() {
        let shown = |line: LogLine| {
            [line.time, line.user, line.source, line.destination, line.outcome].join("|")
        };
        let fields = "time=2025-06-28T14:32:10Z user=amy source=[::1]:5 destination=x:80 reply=0 \
                      up=512 down=512 duration=61.000 reason=killed";
        let line = LogLine::from_event(&LogEvent::parse(fields));
        assert!(!line.warns);
        let time = moment("2025-06-28T14:32:10Z");
        assert_eq!(shown(line), format!("{time}|amy|::1|x:80|1.0 KiB in 1m01s, killed"));
        let refused = fields.replace("reply=0", "reply=2").replace("killed", "refused");
        let line = LogLine::from_event(&LogEvent::parse(&refused));
        assert!(line.warns);
        assert_eq!(shown(line), format!("{time}|amy|::1|x:80|reply 2, refused"));
        assert_eq!(moment("06-28T14:32Z"), "06-28T14:32Z");
    }

    #[test]
    fn events() {
        let who = "id=1.1 user=amy source=127.0.0.1:5 destination=x:80";
        let opened = WatchEvent::parse("connections", &format!("event=open {who}"));
        assert_eq!(
            opened,
            Some(WatchEvent::Opened(ConnectionInfo {
                state: "-".into(),
                ..ConnectionInfo::parse(who)
            }))
        );
        let closed = format!("event=close {who} up=1 down=2 duration=0.500 reason=finished");
        let Some(WatchEvent::Closed(connection, duration)) =
            WatchEvent::parse("connections", &closed)
        else {
            panic!("an end")
        };
        assert_eq!((connection.bytes.total(), duration), (3, Duration::from_millis(500)));
        let lost = WatchEvent::parse("lost", "count=17");
        assert_eq!(lost, Some(WatchEvent::Logged(LogLine::lost(17))));
        let logged = WatchEvent::parse("logs", who);
        assert_eq!(logged, Some(WatchEvent::Logged(LogLine::from_event(&LogEvent::parse(who)))));
        assert_eq!(WatchEvent::parse("metrics", "time=x"), None);
        assert_eq!(WatchEvent::parse("connections", "event=moved"), None);
    }

    #[test]
    fn rates() {
        assert_eq!(per_second(1000, Duration::from_millis(500)), 2000);
        assert_eq!(per_second(1000, Duration::ZERO), 0);
        assert_eq!(per_second(u64::MAX, Duration::from_nanos(1)), u64::MAX);
    }

    #[test]
    fn status() {
        let mut lines = vec![
            "version=0.1.0",
            "uptime=90.500",
            "state=running",
            "closing-in=-",
            "connections=1",
            "connections-limit=480",
        ];
        let status = ServerStatus::parse(lines.iter().copied());
        let uptime = Duration::from_millis(90_500);
        let expected =
            ServerStatus { state: "running".into(), uptime, limit: 480, closing_in: None };
        assert_eq!(status, expected);
        lines[3] = "closing-in=3.250";
        let status = ServerStatus::parse(lines);
        assert_eq!(status.closing_in, Some(Duration::from_millis(3250)));
    }

    #[test]
    fn lines() {
        let record = LogRecord::parse(b"[2025-06-28T14:32:10Z] amy 127.0.0.1 [::1]:80 1536");
        let line = LogLine {
            time: moment("2025-06-28T14:32:10Z"),
            user: "amy".into(),
            source: "127.0.0.1".into(),
            destination: "[::1]:80".into(),
            outcome: "1.5 KiB".into(),
            warns: false,
        };
        assert_eq!(record, LogRecord { line, octets: 1536 });
        assert_eq!(LogRecord::parse(b"").octets, 0);
    }

    /// The lines of finished requests, as user and size. Records and tunnels are written as user and octets.
    fn left(records: &[&str], open: &[&str]) -> Vec<String> {
        let record = |text: &&str| {
            let (user, octets) = text.split_once(' ').unwrap();
            LogRecord::parse(format!("[2025-06-28T14:32:10Z] {user} ::1 x:80 {octets}").as_bytes())
        };
        let tunnel = |text: &&str| {
            let (user, octets) = text.split_once(' ').unwrap();
            ConnectionInfo::parse(&format!(
                "id=1.1 user={user} source=[::1]:5000 destination=x:80 state=relay up=0 down={octets}"
            ))
        };
        let open: Vec<ConnectionInfo> = open.iter().map(tunnel).collect();
        let lines = finished(records.iter().map(record).collect(), &open);
        lines.into_iter().map(|line| format!("{} {}", line.user, line.outcome)).collect()
    }

    #[test]
    fn records_of_open_tunnels_are_left_out() {
        assert_eq!(left(&["amy 5", "bob 5"], &[]), ["amy 5 B", "bob 5 B"]);
        assert_eq!(left(&["amy 5", "bob 5"], &["amy 5"]), ["bob 5 B"]);
        // One record belongs to each tunnel; others of that client have finished.
        assert_eq!(left(&["amy 5", "amy 900", "amy 7"], &["amy 900"]), ["amy 5 B", "amy 7 B"]);
        assert_eq!(left(&["amy 5", "amy 900", "amy 7"], &["amy 9", "amy 901"]), ["amy 5 B"]);
        // The tunnel cannot have fewer octets than its record.
        assert_eq!(left(&["amy 900", "amy 5"], &["amy 600"]), ["amy 900 B"]);
        assert_eq!(left(&["amy 5"], &["amy 4", "bob 9"]), ["amy 5 B"]);
    }

    #[test]
    fn a_request_that_has_no_tunnel_yet_has_no_record() {
        let record = || vec![LogRecord::parse(b"[2025-06-28T14:32:10Z] amy ::1 x:80 0")];
        let early = "id=1.1 user=amy source=[::1]:5000 destination=x:80 state=";
        let asked = |state| ConnectionInfo::parse(&format!("{early}{state}"));
        assert_eq!(finished(record(), &[asked("connect")]).len(), 1);
        assert_eq!(finished(record(), &[asked("relay")]).len(), 0);
    }
}
