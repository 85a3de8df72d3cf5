//! The access log: a ring of the newest tunnels for METP, one line for each request, and for the page of `--http` a ring of
//! the newest requests that are finished.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::{Traffic, json};
use crate::proto::socks5::{ReplyCode, Target};
use metp_protocol::text::Escaped;
use metp_protocol::timestamp::Timestamp;
use metp_protocol::{CloseEvent, ConnectionId, Event, Field, LogEvent};

/// A tunnel that was opened, as METP shows it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The time when it opened.
    pub time: Timestamp,
    /// The account's name.
    pub user: Rc<[u8]>,
    /// The client's address.
    pub source: IpAddr,
    /// DST.ADDR and DST.PORT of the request.
    pub target: Rc<Target>,
    /// Payload so far in both directions, in bytes.
    pub bytes: u64,
}

impl Record {
    /// The record as a line of METP, without its LF.
    pub fn line(&self) -> String {
        metp_protocol::log_line(self.time, &self.user, self.source, &self.target, self.bytes)
    }
}

/// The number of a record, from 0 on in order of opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordId(u64);

impl RecordId {
    /// The record opened next.
    pub fn next(self) -> Self {
        RecordId(self.0.saturating_add(1))
    }

    /// The record opened before, unless this is the first.
    pub fn before(self) -> Option<Self> {
        self.0.checked_sub(1).map(RecordId)
    }
}

/// What a line of the access log is about: its third field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request of SOCKS5.
    Socks5,
    /// A request of SOCKS4 or 4A.
    Socks4,
    /// A CONNECT of HTTP.
    Http,
    /// No request, but a target that an association sends to for the first time.
    DatagramTarget,
}

impl Kind {
    /// The letter or digit of the access log.
    pub fn letter(self) -> char {
        match self {
            Kind::Socks5 => 'A',
            Kind::Socks4 => '4',
            Kind::Http => 'H',
            Kind::DatagramTarget => 'U',
        }
    }
}

/// Finished requests that are kept for the page, if there is one.
pub const KEPT_REQUESTS: usize = 500;

/// A finished request, as a line of the access log shows it.
#[derive(Clone)]
pub struct FinishedRequest {
    /// The connection that made it.
    pub id: ConnectionId,
    /// The time of its end.
    pub time: Timestamp,
    /// The account's name.
    pub user: Rc<[u8]>,
    /// The client's address.
    pub source: SocketAddr,
    /// DST.ADDR and DST.PORT of the request.
    pub target: Rc<Target>,
    /// The reply.
    pub status: ReplyCode,
    /// Payload delivered.
    pub traffic: Traffic,
    /// The time from the request to its end.
    pub duration: Duration,
    /// The close reason in one word.
    pub reason: &'static str,
    /// What the line is about.
    pub kind: Kind,
    /// The line of the rule that has decided.
    pub rule: Option<u32>,
}

impl FinishedRequest {
    /// The event of the topic `logs`.
    pub fn log_event(&self) -> Event<'static> {
        Event::Log(LogEvent {
            time: Field::new(self.time),
            user: Field::name(&self.user),
            source: Field::new(self.source),
            destination: Field::new(&self.target),
            reply: self.status as u64,
            up: self.traffic.up,
            down: self.traffic.down,
            duration: self.duration,
            reason: Field::new(self.reason),
            rule: self.rule.map(u64::from),
        })
    }

    /// The pairs of the event of the topic `logs` as an object of JSON, and the kind.
    pub fn json(&self) -> String {
        let mut object = json::object(&self.log_event().to_string());
        object.pop();
        format!("{object},\"kind\":\"{}\"}}", self.kind.letter())
    }

    /// The event of the topic `connections`.
    pub fn close_event(&self) -> Event<'static> {
        Event::Close(CloseEvent {
            id: Field::new(self.id),
            user: Field::name(&self.user),
            source: Field::new(self.source),
            destination: Field::new(&self.target),
            up: self.traffic.up,
            down: self.traffic.down,
            duration: self.duration,
            reason: Field::new(self.reason),
            rule: self.rule.map(u64::from),
        })
    }
}

/// The form of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// Fields with tabs between them.
    #[default]
    Tsv,
    /// One JSON object in a line, with the keys of METP's event (§5.18).
    Json,
}

/// The access log.
pub struct AccessLog {
    records: VecDeque<Record>,
    /// The number of the oldest record that is kept.
    first: u64,
    capacity: usize,
    /// Whether lines have a thirteenth field, with the rule.
    pub shows_rules: bool,
    /// The form of the lines. `None`: there are none.
    pub format: Option<AccessLogFormat>,
    /// Lines that are gathered, to be written in one batch.
    lines: String,
    /// Whether the newest finished requests are kept.
    pub keeps_finished: bool,
    /// The newest of them, oldest first.
    finished: VecDeque<FinishedRequest>,
}

impl AccessLog {
    /// A log that keeps the newest `capacity` records.
    pub fn new(capacity: usize) -> Self {
        AccessLog {
            records: VecDeque::new(),
            first: 0,
            capacity,
            shows_rules: false,
            format: Some(AccessLogFormat::Tsv),
            lines: String::new(),
            keeps_finished: false,
            finished: VecDeque::new(),
        }
    }

