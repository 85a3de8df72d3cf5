//! What an account of role user could do to administration: nothing. It has sessions of its own, and an
//! administrator always gets in.

use std::time::Instant;

use support::SOON;
use support::metp::Metp;
use support::proxy::Proxy;

/// Users fill all places, and stay busy there. An administrator gets in all the same, again and again, at
/// the price of the oldest of theirs.
#[test]
fn users_cannot_lock_administrators_out() {
    let proxy = Proxy::with(&["--max-metp-sessions", "8", "-u", "alice:secret"]);
    let user = || proxy.metp().logged_in("alice", "secret");
    let mut users: Vec<Metp> = (0..8).map(|_| user()).collect();
    for session in &mut users {
        session.metrics();
    }
    let began = Instant::now();
    let mut admins: Vec<Metp> = (0..3).map(|_| proxy.admin()).collect();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    for session in &mut users[3..] {
        session.metrics();
    }
    for session in &mut users[..3] {
        session.hears_eof();
    }
    // Users displace one another in a full house, never an administrator.
    let mut more: Vec<Metp> = (0..8).map(|_| user()).collect();
    for session in admins.iter_mut().chain(&mut more[3..]) {
        session.metrics();
    }
    // Who becomes an administrator is one from the next command on.
    assert_eq!(admins[0].tell("SET-ROLE alice admin"), "200 OK");
    for session in &mut more[3..] {
        session.ask("USERS");
    }
}
