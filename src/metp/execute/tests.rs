//! Commands and their answers, without a session around them.

use super::*;
use crate::proto::rules::{Edit, RuleSet};
use crate::reactor::buffer::Pool;
use crate::state::connection::Connection;
use crate::state::control::{Page, ProcessUsage, RuleChange, RulesVerdict, ServerInfo};
use crate::state::metrics::{Metrics, SessionCounts, Stage};
use crate::state::settings::Settings;
use crate::state::users::Users;
use metp_protocol::{ConnectionId, ended};

/// A server with two connections, 0.7 of alice and 2.0 without an account yet.
#[derive(Default)]
struct FakeServer {
    alice: Option<UserId>,
    killed: Vec<ConnectionId>,
    closing: Option<Option<Duration>>,
    /// What is wrong with the users file; nothing: there is none.
    faults: Vec<String>,
    /// Changes that go on to the disk.
    stored: Vec<ChangeNumber>,
}

impl FakeServer {
    fn connection(&self, slot: u32, of: Option<UserId>, users: &Users) -> Option<Connection> {
        let (generation, user) = match slot {
            0 => (7, self.alice),
            2 => (0, None),
            _ => return None,
        };
        let name = user.and_then(|user| users.get(user)).map(|account| (*account.name).into());
        (of.is_none() || of == user).then(|| Connection {
            id: ConnectionId { slot, generation },
            user: name,
            source: ([192, 0, 2, 1], 5000).into(),
            target: None,
            peer: None,
            stage: if user.is_some() { Stage::Request } else { Stage::Hello },
            age: Duration::from_millis(1500),
            idle: Duration::from_millis(20),
            up: 1,
            down: 2,
            buffered: 3,
            datagrams: None,
            rule: None,
        })
    }

    fn answer(&mut self, request: ControlRequest, users: &Users) -> ControlAnswer {
        let info = Box::new(ServerInfo { uptime: Duration::from_secs(12), ..Default::default() });
        match request {
            ControlRequest::Connections { page, of } => {
                // A page is one slot.
                let Page { next, end } = page.unwrap_or(Page { next: 0, end: 3 });
                let rows = self.connection(next, of, users).into_iter().collect();
                let next = (next + 1 < end).then_some(Page { next: next + 1, end });
                ControlAnswer::Connections { rows, next }
            }
            ControlRequest::Kill(id) => {
                self.killed.push(id);
                ControlAnswer::Killed(id == ConnectionId { slot: 0, generation: 7 })
            }
            ControlRequest::KillUser(user) => {
                ControlAnswer::UserKilled(usize::from(Some(user) == self.alice))
            }
            ControlRequest::Drain(grace) => {
                let begins = self.closing.is_none();
                self.closing.get_or_insert(grace);
                ControlAnswer::Draining(begins)
            }
            ControlRequest::Reload { .. } if self.faults.is_empty() => ControlAnswer::NoFile,
            ControlRequest::Reload { .. } => ControlAnswer::Reloaded(Err(self.faults.clone())),
            ControlRequest::ResetUsage { user, .. } => match Some(user) == self.alice {
                true => ControlAnswer::Reset(Ok(())),
                false => ControlAnswer::Reset(Err("disk full".to_owned())),
            },
            ControlRequest::ChangeRules { edit, .. } => ControlAnswer::RulesChanged(match edit {
                Edit::Insert(1, _) => RuleChange::Done,
                Edit::Insert(..) => RuleChange::NotStored("disk full".to_owned()),
                Edit::Delete(1, _) => RuleChange::Other("line 1 is: deny port 25".to_owned()),
                Edit::Delete(..) => RuleChange::NoRule,
            }),
            ControlRequest::TestRules(tested) => ControlAnswer::RulesTested(RulesVerdict {
                allow: tested.host.is_ok().then_some(false),
                by: "rule",
                rule: Some((7, "deny port 25".to_owned())),
            }),
            ControlRequest::Save { .. } if self.faults.is_empty() => ControlAnswer::NoState,
            ControlRequest::Save { key, value, .. } => {
                ControlAnswer::Saved(Err(format!("{key} {value}")))
            }
            ControlRequest::Status => ControlAnswer::Status(info),
            ControlRequest::Usage => ControlAnswer::Usage(
                info,
                ProcessUsage { descriptors: 15, ..ProcessUsage::default() },
            ),
        }
    }
}

