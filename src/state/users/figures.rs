//! The figures of accounts, for the file that outlives the server, and from it.
//!
//! An account gets back what the file has under its name. One that is created by a command begins at zero: it is another
//! one, whatever its name is. What the file has under a name that no account has is kept: the account may come back, as
//! when the users file was not there at one start.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::{Usage, UserId, Users};
use crate::proto::usage_file::AccountFigures;

/// Figures that are taken from a file, the latest if there are more: names come and go, and a file must not grow for ever.
const MOST_KEPT: usize = 500_000;

/// Seconds of UNIX time.
pub fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// The figures of a new account.
pub(super) fn fresh() -> Usage {
    let usage = Usage::default();
    usage.since.set(unix_time());
    usage
}

impl Users {
    /// Gives the accounts that there are the figures under their names; the others are kept.
    pub fn restore_figures(&mut self, accounts: Vec<AccountFigures>) {
        let mut accounts = accounts;
        if accounts.len() > MOST_KEPT {
            accounts.sort_by_key(|figures| std::cmp::Reverse(figures.seen));
            accounts.truncate(MOST_KEPT);
        }
        self.unclaimed =
            accounts.into_iter().map(|figures| (figures.name.clone(), figures)).collect();
        let ids: Vec<UserId> = self.accounts.keys().copied().chain([UserId::TRUSTED]).collect();
        for id in ids {
            self.claim(id);
        }
    }

    /// Gives an account the figures under its name, if there are any.
    pub(super) fn claim(&mut self, id: UserId) {
        if self.unclaimed.is_empty() {
            return;
        }
        let account = match id {
            UserId::TRUSTED => Some(&self.trusted),
            _ => self.accounts.get(&id),
        };
        if let Some(account) = account
            && let Some(figures) = self.unclaimed.remove(&*account.name)
        {
            set(&account.usage, &figures);
            account.usage.judge_again(unix_time());
        }
    }

    /// Adds what another server has counted, to accounts that it had, too.
    pub fn add_figures(&mut self, accounts: &[AccountFigures]) {
        for figures in accounts {
            let AccountFigures { name, since, total, up, down, .. } = figures;
            let account = self.find_any(name).and_then(|id| self.get(id));
            if let Some(account) = account.filter(|account| account.usage.since.get() == *since) {
                let usage = &account.usage;
                for (cell, more) in [(&usage.total, total), (&usage.up, up), (&usage.down, down)] {
                    cell.set(cell.get().saturating_add(*more));
                }
                usage.judge_again(unix_time());
            } else if let Some(kept) =
                self.unclaimed.get_mut(&**name).filter(|kept| kept.since == *since)
            {
                kept.total = kept.total.saturating_add(*total);
                kept.up = kept.up.saturating_add(*up);
                kept.down = kept.down.saturating_add(*down);
            }
        }
    }

    /// An account has been made anew: what was known of its name is not its own.
    pub fn forget_figures(&mut self, id: UserId) {
        if let Some(account) = self.accounts.get(&id) {
            self.unclaimed.remove(&*account.name);
        }
    }

    /// The figures of all accounts that have some, and of names that may come back.
    pub fn figures(&self) -> Vec<AccountFigures> {
        self.figures_of(has_any)
    }

    /// The figures of all accounts, and of names that may come back.
    pub fn all_figures(&self) -> Vec<AccountFigures> {
        self.figures_of(|_| true)
    }

    fn figures_of(&self, is_wanted: impl Fn(&AccountFigures) -> bool) -> Vec<AccountFigures> {
        let (now, time) = (Instant::now(), unix_time());
        let accounts = self.accounts.values().chain([&self.trusted]);
        let of_all = accounts.map(|account| get(&account.name, &account.usage, now, time));
        let of_accounts = of_all.filter(is_wanted);
        // An account that is on its way to the users file has nothing of its name yet, and may be undone.
        let kept = self.unclaimed.values().filter(|figures| self.find(&figures.name).is_none());
        of_accounts.chain(kept.cloned()).collect()
    }

