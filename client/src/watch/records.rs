//! The records of the access log that are there when the watch begins. Those of tunnels that are still open are
//! left out: the connections show them, and the log tells of them when they end. Records have no id, so that it
//! has to be concluded which these are.

use std::cmp::Reverse;

use super::news::{ConnectionInfo, LogLine, address, cut, moment};
use crate::{render, units};

/// A record of GET_LOGS: `[time] user source destination octets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    line: LogLine,
    octets: u64,
}

impl LogRecord {
    /// Reads a line.
    pub fn parse(line: &[u8]) -> Self {
        let line = render::text(line);
        let mut words = line.split(' ').map(cut);
        let mut next = || words.next().unwrap_or_default();
        let (time, user, source, destination) = (next(), next(), next(), next());
        let octets = next().parse().unwrap_or(0);
        let line = LogLine {
            time: moment(time.trim_matches(['[', ']'])),
            user,
            source,
            destination,
            outcome: units::size(octets),
            warns: false,
        };
        LogRecord { line, octets }
    }

    /// Whether it may be that of this tunnel, which was asked for later and has not delivered less since.
    fn may_be_of(&self, tunnel: &ConnectionInfo) -> bool {
        let LogLine { user, source, destination, .. } = &self.line;
        *destination == tunnel.destination
            && *user == tunnel.user
            && source == address(&tunnel.source)
            && self.octets <= tunnel.bytes.total()
    }
}

/// The lines of those that are over. Of several that may be of an open tunnel, the one is that has delivered as
/// much as that, or nearly; among equal ones the newest.
pub fn over(mut records: Vec<LogRecord>, connections: &[ConnectionInfo]) -> Vec<LogLine> {
    let tunnels = connections.iter().filter(|connection| connection.state == "relay");
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

    /// The octets of those that are over. Records are told in short: user and octets.
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
        let lines = over(records.iter().map(record).collect(), &open);
        lines.into_iter().map(|line| format!("{} {}", line.user, line.outcome)).collect()
    }

    #[test]
    fn records_of_open_tunnels_are_left_out() {
        assert_eq!(left(&["amy 5", "bob 5"], &[]), ["amy 5 B", "bob 5 B"]);
        assert_eq!(left(&["amy 5", "bob 5"], &["amy 5"]), ["bob 5 B"]);
        // One record for each tunnel; the others of the same client are over.
        assert_eq!(left(&["amy 5", "amy 900", "amy 7"], &["amy 900"]), ["amy 5 B", "amy 7 B"]);
        assert_eq!(left(&["amy 5", "amy 900", "amy 7"], &["amy 9", "amy 901"]), ["amy 5 B"]);
        // It has moved on since.
        assert_eq!(left(&["amy 900", "amy 5"], &["amy 600"]), ["amy 900 B"]);
        assert_eq!(left(&["amy 5"], &["amy 4", "bob 9"]), ["amy 5 B"]);
    }

    #[test]
    fn a_request_that_has_no_tunnel_yet_has_no_record() {
        let record = || vec![LogRecord::parse(b"[2025-06-28T14:32:10Z] amy ::1 x:80 0")];
        let early = "id=1.1 user=amy source=[::1]:5000 destination=x:80 state=";
        let asked = |state| ConnectionInfo::parse(&format!("{early}{state}"));
        assert_eq!(over(record(), &[asked("connect")]).len(), 1);
        assert_eq!(over(record(), &[asked("relay")]).len(), 0);
    }
}