fn shared() -> (Shared, UserId) {
    let mut users = Users::default();
    let root = users.add(b"root", b"pw", Role::Admin).expect("new");
    users.add(b"alice", b"pw", Role::User).expect("new");
    (Shared::new(Settings::default(), users), root)
}

/// Status line and body of the answer to a command.
fn says(line: &str, actor: UserId, shared: &mut Shared) -> String {
    let mut server =
        FakeServer { alice: shared.process.users.find(b"alice"), ..FakeServer::default() };
    answers(line, actor, shared, &mut server)
}

fn answers(line: &str, actor: UserId, shared: &mut Shared, server: &mut FakeServer) -> String {
    let role = shared.process.users.get(actor).expect("an account").role;
    let command = match Command::parse(line.as_bytes(), role) {
        Ok(command) => command,
        Err(response) => return response.to_string(),
    };
    let (now, pool) = (Instant::now(), Pool::new(1, 1));
    let mut executor = CommandExecutor { actor, session: Key::unpack(7), now, shared };
    let execution = executor.execute(command);
    let view = View { now, pool: &pool, shared };
    let answer = match execution {
        Execution::Done(outcome) => outcome,
        Execution::Ask(request) => {
            let answer = server.answer(request, &shared.process.users);
            outcome_of(&answer, &view).expect("no page")
        }
        Execution::Store(number, response) => {
            server.stored.push(number);
            response.into()
        }
    };
    let mut body = String::new();
    match answer.effect {
        Effect::Body(Listing::Connections(mut page, of)) => loop {
            let request = ControlRequest::Connections { page, of };
            let ControlAnswer::Connections { rows, next } =
                server.answer(request, &shared.process.users)
            else {
                panic!("another answer");
            };
            rows.iter().for_each(|row| body.push_str(&ended(row.to_string())));
            page = next;
            if page.is_none() {
                body.push_str(".\n");
                break;
            }
        },
        Effect::Body(mut listing) => loop {
            let piece = listing.piece(&view);
            body.push_str(&piece.text);
            if piece.ends {
                break;
            }
        },
        _ => {}
    }
    [answer.response.to_string(), body].join("\n")
}

#[test]
fn nobody_deletes_demotes_or_locks_themselves() {
    let (mut shared, root) = shared();
    let own = "400 Bad Request [SELF] not on your own account\n";
    assert_eq!(says("LOCK-USER root", root, &mut shared), own);
    assert_eq!(says("UNLOCK-USER root", root, &mut shared), own);
    assert_eq!(says("DELETE-USER root", root, &mut shared), own);
    assert_eq!(says("SET-ROLE root user", root, &mut shared), own);
    assert_eq!(says("SET-ROLE root admin", root, &mut shared), own);
    assert_eq!(says("USERS", root, &mut shared), "200 OK\nroot admin\nalice user\n.\n");
}

#[test]
fn an_admin_demotes_another() {
    let (mut shared, root) = shared();
    assert_eq!(says("SET-ROLE alice admin", root, &mut shared), "200 OK\n");
    assert_eq!(says("USERS", root, &mut shared), "200 OK\nroot admin\nalice admin\n.\n");
    assert_eq!(says("SET-ROLE alice user", root, &mut shared), "200 OK\n");
    assert_eq!(says("USERS", root, &mut shared), "200 OK\nroot admin\nalice user\n.\n");
}

#[test]
fn accounts_come_and_go() {
    let (mut shared, root) = shared();
    let exists = "400 Bad Request [EXISTS] user exists\n";
    let no_user = "400 Bad Request [NOUSER] no such user\n";
    assert_eq!(says("ADD-USER bob two words", root, &mut shared), "200 OK\n");
    assert!(shared.process.users.authenticate(b"bob", b"two words").is_some());
    assert_eq!(says("ADD-USER bob other", root, &mut shared), exists);
    assert_eq!(says("DELETE-USER bob", root, &mut shared), "200 OK\n");
    assert_eq!(says("DELETE-USER bob", root, &mut shared), no_user);
    assert_eq!(says("SET-ROLE bob admin", root, &mut shared), no_user);
}