    /// Figures of names that no account has.
    #[cfg(test)]
    pub(super) fn unclaimed(&self) -> &std::collections::HashMap<Box<[u8]>, AccountFigures> {
        &self.unclaimed
    }
}

/// Whether there is something to keep. After RESET-USAGE an account has counted bytes of an open tunnel, and no login.
fn has_any(figures: &AccountFigures) -> bool {
    let AccountFigures { name: _, since: _, total, up, down, seen, base, period } = figures;
    [total, up, down, base].iter().any(|number| **number > 0) || seen.is_some() || period.is_some()
}

fn get(name: &Rc<[u8]>, usage: &Usage, now: Instant, time: u64) -> AccountFigures {
    let ago = |seen: Instant| now.saturating_duration_since(seen).as_secs();
    let (restored, wall_time) = usage.seen_before.get();
    let seen = match usage.seen.get() {
        // As it was in the file, whatever has been done to the clock since.
        seen if seen == restored => wall_time,
        seen => seen.map(|seen| time.saturating_sub(ago(seen))),
    };
    let (base, period) = usage.quota_figures();
    AccountFigures {
        name: (**name).into(),
        since: usage.since.get(),
        total: usage.total.get(),
        up: usage.up.get(),
        down: usage.down.get(),
        seen,
        base,
        period,
    }
}

fn set(usage: &Usage, figures: &AccountFigures) {
    let AccountFigures { name: _, since, total, up, down, seen, base, period } = figures;
    let add = |cell: &std::cell::Cell<u64>, number: &u64| {
        cell.set(cell.get().saturating_add(*number));
    };
    usage.since.set(*since);
    add(&usage.total, total);
    add(&usage.up, up);
    add(&usage.down, down);
    usage.restore_quota_figures(*base, *period);
    if usage.seen.get().is_some() {
        return;
    }
    // The clock may have been set back, or may not be set yet: what lies ahead is shown as just now, and written as it was.
    let ago = seen.map(|seen| Duration::from_secs(unix_time().saturating_sub(seen)));
    let shown = ago.and_then(|ago| Instant::now().checked_sub(ago));
    usage.seen.set(shown);
    usage.seen_before.set((shown, *seen));
}

#[cfg(test)]
mod tests {
    use metp_protocol::Role;

    use super::*;
    use crate::proto::users_file::parse;

    fn figures(name: &str, total: u64) -> AccountFigures {
        let (since, seen) = (100, Some(unix_time() - 60));
        let name = name.as_bytes().into();
        AccountFigures { name, since, total, up: 2, down: 3, seen, base: 0, period: None }
    }

    fn load(users: &mut Users, file: &str) {
        users.load(parse(file.as_bytes()).expect("good"));
    }

    fn total(users: &Users, name: &str) -> u64 {
        let user = users.find_any(name.as_bytes()).expect("there");
        users.get(user).expect("there").usage.total.get()
    }

    /// To the accounts that it meant, and to no others of their names.
    #[test]
    fn what_another_server_has_counted_is_added() {
        let mut users = Users::default();
        users.restore_figures(vec![figures("alice", 7), figures("gone", 7), figures("-", 7)]);
        load(&mut users, "alice:=pw\nbob:=pw\n");
        let rest = [figures("alice", 1), figures("gone", 2), figures("-", 3), figures("bob", 4)];
        users.add_figures(&rest);
        let total = |name: &str| {
            let found = users.figures().into_iter().find(|found| *found.name == *name.as_bytes());
            found.map(|found| (found.total, found.up, found.down))
        };
        // bob was made here: he is another one.
        let expected = [Some((8, 4, 6)), Some((9, 4, 6)), Some((10, 4, 6)), None];
        assert_eq!(["alice", "gone", "-", "bob"].map(total), expected);
    }

