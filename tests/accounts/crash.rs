//! The server is killed in the midst of a storm of changes: what was answered is there, and nothing is half.

use std::collections::BTreeMap;

use support::metp::Metp;
use support::proxy::Proxy;

use super::{TOKEN, UsersFile};

/// How often; `make soak` sets [`VARIABLE`] to more.
const ROUNDS: u32 = 20;
const VARIABLE: &str = "SOCKS5D_CRASHES";

/// What all numbers are drawn from.
const SEED: u64 = 1928;

/// Changes that are sent ahead of their replies.
const AHEAD: usize = 48;

/// An account as METP shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    admin: bool,
    locked: bool,
}

type Accounts = BTreeMap<String, Account>;

/// A change of accounts: its command, and what it does.
struct Change {
    command: String,
    after: Accounts,
}

/// Draws numbers; the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// A change that succeeds, and the accounts after it.
fn draw(numbers: &mut Numbers, before: &Accounts) -> Change {
    let mut after = before.clone();
    let name = format!("u{}", numbers.below(12));
    let command = match (after.get_mut(&name), numbers.below(5)) {
        (None, kind) => {
            let (admin, locked) = (kind == 0, kind == 1);
            after.insert(name.clone(), Account { admin, locked });
            let (lock, role) =
                (if locked { "!" } else { "" }, if admin { ":role=admin" } else { "" });
            format!("IMPORT {name}:{lock}{TOKEN}{role}")
        }
        (Some(account), 0) => {
            account.admin = !account.admin;
            format!("SET-ROLE {name} {}", if account.admin { "admin" } else { "user" })
        }
        (Some(account), 1) => {
            account.locked = !account.locked;
            format!("{}LOCK-USER {name}", if account.locked { "" } else { "UN" })
        }
        (Some(_), 2) => format!("GENERATE-PASSWORD {name}"),
        (Some(_), _) => {
            after.remove(&name);
            format!("DELETE-USER {name}")
        }
    };
    Change { command, after }
}

/// The accounts that the server has, those of memory left out.
fn accounts(proxy: &Proxy) -> Accounts {
    let lines = proxy.admin().ask("USER-METRICS");
    let account = |line: &String| {
        let has = |pair: &str| line.split(' ').any(|word| word == pair);
        let name = line.strip_prefix("user=")?.split(' ').next()?.to_owned();
        let account = Account { admin: has("role=admin"), locked: has("locked=yes") };
        has("origin=file").then_some((name, account))
    };
    lines.iter().filter_map(account).collect()
}

#[test]
fn what_was_answered_survives_a_kill() {
    let rounds = std::env::var(VARIABLE).map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let file = UsersFile::new("# kept\n");
    let mut numbers = Numbers(SEED);
    let mut known = Accounts::new();
    for round in 0..rounds {
        let mut proxy = file.proxy();
        assert_eq!(accounts(&proxy), known, "round {round}: at the start");
        let mut admin: Metp = proxy.admin();
        // What may be there afterwards: all states from the last that was answered on.
        let mut states = vec![known.clone()];
        let (mut sent, mut answered) = (0, 0);
        let enough = 1 + usize::try_from(numbers.below(150)).expect("small");
        while answered < enough {
            while sent < answered + AHEAD {
                let change = draw(&mut numbers, states.last().expect("one"));
                admin.say(&format!("{}\n", change.command));
                states.push(change.after);
                sent += 1;
            }
            let told = admin.line();
            assert!(told.starts_with("200 OK"), "round {round}: {told}");
            answered += 1;
        }
        proxy.signal(libc::SIGKILL);
        proxy.wait();
        assert!(file.text().starts_with("# kept\n"));
        let proxy = file.proxy();
        let found = accounts(&proxy);
        let place = states.iter().skip(answered).position(|state| *state == found);
        assert!(place.is_some(), "round {round}: {answered} of {sent} were answered: {found:?}");
        known = found;
    }
}