#[test]
fn change_buffer_and_metrics() {
    let (mut shared, root) = shared();
    assert_eq!(says("CHANGE-BUFFER 4096", root, &mut shared), "200 OK\n");
    assert_eq!(shared.process.settings.buffer_size, 4096);
    shared.metrics = Metrics { up: 1_048_575, down: 1, ..shared.metrics };
    shared.metrics.sessions.socks = SessionCounts { accepted: 42, open: 5, ..Default::default() };
    assert_eq!(
        says("GET_METRICS", root, &mut shared),
        "200 OK\nHISTORICAL_CONNECTIONS: 42\nCURRENT_CONNECTIONS:    5\nBYTES_TRANSFERRED:      1048576\n.\n"
    );
    assert_eq!(says("GET_LOGS", root, &mut shared), "200 OK\n.\n");
}

#[test]
fn connections_and_their_end() {
    let (mut shared, root) = shared();
    let alice = "id=0.7 user=alice source=192.0.2.1:5000 destination=- peer=- state=request age=1.500 \
                 idle=0.020 up=1 down=2 buffered=3 targets=- datagrams=- dropped=- rule=-\n";
    let nobody = "id=2.0 user=- source=192.0.2.1:5000 destination=- peer=- state=hello age=1.500 \
                  idle=0.020 up=1 down=2 buffered=3 targets=- datagrams=- dropped=- rule=-\n";
    let mut says = |line| says(line, root, &mut shared);
    assert_eq!(says("CONNECTIONS"), format!("200 OK\n{alice}{nobody}.\n"));
    assert_eq!(says("CONNECTIONS USER alice"), format!("200 OK\n{alice}.\n"));
    assert_eq!(says("CONNECTIONS USER root"), "200 OK\n.\n");
    assert_eq!(says("CONNECTIONS USER bob"), "404 Not Found [NOUSER] no such user\n");
    assert_eq!(says("KILL 0.7"), "200 OK killed=1\n");
    assert_eq!(says("KILL 0.6"), "404 Not Found [NOCONN] no such connection\n");
    assert_eq!(says("KILL USER alice"), "200 OK killed=1\n");
    assert_eq!(says("KILL USER root"), "200 OK killed=0\n");
    assert_eq!(says("KILL USER bob"), "404 Not Found [NOUSER] no such user\n");
    for line in ["KILL", "KILL 7", "KILL .", "KILL 0.7.1", "KILL 0.-7", "CONNECTIONS alice"] {
        assert!(says(line).starts_with("400 Bad Request [SYNTAX]"), "{line}");
    }
}

#[test]
fn settings_by_name() {
    let (mut shared, root) = shared();
    let line =
        "key=buffer-size value=65536 unit=bytes min=1 max=1048576 applies=now source=default\n";
    assert_eq!(says("CONFIG GET buffer-size", root, &mut shared), format!("200 OK\n{line}.\n"));
    let all = says("CONFIG GET", root, &mut shared);
    assert!(all.starts_with(&format!("200 OK\n{line}")) && all.lines().count() == KNOBS.len() + 2);
    assert_eq!(says("CONFIG SET buffer-size 4096", root, &mut shared), "200 OK\n");
    let line = line.replace("65536", "4096").replace("default", "runtime");
    assert_eq!(says("CONFIG GET buffer-size", root, &mut shared), format!("200 OK\n{line}.\n"));
    assert_eq!((shared.process.settings.buffer_size, shared.process.changes), (4096, 1));
    assert_eq!(
        says("CONFIG SET buffer-size 0", root, &mut shared),
        "400 Bad Request [RANGE] buffer-size takes 1 to 1048576 bytes (units: k, M, G, T)\n"
    );
    assert_eq!(
        says("CONFIG SET idle-timeout -1", root, &mut shared),
        "400 Bad Request [RANGE] idle-timeout takes 0 or 0.001 to 31536000 seconds (units: ms, s, m, h, d)\n"
    );
    assert_eq!(
        says("CONFIG SET log-level loud", root, &mut shared),
        "400 Bad Request [RANGE] log-level takes off, error, warn, info, debug, trace\n"
    );
    let missing = "404 Not Found [NOKEY] no such setting\n";
    assert_eq!(says("CONFIG SET no-such 1", root, &mut shared), missing);
    assert_eq!(says("CONFIG GET no-such", root, &mut shared), missing);
    assert_eq!(shared.process.changes, 1);
}