    #[test]
    fn accounts_go_on_counting() {
        let mut users = Users::default();
        load(&mut users, "alice:=a\nbob:=b\n");
        let of_all = [figures("alice", 7), figures("-", 5), figures("gone", 9)];
        let seen = of_all[1].seen;
        users.restore_figures(of_all.to_vec());
        assert_eq!((total(&users, "alice"), total(&users, "bob"), total(&users, "-")), (7, 0, 5));
        let alice = users.find(b"alice").expect("there");
        drop(users.open_session(alice, Instant::now()));
        let mut all = users.figures();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<_> = all.iter().map(|figures| (&*figures.name, figures.total)).collect();
        assert_eq!(names, [(&b"-"[..], 5), (b"alice", 8), (b"gone", 9)]);
        assert_eq!((all[1].since, all[1].up, all[1].down), (100, 2, 3));
        // As it was written, to the second; that of alice is new.
        assert_eq!(all[0].seen, seen);
        assert!(all[1].seen > seen && all[1].seen <= Some(unix_time()));
    }

    /// Nobody has logged in since the counters were set back, and a tunnel has gone on.
    #[test]
    fn what_was_counted_after_a_reset_comes_back() {
        let limits = "alice:=a:quota=1kB/month\nbob:=b:quota=1kB/total\ncarol:=c\ndave:=d\n";
        let mut users = Users::default();
        load(&mut users, limits);
        let usage = |users: &Users, name: &str| {
            let user = users.find(name.as_bytes()).expect("there");
            Rc::clone(&users.get(user).expect("there").usage)
        };
        for name in ["alice", "bob", "carol"] {
            let before = usage(&users, name);
            before.up.set(500);
            before.reset(unix_time());
            before.down.set(700);
        }
        let kept = users.figures();
        assert_eq!(kept.len(), 3, "dave has no figures");
        let mut users = Users::default();
        load(&mut users, limits);
        users.restore_figures(kept.clone());
        assert_eq!(users.figures(), kept);
        for name in ["alice", "bob"] {
            assert_eq!(usage(&users, name).quota_used(unix_time()), Some(700), "{name}");
            assert!(usage(&users, name).is_over().is_none());
        }
    }

    #[test]
    fn an_account_that_is_made_anew_begins_at_zero() {
        let mut users = Users::default();
        load(&mut users, "alice:=a\n");
        users.restore_figures(vec![figures("alice", 7), figures("gone", 9), figures("back", 4)]);
        users.delete(users.find(b"alice").expect("there"));
        for name in ["alice", "gone"] {
            let user = users.add(name.as_bytes(), b"x", Role::User).expect("free");
            assert_eq!(total(&users, name), 0);
            assert!(users.figures().iter().all(|figures| &*figures.name != name.as_bytes()));
            // It may be undone; if it is not, that is the end of the old one.
            assert!(name == "alice" || users.unclaimed().contains_key(name.as_bytes()));
            users.forget_figures(user);
        }
        assert!(!users.unclaimed().contains_key(&b"gone"[..]));
        // One of the file that had not been there comes back.
        load(&mut users, "back:=b\n");
        assert_eq!(total(&users, "back"), 4);
        assert!(users.unclaimed().is_empty());
    }

    #[test]
    fn a_clock_that_was_set_back_is_no_harm() {
        let mut users = Users::default();
        load(&mut users, "alice:=a\n");
        let seen = Some(unix_time() + 1_000_000);
        users.restore_figures(vec![AccountFigures { seen, ..figures("alice", 1) }]);
        // The clock may be set again: what was right stays right.
        assert_eq!(users.figures()[0].seen, seen);
        let alice = users.find(b"alice").expect("there");
        let shown = users.get(alice).expect("there").usage.seen.get().expect("seen");
        assert!(shown <= Instant::now());
        drop(users.open_session(alice, Instant::now() + Duration::from_nanos(1)));
        assert!(users.figures()[0].seen.expect("seen") <= unix_time());
        let long_ago = AccountFigures { seen: Some(0), ..figures("alice", 1) };
        let mut users = Users::default();
        load(&mut users, "alice:=a\n");
        users.restore_figures(vec![long_ago]);
        assert_eq!(users.figures()[0].seen, Some(0));
    }
}
