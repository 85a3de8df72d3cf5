//! The newest failed logins, for the page of `--http`. Those of one source with one name are one row with a count, so that
//! a program that tries passwords does not hide the others.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::service::Service;

/// Rows that are kept. Each takes 64 bytes and the name, which has up to 255.
pub const ROWS: usize = 100;

/// Failed logins of one source with one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedLogin {
    /// The newest of them, in seconds of UNIX time.
    pub time: u64,
    /// What the client has logged in to.
    pub service: Service,
    /// The client's address.
    pub source: IpAddr,
    /// The name; no account need have it.
    pub user: Box<[u8]>,
    /// How many there were.
    pub count: u64,
}

/// The rows.
#[derive(Debug, Default)]
pub struct FailedLogins(VecDeque<FailedLogin>);

impl FailedLogins {
    /// A login has failed.
    pub fn record(&mut self, time: u64, service: Service, source: IpAddr, user: &[u8]) {
        let is_such = |row: &FailedLogin| {
            row.source == source && row.service == service && *row.user == *user
        };
        let earlier = self.0.iter().rposition(is_such).and_then(|at| self.0.remove(at));
        let count = earlier.map_or(0, |row| row.count).saturating_add(1);
        if self.0.len() >= ROWS {
            self.0.pop_front();
        }
        self.0.push_back(FailedLogin { time, service, source, user: user.into(), count });
    }

    /// The rows, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &FailedLogin> {
        self.0.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_one_source_and_name_are_one_row() {
        let mut failed = FailedLogins::default();
        let (one, two) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        failed.record(10, Service::Socks, one, b"alice");
        failed.record(11, Service::Socks, two, b"alice");
        failed.record(12, Service::Metp, one, b"alice");
        failed.record(13, Service::Socks, one, b"bob");
        failed.record(14, Service::Socks, one, b"alice");
        let rows: Vec<_> = failed
            .newest_first()
            .map(|row| (row.time, row.service, row.source, &*row.user, row.count))
            .collect();
        assert_eq!(
            rows,
            [
                (14, Service::Socks, one, &b"alice"[..], 2),
                (13, Service::Socks, one, b"bob", 1),
                (12, Service::Metp, one, b"alice", 1),
                (11, Service::Socks, two, b"alice", 1),
            ]
        );
    }

    #[test]
    fn the_oldest_give_way() {
        let mut failed = FailedLogins::default();
        for number in 0..300_u64 {
            failed.record(number, Service::Socks, [192, 0, 2, 1].into(), &number.to_be_bytes());
        }
        let times: Vec<u64> = failed.newest_first().map(|row| row.time).collect();
        assert_eq!(times, (200..300).rev().collect::<Vec<_>>());
    }
}
