//! The users file: any bytes have an answer, and a change of a good file leaves every other line as it is. And the file of
//! figures, of which nothing but what the server has written is good.

use metp_protocol::Role;
use socks5d::proto::limits::LimitKey;
use socks5d::proto::secret::Secret;
use socks5d::proto::usage_file::{AccountFigures, Figures};
use socks5d::proto::users_file::{
    ALL_ACCOUNTS, BadEdit, Change, Edit, FileAccount, LONGEST_LINE, MOST_ERRORS, parse, parse_line,
    rewrite,
};

/// A secret that is good.
const TOKEN: &str = "$b2$AAECAwQFBgcICQoLDA0ODw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What some editors put at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a file, and changes what is good: each account in each way.
pub fn users_file(data: &[u8]) {
    let file = match parse(data) {
        Ok(file) => file,
        Err(errors) => {
            assert!((1..=MOST_ERRORS).contains(&errors.len()));
            assert!(errors.windows(2).all(|two| two[0].line < two[1].line), "out of order");
            let lines = data.split(|byte| *byte == b'\n').count();
            assert!(errors.iter().all(|error| (1..=lines).contains(&error.line)));
            for error in &errors {
                let shown = error.to_string();
                assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{shown:?}");
            }
            return;
        }
    };
    let accounts = &file.accounts;
    assert_eq!(rewrite(data, &[]).expect("no edit"), data, "nothing was to be changed");
    for (place, account) in accounts.iter().enumerate().take(8) {
        assert!((1..=255).contains(&account.name.len()));
        for change in [
            Change::Delete,
            Change::Role(Role::Admin),
            Change::Role(Role::User),
            Change::Lock(true),
            Change::Lock(false),
            Change::Secret(TOKEN.into()),
            Change::Limits(vec![(LimitKey::Rate, "10Mbit".into()), (LimitKey::From, "".into())]),
        ] {
            changed(data, accounts, place, change);
        }
    }
    let all = Change::Limits(vec![(LimitKey::Sources, "3".into()), (LimitKey::Quota, "".into())]);
    if let Some(text) = rewritten(data, Edit { name: ALL_ACCOUNTS.into(), change: all }) {
        let mut wanted = file.clone();
        wanted.defaults.set(LimitKey::Sources, b"3").expect("in range");
        wanted.defaults.set(LimitKey::Quota, b"").expect("nothing");
        assert_eq!(parse(&text), Ok(wanted));
    }
    if !accounts.iter().any(|account| &*account.name == b"new:#*") {
        let new = Edit {
            name: b"new:#*".as_slice().into(),
            change: Change::Add {
                secret: TOKEN.into(),
                locked: true,
                role: Role::Admin,
                limits: None,
            },
        };
        let text = rewrite(data, &[new]).expect("the name is free");
        assert!(text.starts_with(data), "what was there has changed");
        let after = parse(&text).expect("still good").accounts;
        assert_eq!(after[..accounts.len()], accounts[..]);
        assert!(after.len() == accounts.len() + 1 && after[accounts.len()].locked);
    }
}

/// The file with this edit, which fits; `None` if a line that was as long as it may be would be too long.
fn rewritten(data: &[u8], edit: Edit) -> Option<Vec<u8>> {
    match rewrite(data, &[edit]) {
        Ok(text) => Some(text),
        Err(BadEdit::LongLine(_)) => {
            let is_long = |line: &[u8]| line.len() > LONGEST_LINE / 2;
            assert!(data.split(|byte| *byte == b'\n').any(is_long), "no line is long");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Changes one account of a file.
fn changed(data: &[u8], accounts: &[FileAccount], place: usize, change: Change) {
    let name = accounts[place].name.clone();
    let mut wanted = accounts.to_vec();
    match &change {
        Change::Delete => drop(wanted.remove(place)),
        Change::Role(role) => wanted[place].role = *role,
        Change::Lock(locked) => wanted[place].locked = *locked,
        Change::Secret(secret) => {
            wanted[place].secret = Secret::parse(secret.as_bytes()).expect("good");
        }
        Change::Limits(limits) => {
            let mut own = wanted[place].limits.take().unwrap_or_default();
            for (key, value) in limits {
                own.set(*key, value.as_bytes()).expect("in range");
            }
            wanted[place].limits = Some(own).filter(|limits| !limits.is_empty());
        }
        Change::Add { .. } => unreachable!("it is there"),
    }
    let deletes = change == Change::Delete;
    let Some(text) = rewritten(data, Edit { name: name.clone(), change }) else { return };
    assert_eq!(parse(&text).expect("still good").accounts, wanted);
    let is_other = |line: &&[u8]| !parse_line(line).is_ok_and(|account| account.name == name);
    let others = |text: &[u8]| -> Vec<Vec<u8>> {
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        lines.filter(is_other).map(<[u8]>::to_vec).collect()
    };
    // The byte order mark of a first line that is deleted stands before the next one.
    let moves = deletes && data.starts_with(BYTE_ORDER_MARK);
    if !moves {
        assert_eq!(others(&text), others(data), "another line has changed");
    }
}

/// Reads a file of figures; and makes one of the bytes, which has to be read again, and is none without its last byte or
/// with another one.
pub fn usage_file(data: &[u8]) {
    if let Ok(figures) = Figures::parse(data) {
        assert_eq!(figures.text(), data, "another file than the one that was read");
    }
    let number = |place: usize| -> u64 {
        let bytes = data.iter().skip(place).take(7);
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let account = |(place, name): (usize, &[u8])| AccountFigures {
        name: name.into(),
        since: number(place),
        total: number(place + 1),
        up: number(place + 2),
        down: number(place + 3),
        seen: (place % 2 == 0).then(|| number(place + 4)),
        base: number(place + 5),
        period: (place % 3 == 0).then(|| number(place + 6)),
    };
    let accounts: Vec<_> = data.chunks(7).enumerate().take(20).map(account).collect();
    let figures = Figures {
        since: number(0),
        connections: number(1),
        up: number(2),
        down: number(3),
        accounts,
    };
    let text = figures.text();
    assert_eq!(Figures::parse(&text), Ok(figures));
    assert!(Figures::parse(&text[..text.len() - 1]).is_err());
    let mut changed = text;
    let place = usize::try_from(number(0)).unwrap_or_default() % changed.len();
    changed[place] ^= 1;
    assert!(Figures::parse(&changed).is_err(), "a bit was changed");
}
