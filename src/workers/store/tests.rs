use std::fs;
use std::time::Duration;

use metp_protocol::Role;

use super::*;
use crate::proto::users_file::{Change, Edit};
use crate::workers::fixture::Loop;
use crate::workers::passwords::Password;

fn store(name: &str, change: Change, password: Option<&str>) -> Store {
    let edit = Edit { name: name.as_bytes().into(), change };
    Store { edit, password: password.map(|password| Password::new(password.as_bytes())) }
}

fn add(name: &str, password: Option<&str>) -> Store {
    let change = Change::Add { secret: "".into(), locked: false, role: Role::User, limits: None };
    store(name, change, password)
}

#[test]
fn the_thread_reads_and_writes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("users");
    fs::write(&path, "alice:=x\n").expect("written");
    let state = UsersFile::read(&path).expect("good").state;
    let (mut events, waker) = Loop::new();
    let mut worker =
        Files::<()> { users: Some(UsersFile { path: path.clone(), state }), ..Files::default() }
            .start(waker);
    let mut ask = |job| {
        worker.submit(job);
        let answers = events.wait(Duration::from_secs(20), |now| {
            let check = worker.check(now);
            (worker.answers(), check)
        });
        answers.into_iter().next().expect("an answer").outcome.expect("done")
    };
    let commit = |store| Job::Commit(Mutex::new(vec![store]), None);
    let Answer::Committed(done, None) = ask(commit(add("bob", Some("secret")))) else {
        panic!("another")
    };
    assert!(matches!(&done.expect("stored")[..], [Some(_)]));
    fs::write(&path, "alice:=x\nzoe:=y:role=admin\n").expect("written");
    let Answer::Committed(done, None) = ask(commit(add("eve", None))) else { panic!("another") };
    assert!(matches!(done, Err(StoreError::ChangedOnDisk)));
    let Answer::Read(Ok(read)) = ask(Job::Read) else { panic!("not read") };
    let loaded = read.users.expect("there is a file");
    assert_eq!(loaded.content.accounts.len(), 2);
    // It counts once it has been taken over.
    let Answer::Committed(done, None) = ask(commit(add("eve", None))) else { panic!("another") };
    assert!(matches!(done, Err(StoreError::ChangedOnDisk)));
    let Answer::Adopted = ask(Job::Adopt(Adopted { users: Some(loaded.state), rules: None }))
    else {
        panic!("another")
    };
    let delete = store("alice", Change::Delete, None);
    let Answer::Committed(Ok(_), None) = ask(commit(delete)) else { panic!("not stored") };
    assert_eq!(fs::read_to_string(&path).expect("read"), "zoe:=y:role=admin\n");
    // A bad file changes nothing, and what was read before still counts.
    fs::write(&path, "zoe\n").expect("written");
    let Answer::Read(Err(faults)) = ask(Job::Read) else { panic!("read") };
    assert_eq!(faults, ["users: line 1: no colon between name and secret"]);
}
