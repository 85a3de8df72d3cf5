//! The file of figures: what outlives a restart.
//!
//! ```text
//! socks5d-usage 1
//! since=1795725996 connections=7 up=512 down=1024
//! user=alice since=1795725996 total=7 up=512 down=1024 seen=1795726001 base=0 period=-
//! end accounts=1 blake2b=...
//! ```
//!
//! Times are seconds of UNIX time. The last line has the number of accounts and the BLAKE2b-256 (RFC 7693) of all before
//! it: a file that was cut off, or in which a bit has changed, is none.

use std::collections::HashMap;
use std::fmt::{self, Write};

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use metp_protocol::text::{Escaped, unescape};

/// The most bytes of a file.
pub const MOST_BYTES: u64 = 256 << 20;
/// The largest number: sums of two of them, and what is added while a server runs, fit into 64 bits.
pub const LARGEST: u64 = 1 << 62;

const HEAD: &str = "socks5d-usage 1\n";
const NAME: &str = "socks5d-usage ";

/// All figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Since when they are counted.
    pub since: u64,
    /// SOCKS connections accepted.
    pub connections: u64,
    /// Payload bytes delivered to targets.
    pub up: u64,
    /// Payload bytes delivered to clients.
    pub down: u64,
    /// Those of accounts that have some: a connection, or a quota.
    pub accounts: Vec<AccountFigures>,
}

/// The figures of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountFigures {
    /// The name.
    pub name: Box<[u8]>,
    /// When the account was created, or first seen by a server that keeps figures.
    pub since: u64,
    /// Connections that have logged in.
    pub total: u64,
    /// Payload bytes delivered to targets.
    pub up: u64,
    /// Payload bytes delivered to clients.
    pub down: u64,
    /// When it last logged in or moved a byte.
    pub seen: Option<u64>,
    /// The sum of `up` and `down` when the period of its quota began.
    pub base: u64,
    /// When that was. `None`: it has had no quota.
    pub period: Option<u64>,
}

/// Why a file is none. Displays as a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is of another version of this program.
    Version,
    /// It is cut off, or has been changed.
    Damaged,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Version => "it is of another version",
            Fault::Damaged => "it is damaged",
        })
    }
}

impl Figures {
    /// What has been counted beyond `before`, which are earlier figures of one server. Accounts without any are left out,
    /// and so are quotas.
    pub fn beyond(&self, before: &Figures) -> Figures {
        let earlier: HashMap<(&[u8], u64), &AccountFigures> = before
            .accounts
            .iter()
            .map(|account| ((&*account.name, account.since), account))
            .collect();
        let account = |now: &AccountFigures| {
            let none = AccountFigures::default();
            let before = earlier.get(&(&*now.name, now.since)).copied().unwrap_or(&none);
            let [total, up, down] = [
                now.total.saturating_sub(before.total),
                now.up.saturating_sub(before.up),
                now.down.saturating_sub(before.down),
            ];
            (total > 0 || up > 0 || down > 0).then(|| AccountFigures {
                name: now.name.clone(),
                since: now.since,
                total,
                up,
                down,
                ..AccountFigures::default()
            })
        };
        Figures {
            since: self.since,
            connections: self.connections.saturating_sub(before.connections),
            up: self.up.saturating_sub(before.up),
            down: self.down.saturating_sub(before.down),
            accounts: self.accounts.iter().filter_map(account).collect(),
        }
    }

    /// The text of the file. What is larger than [`LARGEST`] is written as that, so that it can be read.
    ///
    /// ```
    /// use socks5d::proto::usage_file::Figures;
    ///
    /// let figures = Figures { since: 1795725996, up: 512, ..Figures::default() };
    /// assert_eq!(Figures::parse(&figures.text()), Ok(figures));
    /// ```
    pub fn text(&self) -> Vec<u8> {
        let mut text = String::with_capacity(256 + 128 * self.accounts.len());
        let accounts = &self.accounts;
        let numbers = [self.since, self.connections, self.up, self.down];
        let [since, connections, up, down] = numbers.map(|number| number.min(LARGEST));
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "{}since={since} connections={connections} up={up} down={down}", HEAD);
        for AccountFigures { name, since, total, up, down, seen, base, period } in accounts {
            let name = Escaped(name);
            let numbers = [since, total, up, down, base].map(|number| LARGEST.min(*number));
            let [since, total, up, down, base] = numbers;
            let [seen, period] = [seen, period].map(|time| {
                time.map_or_else(|| "-".to_owned(), |time| LARGEST.min(time).to_string())
            });
            let _ = writeln!(
                text,
                "user={name} since={since} total={total} up={up} down={down} seen={seen} base={base} period={period}"
            );
        }
        let sum = checksum(text.as_bytes());
        let _ = writeln!(text, "end accounts={} blake2b={sum}", accounts.len());
        text.into_bytes()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn parse(content: &[u8]) -> Result<Figures, Fault> {
        let text = std::str::from_utf8(content).map_err(|_| Fault::Damaged)?;
        if !text.starts_with(HEAD) {
            let other = text.starts_with(NAME) && text.contains('\n');
            return Err(if other { Fault::Version } else { Fault::Damaged });
        }
        Self::read(text).ok_or(Fault::Damaged)
    }