#[test]
fn users_see_and_change_their_own_alone() {
    let (mut shared, root) = shared();
    let alice = shared.process.users.find(b"alice").expect("there");
    let own = "user=alice role=user connections=0 total=0 up=0 down=0 last-seen=- locked=no origin=memory quota=- quota-used=- expires=- sources=- rate=-\n";
    let boss = "user=root role=admin connections=0 total=0 up=0 down=0 last-seen=- locked=no origin=memory quota=- quota-used=- expires=- sources=- rate=-\n";
    assert_eq!(says("USER-METRICS", alice, &mut shared), format!("200 OK\n{own}.\n"));
    assert_eq!(says("USER-METRICS alice", alice, &mut shared), format!("200 OK\n{own}.\n"));
    assert_eq!(says("USER-METRICS", root, &mut shared), format!("200 OK\n{boss}{own}.\n"));
    for name in ["root", "nobody"] {
        assert_eq!(says(&format!("USER-METRICS {name}"), alice, &mut shared), "403 Forbidden\n");
        let change = format!("CHANGE-PASSWORD {name} new");
        assert_eq!(says(&change, alice, &mut shared), "403 Forbidden\n");
    }
    let missing = "404 Not Found [NOUSER] no such user\n";
    assert_eq!(says("USER-METRICS nobody", root, &mut shared), missing);
    assert_eq!(says("CHANGE-PASSWORD nobody new", root, &mut shared), missing);
    assert_eq!(says("CHANGE-PASSWORD alice two words", alice, &mut shared), "200 OK\n");
    assert_eq!(shared.process.users.authenticate(b"alice", b"two words"), Some(alice));
    assert_eq!(says("CHANGE-PASSWORD alice pw", root, &mut shared), "200 OK\n");
    assert_eq!(shared.process.users.authenticate(b"alice", b"pw"), Some(alice));
    let bad = "400 Bad Request [BADNAME] name or password not acceptable";
    assert_eq!(says("CHANGE-PASSWORD alice a\0b", root, &mut shared), bad);
}

#[test]
fn closing_down_is_begun_once() {
    let (mut shared, root) = shared();
    let mut server = FakeServer::default();
    assert_eq!(answers("SHUTDOWN GRACE 0.5", root, &mut shared, &mut server), "200 OK\n");
    assert_eq!(server.closing, Some(Some(Duration::from_millis(500))));
    assert_eq!(
        answers("SHUTDOWN", root, &mut shared, &mut server),
        "409 Conflict [CLOSING] the server is closing down\n"
    );
}

/// A hash of the password `U*U`: a vector of crypt_blowfish.
const BCRYPT: &str = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

#[test]
fn a_locked_account_keeps_its_password() {
    let (mut shared, root) = shared();
    let locked =
        |shared: &mut Shared| says("USER-METRICS alice", root, shared).contains("locked=yes");
    assert!(!locked(&mut shared));
    for (command, works) in [("LOCK-USER alice", false), ("UNLOCK-USER alice", true)] {
        assert_eq!(says(command, root, &mut shared), "200 OK\n");
        assert_eq!(says(command, root, &mut shared), "200 OK\n");
        assert_eq!(locked(&mut shared), !works);
        assert_eq!(shared.process.users.authenticate(b"alice", b"pw").is_some(), works);
        assert_eq!(shared.process.users.authenticate(b"alice", b"no"), None);
    }
    let nobody = "400 Bad Request [NOUSER] no such user\n";
    assert_eq!(says("LOCK-USER bob", root, &mut shared), nobody);
    assert_eq!(says("LOCK-USER -", root, &mut shared), nobody);
}

/// The password of a reply to `GENERATE-PASSWORD`.
fn generated(reply: &str, created: &str) -> String {
    let (password, rest) = reply
        .strip_prefix("200 OK password=")
        .and_then(|rest| rest.split_once(' '))
        .expect("a password");
    assert_eq!(rest, format!("created={created}\n"));
    assert_eq!(password.len(), 32);
    password.to_owned()
}