    /// Keeps `capacity` records from now on.
    pub fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        let surplus = self.records.len().saturating_sub(capacity);
        self.records.drain(..surplus);
        self.first += surplus as u64;
        self.records.shrink_to(capacity);
    }

    /// A tunnel has been opened. Drops the oldest record if the log is full.
    pub fn open(&mut self, record: Record) -> RecordId {
        self.records.push_back(record);
        let id = self.first + (self.records.len() as u64 - 1);
        if self.records.len() > self.capacity {
            self.records.pop_front();
            self.first += 1;
        }
        RecordId(id)
    }

    /// Payload has been delivered. Nothing happens if the record is no longer kept.
    pub fn add_bytes(&mut self, id: RecordId, bytes: u64) {
        if let Some(record) = self.index(id).and_then(|index| self.records.get_mut(index)) {
            record.bytes += bytes;
        }
    }

    /// The first record not older than `id`, and its own number.
    pub fn at_or_after(&self, id: RecordId) -> Option<(RecordId, &Record)> {
        let id = id.max(RecordId(self.first));
        self.index(id).and_then(|index| self.records.get(index)).map(|record| (id, record))
    }

    /// The number of the oldest record that is kept.
    pub fn oldest(&self) -> RecordId {
        RecordId(self.first)
    }

    /// The number that the next record will have.
    pub fn end(&self) -> RecordId {
        RecordId(self.first + self.records.len() as u64)
    }

    /// A request is finished: gathers its line.
    pub fn close(&mut self, outcome: &FinishedRequest) {
        if self.keeps_finished {
            if self.finished.len() >= KEPT_REQUESTS {
                self.finished.pop_front();
            }
            self.finished.push_back(outcome.clone());
        }
        match self.format {
            None => {}
            Some(AccessLogFormat::Tsv) => self.close_as_tsv(outcome),
            Some(AccessLogFormat::Json) => self.close_as_json(outcome),
        }
    }

    /// The finished requests that are kept, the newest first.
    pub fn newest_finished(&self) -> impl Iterator<Item = &FinishedRequest> {
        self.finished.iter().rev()
    }

    fn close_as_json(&mut self, outcome: &FinishedRequest) {
        self.lines.push_str(&outcome.json());
        self.lines.push('\n');
    }

    /// Fields are separated by tabs; nothing from outside can hold one.
    fn close_as_tsv(&mut self, outcome: &FinishedRequest) {
        let FinishedRequest {
            time,
            user,
            source,
            target,
            status,
            traffic,
            duration,
            reason,
            kind,
            rule,
            id: _,
        } = outcome;
        let written = write!(
            self.lines,
            "{time}\t{}\t{}\t{}\t{}\t{}\t{}\t{status}\t{}\t{}\t{}\t{reason}",
            Escaped(user),
            kind.letter(),
            source.ip(),
            source.port(),
            target.host,
            target.port,
            traffic.up,
            traffic.down,
            duration.as_millis(),
        );
        let written = written.and_then(|()| match rule {
            _ if !self.shows_rules => self.lines.write_char('\n'),
            Some(line) => writeln!(self.lines, "\trule={line}"),
            None => writeln!(self.lines, "\trule=-"),
        });
        debug_assert!(written.is_ok(), "a String takes everything");
    }

    /// The number of gathered bytes.
    pub fn gathered(&self) -> usize {
        self.lines.len()
    }

    /// Takes the gathered lines.
    pub fn take_lines(&mut self) -> String {
        std::mem::take(&mut self.lines)
    }

    fn index(&self, id: RecordId) -> Option<usize> {
        id.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::proto::socks5::Host;

    fn record(number: u64) -> Record {
        let target = Target { host: Host::Name((*b"example.com").into()), port: 80 };
        Record {
            time: Timestamp::from(UNIX_EPOCH),
            user: (*b"alice").into(),
            source: [192, 0, 2, 1].into(),
            target: target.into(),
            bytes: number,
        }
    }

    fn kept(log: &AccessLog) -> Vec<u64> {
        let (mut bytes, mut next) = (Vec::new(), log.oldest());
        while let Some((id, record)) = log.at_or_after(next) {
            bytes.push(record.bytes);
            next = id.next();
        }
        bytes
    }

    #[test]
    fn the_newest_records_are_kept_oldest_first() {
        let mut log = AccessLog::new(3);
        let ids: Vec<RecordId> = (0..5).map(|number| log.open(record(number))).collect();
        assert_eq!(kept(&log), [2, 3, 4]);
        log.add_bytes(ids[4], 100);
        log.add_bytes(ids[0], 100);
        assert_eq!(kept(&log), [2, 3, 104]);
        assert_eq!(log.at_or_after(ids[0]).map(|(id, _)| id), Some(ids[2]));
        assert_eq!(log.end(), ids[4].next());
    }

    #[test]
    fn a_log_may_keep_nothing() {
        let mut log = AccessLog::new(0);
        let id = log.open(record(0));
        log.add_bytes(id, 1);
        assert_eq!(kept(&log), [0; 0]);
    }

    #[test]
    fn a_line_for_each_request() {
        let mut log = AccessLog::new(1);
        let target = Target { host: Host::Name((*b"a\tb").into()), port: 443 };
        log.close(&FinishedRequest {
            id: ConnectionId { slot: 0, generation: 0 },
            time: Timestamp::from(UNIX_EPOCH),
            user: (*b"al ice").into(),
            source: "[2001:db8::1]:5000".parse().expect("a literal"),
            target: target.into(),
            status: ReplyCode::ConnectionRefused,
            traffic: Traffic { up: 1, down: 2, record: None },
            duration: Duration::from_micros(3999),
            reason: "refused",
            kind: Kind::Socks5,
            rule: None,
        });
        assert_eq!(
            log.take_lines(),
            "1970-01-01T00:00:00Z\tal\\x20ice\tA\t2001:db8::1\t5000\ta\\x09b\t443\t5\t1\t2\t3\trefused\n"
        );
        assert_eq!(log.take_lines(), "");
    }
}