    fn read(text: &str) -> Option<Figures> {
        let body = text.strip_suffix('\n')?;
        let (before, last) = body.rsplit_once('\n')?;
        let summed = text.get(..before.len().checked_add(1)?)?;
        let [accounts, sum] = pairs(last.strip_prefix("end ")?, ["accounts", "blake2b"])?;
        if checksum(summed.as_bytes()) != sum {
            return None;
        }
        let mut lines = before.strip_prefix(HEAD)?.split('\n');
        let [since, connections, up, down] =
            pairs(lines.next()?, ["since", "connections", "up", "down"])?;
        let figures = Figures {
            since: number(since)?,
            connections: number(connections)?,
            up: number(up)?,
            down: number(down)?,
            accounts: lines.map(account).collect::<Option<_>>()?,
        };
        (u64::try_from(figures.accounts.len()) == Ok(number(accounts)?)).then_some(figures)
    }
}

fn account(line: &str) -> Option<AccountFigures> {
    let [name, since, total, up, down, seen, base, period] =
        pairs(line, ["user", "since", "total", "up", "down", "seen", "base", "period"])?;
    let name: Box<[u8]> = unescape(name.as_bytes()).into();
    let time = |text| if text == "-" { Some(None) } else { number(text).map(Some) };
    let (seen, period) = (time(seen)?, time(period)?);
    let (since, total, up, down) = (number(since)?, number(total)?, number(up)?, number(down)?);
    let base = number(base)?;
    let figures = AccountFigures { name, since, total, up, down, seen, base, period };
    (1..=255).contains(&figures.name.len()).then_some(figures)
}

/// The values of these keys, which make up the line, in this order.
fn pairs<'a, const N: usize>(line: &'a str, keys: [&str; N]) -> Option<[&'a str; N]> {
    let mut words = line.split(' ');
    let mut values = [""; N];
    for (value, key) in values.iter_mut().zip(keys) {
        *value = words.next()?.strip_prefix(key)?.strip_prefix('=')?;
    }
    words.next().is_none().then_some(values)
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= LARGEST)
}