#[test]
fn a_generated_password_is_that_of_its_account() {
    let (mut shared, root) = shared();
    let first = generated(&says("GENERATE-PASSWORD bob", root, &mut shared), "yes");
    let second = generated(&says("GENERATE-PASSWORD bob", root, &mut shared), "no");
    assert_ne!(first, second);
    let users = &mut shared.process.users;
    assert_eq!(users.authenticate(b"bob", first.as_bytes()), None);
    assert_eq!(users.authenticate(b"bob", second.as_bytes()), users.find(b"bob"));
    assert_eq!(
        says("GENERATE-PASSWORD -", root, &mut shared),
        "400 Bad Request [BADNAME] name or password not acceptable\n"
    );
    let own = generated(&says("GENERATE-PASSWORD root", root, &mut shared), "no");
    assert_eq!(shared.process.users.authenticate(b"root", own.as_bytes()), Some(root));
}

#[test]
fn a_line_of_a_users_file_is_imported() {
    let (mut shared, root) = shared();
    assert_eq!(says("IMPORT bob:=two\\x20words:role=admin", root, &mut shared), "200 OK\n");
    let bob = shared.process.users.authenticate(b"bob", b"two words").expect("there");
    assert_eq!(shared.process.users.get(bob).map(|account| account.role), Some(Role::Admin));
    assert_eq!(says(&format!("IMPORT carol:!{BCRYPT}"), root, &mut shared), "200 OK\n");
    assert!(shared.process.users.has_hashes());
    for (line, answer) in [
        ("bob:=x", "400 Bad Request [EXISTS] user exists"),
        ("dave", "400 Bad Request [BADLINE] no colon between name and secret"),
        ("# comment", "400 Bad Request [BADLINE] no colon between name and secret"),
        (
            "dave:=x:rate=5",
            "400 Bad Request [BADLINE] rate takes none or 1kbit to 1000Gbit with its unit: bit, kbit, Mbit, Gbit, kB/s, MB/s or GB/s",
        ),
    ] {
        assert_eq!(says(&format!("IMPORT {line}"), root, &mut shared), format!("{answer}\n"));
    }
}

/// With a users file each change is noted with what it takes to undo it, unless the account lives in memory.
#[test]
fn changes_of_accounts_of_the_file_go_on_to_the_disk() {
    let (mut shared, root) = shared();
    shared.process.has_users_file = true;
    let mut server = FakeServer::default();
    let before = answers("USER-METRICS", root, &mut shared, &mut server);
    for (command, stored) in [
        ("ADD-USER bob pw", 1),
        ("SET-ROLE bob admin", 2),
        ("CHANGE-PASSWORD bob other", 3),
        ("LOCK-USER bob", 4),
        ("GENERATE-PASSWORD bob", 5),
        ("GENERATE-PASSWORD carol", 6),
        ("IMPORT dave:=x", 7),
        ("DELETE-USER carol", 8),
        // Not in the file.
        ("CHANGE-PASSWORD alice new", 8),
        ("LOCK-USER alice", 8),
        ("ADD-USER bob pw", 8),
    ] {
        answers(command, root, &mut shared, &mut server);
        assert_eq!(server.stored.len(), stored, "{command}");
    }
    let says = answers("USER-METRICS bob", root, &mut shared, &mut server);
    assert!(says.contains("role=admin") && says.contains("locked=yes origin=file"), "{says}");
    // All of it is undone, down to what nobody can see.
    answers("UNLOCK-USER alice", root, &mut shared, &mut server);
    let process = &mut shared.process;
    process.users.set_password(process.users.find(b"alice").expect("there"), b"pw");
    assert_eq!(process.account_changes.begin().len(), 8);
    let settled = process.account_changes.failed("disk full", &mut process.users);
    let numbers: Vec<ChangeNumber> = settled.iter().map(|settled| settled.number).collect();
    assert_eq!(numbers, server.stored);
    assert!(settled.iter().all(|settled| settled.outcome == Err("disk full".to_owned())));
    assert_eq!(answers("USER-METRICS", root, &mut shared, &mut server), before);
}

