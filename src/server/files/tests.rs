//! What the thread is given, and in which order.

use super::*;
use crate::proto::rules::Rule;
use crate::proto::users_file::Edit as UsersEdit;
use crate::state::changes::Undo;
use crate::state::settings::Settings;
use crate::state::users::Users;
use crate::workers::users_file::Store;

/// A change of an account, again and again.
fn change(shared: &mut Shared) {
    let edit = UsersEdit { name: b"alice".as_slice().into(), change: Change::Lock(true) };
    let store = Store { edit, password: None };
    let undo = Undo::Lock(UserId::TRUSTED, false);
    shared.process.account_changes.push(Key::unpack(1), store, undo, None);
}

/// The kind of the next job.
fn next(files: &mut FileStore, shared: &mut Shared) -> Option<Work> {
    let found = files.last.after().find_map(|work| Some((work, files.next_job(work, shared)?)));
    found.map(|(work, _)| {
        files.last = work;
        work
    })
}

/// Whatever comes without end, every other kind of work has its turn.
#[test]
fn no_kind_of_work_waits_for_ever() {
    let mut shared = Shared::new(Settings::default(), Users::default());
    let mut files = FileStore { has_state: true, ..FileStore::default() };
    let rule = || Rule::parse(b"deny port 25").expect("good").expect("a rule");
    let mut done = Vec::new();
    for round in 0..12 {
        if round < 4 {
            change(&mut shared);
        }
        files.write_figures = true;
        files.request_saves(vec![(Key::unpack(2), "grace", "5".to_owned())]);
        files.request_rule_changes(vec![(Key::unpack(3), Edit::Insert(1, rule()))]);
        files.request_reload([(Key::unpack(4), false)]);
        done.extend(next(&mut files, &mut shared));
        // The group is on the disk.
        shared.process.account_changes.stored(Vec::new(), &mut shared.process.users);
        files.saving.clear();
    }
    let times = |work| done.iter().filter(|other| **other == work).count();
    for work in [Work::Figures, Work::Settings, Work::Rules] {
        assert!(times(work) >= 2, "{work:?}: {done:?}");
    }
    assert!(times(Work::Accounts) >= 1 && times(Work::Reload) >= 1, "{done:?}");
}

/// A reload sees all changes that were answered.
#[test]
fn a_reload_waits_for_changes_of_accounts() {
    let mut shared = Shared::new(Settings::default(), Users::default());
    let mut files = FileStore::default();
    change(&mut shared);
    files.last = Work::Rules;
    files.request_reload([]);
    assert_eq!(next(&mut files, &mut shared), Some(Work::Accounts));
    // It is being written.
    assert_eq!(next(&mut files, &mut shared), None);
    shared.process.account_changes.stored(Vec::new(), &mut shared.process.users);
    assert_eq!(next(&mut files, &mut shared), Some(Work::Reload));
    assert!(files.is_reloading());
}