fn checksum(text: &[u8]) -> String {
    let hash: [u8; 32] = Blake2b::<U32>::digest(text).into();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn figures() -> Figures {
        let alice = AccountFigures {
            name: b"alice".as_slice().into(),
            since: 10,
            total: 7,
            up: 512,
            down: LARGEST,
            seen: Some(20),
            base: 500,
            period: Some(15),
        };
        let odd =
            AccountFigures { name: b"a b\n\xff".as_slice().into(), ..AccountFigures::default() };
        Figures { since: 5, connections: 9, up: 600, down: 1, accounts: vec![alice, odd] }
    }

    #[test]
    fn what_is_beyond_is_what_was_counted_since() {
        let account = |name: &str, since, up| AccountFigures {
            name: name.as_bytes().into(),
            since,
            up,
            seen: Some(9),
            ..AccountFigures::default()
        };
        let figures = |connections, accounts: &[AccountFigures]| Figures {
            since: 1,
            connections,
            accounts: accounts.to_vec(),
            ..Figures::default()
        };
        let before = figures(5, &[account("a", 1, 7), account("b", 1, 7), account("c", 1, 7)]);
        // One is as before, one has more, one was deleted and added again, and one is new.
        let now = [("a", 1, 7), ("b", 1, 9), ("c", 2, 3), ("d", 2, 1)];
        let now = figures(6, &now.map(|(name, since, up)| account(name, since, up)));
        let rest = [("b", 1, 2), ("c", 2, 3), ("d", 2, 1)];
        let rest =
            rest.map(|(name, since, up)| AccountFigures { seen: None, ..account(name, since, up) });
        assert_eq!(now.beyond(&before), figures(1, &rest));
        assert_eq!(before.beyond(&figures(9, &[account("a", 1, 9)])).connections, 0);
    }

    #[test]
    fn figures_are_lines() {
        let text = String::from_utf8(figures().text()).expect("ASCII");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "socks5d-usage 1",
                "since=5 connections=9 up=600 down=1",
                "user=alice since=10 total=7 up=512 down=4611686018427387904 seen=20 base=500 period=15",
                "user=a\\x20b\\x0a\\xff since=0 total=0 up=0 down=0 seen=- base=0 period=-",
            ]
        );
        assert!(lines[4].starts_with("end accounts=2 blake2b=") && lines.len() == 5);
    }

    #[test]
    fn a_file_that_is_cut_off_or_changed_is_none() {
        let text = figures().text();
        assert_eq!(Figures::parse(&text), Ok(figures()));
        for end in 0..text.len() {
            assert_eq!(Figures::parse(&text[..end]), Err(Fault::Damaged), "{end}");
            let mut changed = text.clone();
            changed[end] ^= 1;
            assert!(Figures::parse(&changed).is_err(), "{end}");
        }
        assert_eq!(Figures::parse(&[&text[..], b"\n"].concat()), Err(Fault::Damaged));
        let newer = String::from_utf8(text).expect("ASCII").replace("usage 1", "usage 2");
        assert_eq!(Figures::parse(newer.as_bytes()), Err(Fault::Version));
    }

    #[test]
    fn the_largest_numbers_can_be_read_again() {
        let most = AccountFigures {
            name: b"alice".as_slice().into(),
            since: u64::MAX,
            total: u64::MAX,
            up: u64::MAX,
            down: u64::MAX,
            seen: Some(u64::MAX),
            base: u64::MAX,
            period: Some(u64::MAX),
        };
        let (since, connections, up, down) = (u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        let text = Figures { since, connections, up, down, accounts: vec![most] }.text();
        let read = Figures::parse(&text).expect("good");
        assert_eq!(
            (read.since, read.connections, read.up, read.down),
            (LARGEST, LARGEST, LARGEST, LARGEST)
        );
        let alice = &read.accounts[0];
        let numbers = [alice.since, alice.total, alice.up, alice.down];
        assert_eq!((numbers, alice.seen), ([LARGEST; 4], Some(LARGEST)));
    }

    /// With a good sum, but what this program does not write.
    #[test]
    fn what_could_overflow_or_is_misplaced_is_refused() {
        let signed = |body: &str, accounts: &str| {
            let text = format!("{HEAD}{body}");
            let sum = checksum(text.as_bytes());
            Figures::parse(format!("{text}end accounts={accounts} blake2b={sum}\n").as_bytes())
        };
        let good = "since=1 connections=2 up=3 down=4\n";
        assert!(signed(good, "0").is_ok());
        for (body, accounts) in [
            (good, "1"),
            (good, "-0"),
            ("since=1 connections=2 up=3 down=18446744073709551615\n", "0"),
            ("since=1 connections=2 up=3 down=+4\n", "0"),
            ("since=1 connections=2 up=3\n", "0"),
            ("since=1 connections=2 down=4 up=3\n", "0"),
            ("since=1 connections=2 up=3 down=4 more=5\n", "0"),
            ("since=1 connections=2 up=3 down=4\nuser= since=1 total=1 up=1 down=1 seen=1\n", "1"),
            ("since=1 connections=2 up=3 down=4\nuser=a since=1 total=1 up=1 down=1 seen=\n", "1"),
            ("", "0"),
        ] {
            assert_eq!(signed(body, accounts), Err(Fault::Damaged), "{body:?} {accounts}");
        }
    }

    prop_compose! {
        fn some_account()(
            name in prop::collection::vec(any::<u8>(), 1..256),
            numbers in prop::array::uniform5(0..=LARGEST),
            (seen, period) in (prop::option::of(0..=LARGEST), prop::option::of(0..=LARGEST)),
        ) -> AccountFigures {
            let [since, total, up, down, base] = numbers;
            AccountFigures { name: name.into(), since, total, up, down, seen, base, period }
        }
    }

    proptest! {
        #![proptest_config(support::property::config(128))]

        #[test]
        fn what_is_written_is_read_again(
            numbers in prop::array::uniform4(0..=LARGEST),
            accounts in prop::collection::vec(some_account(), 0..5),
        ) {
            let [since, connections, up, down] = numbers;
            let figures = Figures { since, connections, up, down, accounts };
            prop_assert_eq!(Figures::parse(&figures.text()), Ok(figures));
        }

        #[test]
        fn any_bytes_have_an_answer(content in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Figures::parse(&content).is_err());
        }
    }
}
