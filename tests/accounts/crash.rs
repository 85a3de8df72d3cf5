//! The server is killed in the midst of a storm of changes: what was answered is there, and nothing is half.

use std::collections::BTreeMap;
use std::io::Read;

use support::exchange;
use support::metp::{Metp, value};
use support::origin::Origin;
use support::proxy::Proxy;
use support::socks::{Client, half_close};

use super::{TOKEN, UsersFile};

/// How often; `make soak` sets [`VARIABLE`] to more.
const ROUNDS: u32 = 20;
const VARIABLE: &str = "SOCKS5D_CRASHES";

/// What all numbers are drawn from.
const SEED: u64 = 1928;

/// Changes that are sent ahead of their replies.
const AHEAD: usize = 48;

/// The account that uses its quota.
const COUNTED: &str = "counted";

/// Payload of it in each round, in bytes of both directions.
const PAYLOAD: u64 = 200;

/// An account as METP shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    admin: bool,
    locked: bool,
    /// `quota=`
    quota: String,
}

type Accounts = BTreeMap<String, Account>;

/// A change of accounts: its command, and what it does.
struct Change {
    command: String,
    after: Accounts,
}

/// Sets back what [`COUNTED`] has used.
const RESET: &str = "RESET-USAGE counted";

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
    let command = match (after.get_mut(&name), numbers.below(7)) {
        (_, 6) => RESET.to_owned(),
        (None, kind) => {
            let (admin, locked, quota) = (kind == 0, kind == 1, "-".to_owned());
            after.insert(name.clone(), Account { admin, locked, quota });
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
        (Some(account), 3) if account.quota != "-" => {
            account.quota = "-".to_owned();
            format!("SET-LIMIT {name} quota=")
        }
        (Some(account), 3 | 4) => {
            account.quota = format!("{}GB/total", 1 + numbers.below(9));
            format!("SET-LIMIT {name} conns=7 quota={}", account.quota)
        }
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
        let quota = value(line, "quota").to_owned();
        let account = Account { admin: has("role=admin"), locked: has("locked=yes"), quota };
        (has("origin=file") && name != COUNTED).then_some((name, account))
    };
    lines.iter().filter_map(account).collect()
}

/// What [`COUNTED`] has used of its quota.
fn used(proxy: &Proxy) -> u64 {
    let line = proxy.admin().ask(&format!("USER-METRICS {COUNTED}"))[0].clone();
    value(&line, "quota-used").parse().expect("a number")
}

/// Relays [`PAYLOAD`] for [`COUNTED`].
fn transfer(proxy: &Proxy, echo: &Origin) {
    let client = Client::new(proxy.socks()).logged_in(COUNTED, "pw");
    let mut tunnel = client.connected(echo.address);
    exchange(&mut tunnel, 100);
    half_close(&tunnel);
    tunnel.read_to_end(&mut Vec::new()).expect("an orderly end");
}

#[test]
fn what_was_answered_survives_a_kill() {
    let rounds = std::env::var(VARIABLE).map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let file = UsersFile::new("# kept\ncounted:=pw:quota=1TB/total\n");
    let state = file.directory.path().join("state");
    let start = || file.builder().args([&"--state".into(), &state]).start();
    let echo = Origin::echo();
    let mut numbers = Numbers(SEED);
    let mut known = Accounts::new();
    let mut known_used = 0;
    for round in 0..rounds {
        let mut proxy = start();
        assert_eq!(accounts(&proxy), known, "round {round}: at the start");
        assert_eq!(used(&proxy), known_used, "round {round}: at the start");
        transfer(&proxy, &echo);
        let mut admin: Metp = proxy.admin();
        // What may be there afterwards: all states from the last that was answered on.
        let mut states = vec![known.clone()];
        let (mut sent, mut answered) = (0, 0);
        let mut resets = Vec::new();
        let enough = 1 + usize::try_from(numbers.below(150)).expect("small");
        while answered < enough {
            while sent < answered + AHEAD {
                let change = draw(&mut numbers, states.last().expect("one"));
                resets.extend((change.command == RESET).then_some(sent));
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
        assert!(file.text().starts_with("# kept\ncounted:=pw:quota=1TB/total\n"));
        let proxy = start();
        let found = accounts(&proxy);
        let place = states.iter().skip(answered).position(|state| *state == found);
        assert!(place.is_some(), "round {round}: {answered} of {sent} were answered: {found:?}");
        known = found;
        // What was delivered in the last seconds may be lost, but a reset that was answered is not.
        let found = used(&proxy);
        let possible = [0, known_used, known_used + PAYLOAD];
        let is_reset = resets.first().is_some_and(|number| *number < answered);
        let least = if resets.is_empty() { known_used } else { 0 };
        assert!(
            possible.contains(&found) && found >= least && (!is_reset || found == 0),
            "round {round}: {found} of {possible:?}, resets {resets:?}, {answered} answered"
        );
        known_used = found;
    }
}