#[test]
fn a_fixed_users_file_is_changed_by_no_command() {
    let (mut shared, root) = shared();
    (shared.process.has_users_file, shared.process.users_fixed) = (true, true);
    let before = says("USER-METRICS", root, &mut shared);
    for command in [
        "ADD-USER bob pw",
        "DELETE-USER alice",
        "SET-ROLE alice admin",
        "CHANGE-PASSWORD alice new",
        "LOCK-USER alice",
        "UNLOCK-USER alice",
        "GENERATE-PASSWORD alice",
        "IMPORT bob:=x",
    ] {
        let fixed = "409 Conflict [FIXED] the users file is not changed here\n";
        assert_eq!(says(command, root, &mut shared), fixed);
    }
    assert_eq!(says("USER-METRICS", root, &mut shared), before);
}

#[test]
fn a_reload_tells_what_is_wrong() {
    let (mut shared, root) = shared();
    let none = "409 Conflict [NOFILE] there is no file to be read again\n";
    assert_eq!(says("RELOAD", root, &mut shared), none);
    let faults = ["line 2: x", "line 9: y"].map(str::to_owned).to_vec();
    let mut server = FakeServer { faults, ..FakeServer::default() };
    let invalid = "409 Conflict [INVALID] line 2: x; line 9: y\n";
    assert_eq!(answers("RELOAD", root, &mut shared, &mut server), invalid);
}

/// §5.27.
#[test]
fn rules_are_listed_tested_and_changed() {
    let (mut shared, root) = shared();
    for command in
        ["RULES", "RULES TEST a 192.0.2.1 b:1", "RULE INSERT 1 deny", "RULE DELETE 1 deny"]
    {
        let none = "409 Conflict [NORULES] there is no file of rules\n";
        assert_eq!(says(command, root, &mut shared), none);
    }
    let rules = RuleSet::parse(b"# head\ndeny user a\\x20b port 25\nallow\n").expect("good");
    shared.process.rules = Some(rules);
    let range = "400 Bad Request [RANGE] USER ADDRESS HOST:PORT [connect|bind|udp|resolve]\n";
    for (command, reply) in [
        (
            "RULES",
            "200 OK\nrule=2 hits=0 text=deny\\x20user\\x20a\\x5cx20b\\x20port\\x2025\nrule=3 hits=0 text=allow\n.\n",
        ),
        (
            "RULES TEST a 192.0.2.1 [::1]:25",
            "200 OK\nverdict=deny by=rule rule=7 text=deny\\x20port\\x2025\n.\n",
        ),
        (
            "RULES TEST a\\x20b ::1 example.com:25 udp",
            "200 OK\nverdict=depends by=rule rule=7 text=deny\\x20port\\x2025\n.\n",
        ),
        ("RULES TEST a 192.0.2.1 b:1 ping", range),
        ("RULES TEST a 192.0.2.1 b", range),
        ("RULES TEST a b b:1", range),
        ("RULE INSERT 1 deny  port 25", "200 OK\n"),
        ("RULE INSERT 2 deny", "500 Internal Server Error [STORE] disk full\n"),
        (
            "RULE INSERT 1 deny prot 25",
            "400 Bad Request [BADRULE] unknown word \"prot\": known are user, from, to, port, command\n",
        ),
        ("RULE INSERT 1 # deny", "400 Bad Request [SYNTAX] wrong arguments\n"),
        ("RULE INSERT 1", "400 Bad Request [SYNTAX] wrong arguments\n"),
        ("RULE INSERT x deny", "400 Bad Request [SYNTAX] wrong arguments\n"),
        ("RULE INSERT 123456789 deny", "400 Bad Request [RANGE] number out of range\n"),
        ("RULE DELETE 1 deny", "409 Conflict [MISMATCH] line 1 is: deny port 25\n"),
        ("RULE DELETE 9 deny", "404 Not Found [NORULE] there is no rule in this line\n"),
    ] {
        let said = says(command, root, &mut shared);
        assert_eq!(said.trim_end(), reply.trim_end(), "{command}");
    }
    shared.process.rules_fixed = true;
    let fixed = "409 Conflict [FIXED] the rules are not changed here\n";
    assert_eq!(says("RULE INSERT 1 deny", root, &mut shared), fixed);
}
