//! METP/1.1, §6: which role may give which command; that the role is looked at before the arguments; and
//! that an account which is no administrator any more is told nothing that only administrators may know.

use std::time::Instant;

use support::metp::Metp;
use support::origin::Origin;
use support::proxy::Proxy;
use support::socks::{Client, credentials};
use support::{SOON, eventually, read_exactly};

const FORBIDDEN: &str = "403 Forbidden";
const SYNTAX: &str = "400 Bad Request [SYNTAX] wrong arguments";

/// A verb, a good call of it, and what a user hears instead of 403.
const VERBS: [(&str, &str, Option<&str>); 30] = [
    ("GET_METRICS", "GET_METRICS", Some("200 OK")),
    ("GET_LOGS", "GET_LOGS LAST 1", None),
    ("USERS", "USERS", None),
    ("CHANGE-BUFFER", "CHANGE-BUFFER 4096", None),
    ("ADD-USER", "ADD-USER carl pw", None),
    ("DELETE-USER", "DELETE-USER bob", None),
    ("SET-ROLE", "SET-ROLE alice admin", None),
    ("QUIT", "QUIT now", Some(SYNTAX)),
    ("CAPA", "CAPA", Some("200 OK")),
    ("PING", "PING", Some("200 PONG")),
    ("INFO", "INFO", None),
    ("USER-METRICS", "USER-METRICS", Some("200 OK")),
    ("CHANGE-PASSWORD", "CHANGE-PASSWORD alice pw", Some("200 OK")),
    ("CONNECTIONS", "CONNECTIONS", None),
    ("KILL", "KILL USER alice", None),
    ("CONFIG", "CONFIG GET", None),
    ("SUBSCRIBE", "SUBSCRIBE logs", None),
    ("UNSUBSCRIBE", "UNSUBSCRIBE", None),
    ("SHUTDOWN", "SHUTDOWN", None),
    ("TRUST", "TRUST", None),
    ("LOCK-USER", "LOCK-USER alice", None),
    ("UNLOCK-USER", "UNLOCK-USER alice", None),
    ("GENERATE-PASSWORD", "GENERATE-PASSWORD bob", None),
    ("IMPORT", "IMPORT carol:=pw", None),
    ("RELOAD", "RELOAD", None),
    ("LIMITS", "LIMITS", None),
    ("SET-LIMIT", "SET-LIMIT alice conns=1", None),
    ("RESET-USAGE", "RESET-USAGE alice", None),
    ("RULES", "RULES", None),
    ("RULE", "RULE INSERT 1 deny", None),
];

/// Arguments that no verb takes, or that name what is not there.
const ODD: [&str; 8] =
    ["", " ", " nobody", " nobody x", " 1.1", " USER nobody", " SET x", " a b c"];

#[test]
fn each_verb_for_a_user() {
    let proxy = Proxy::with(&["-u", "alice:pw", "-u", "bob:pw"]);
    let mut alice = proxy.metp().logged_in("alice", "pw");
    let verbs = alice
        .ask("CAPA")
        .into_iter()
        .find_map(|line| Some(line.strip_prefix("verbs=")?.to_owned()));
    let listed: Vec<&str> = VERBS.iter().map(|(verb, ..)| *verb).collect();
    assert_eq!(verbs.expect("a list"), listed.join(","));
    for (verb, call, answer) in VERBS {
        let told = alice.command(call);
        assert_eq!(told, answer.unwrap_or(FORBIDDEN), "{call}");
        if told == "200 OK" && verb != "CHANGE-PASSWORD" {
            alice.body();
        }
        if answer.is_none() {
            for odd in ODD {
                assert_eq!(alice.command(&format!("{verb}{odd}")), FORBIDDEN, "{verb}{odd}");
            }
        }
    }
    // Nothing has happened.
    let mut admin = proxy.admin();
    assert_eq!(admin.ask("USERS"), ["admin admin", "alice user", "bob user"]);
    assert_eq!(admin.setting("buffer-size"), "65536");
    assert_eq!(admin.info("subscribers"), "0");
}

/// An administrator is never refused for the role, and never for an argument that is right.
#[test]
fn each_verb_for_an_administrator() {
    let proxy = Proxy::with(&["-u", "alice:pw", "-u", "bob:pw"]);
    let mut admin = proxy.admin();
    for (verb, call, _) in
        VERBS.into_iter().filter(|(verb, ..)| !["QUIT", "SHUTDOWN"].contains(verb))
    {
        let mut session = proxy.admin();
        let told = session.command(call);
        // There is no file.
        let wanted = match verb {
            "RELOAD" => "409 Conflict [NOFILE] ",
            "RULES" | "RULE" => "409 Conflict [NORULES] ",
            _ => "200 ",
        };
        assert!(told.starts_with(wanted), "{call}: {told}");
        for odd in ODD {
            let mut session = proxy.admin();
            let told = session.command(&format!("{verb}{odd}"));
            assert_ne!(told, FORBIDDEN, "{verb}{odd}");
        }
    }
    assert!(admin.ask("USERS").len() > 1);
}

/// §5.13, §5.14: what belongs to others is 403, whether they exist or not.
#[test]
fn a_user_learns_of_nobody_else() {
    let proxy = Proxy::with(&["-u", "alice:pw", "-u", "bob:pw"]);
    let mut alice = proxy.metp().logged_in("alice", "pw");
    for name in ["bob", "admin", "nobody", "Alice", "alic", "alice.", "\\x61lice\\x20"] {
        assert_eq!(alice.command(&format!("USER-METRICS {name}")), FORBIDDEN, "{name}");
        assert_eq!(alice.command(&format!("CHANGE-PASSWORD {name} pw2")), FORBIDDEN, "{name}");
    }
    // One's own name may be escaped, as everywhere.
    assert_eq!(alice.ask("USER-METRICS \\x61lice").len(), 1);
    // Passwords are looked at after names: 403 tells nothing of the rule either.
    let long = "x".repeat(256);
    let told = alice.command(&format!("CHANGE-PASSWORD bob {long}"));
    assert!(told == FORBIDDEN || told.starts_with("400 Bad Request [BADNAME]"), "{told}");
    proxy.metp().logged_in("bob", "pw");
}

/// Somebody who is logged in and has asked for events.
fn subscriber(proxy: &Proxy, topics: &str) -> Metp {
    let mut admin = proxy.admin();
    assert_eq!(admin.command("SET-ROLE alice admin"), "200 OK");
    let mut alice = proxy.metp().logged_in("alice", "pw");
    assert_eq!(alice.command(&format!("SUBSCRIBE {topics}")), "200 OK");
    alice
}

/// A login at SOCKS that fails: an event on `auth`, and in the diagnostics.
fn guess(proxy: &Proxy, name: &str) {
    let mut client = Client::new(proxy.socks());
    client.say(&[5, 1, 2]).hears(&[5, 2]);
    client.say(&credentials(name.as_bytes(), b"no")).hears(&[1, 1]);
}

/// §5.18: events are for administrators. Who is none any more hears no more of them.
#[test]
fn events_end_with_the_role() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let (mut alice, mut admin) = (subscriber(&proxy, "auth"), proxy.admin());
    guess(&proxy, "first");
    let events = [alice.line(), alice.line()];
    assert!(events[1].contains(" user=first "), "{events:?}");
    assert_eq!(admin.command("SET-ROLE alice user"), "200 OK");
    guess(&proxy, "secret");
    // The answer to the next command is what comes next.
    assert_eq!(alice.command("PING"), "200 PONG", "a user is told of a login");
    eventually("its place is free", || admin.info("subscribers") == "0");
}

/// An account that is gone hears nothing, and takes no place.
#[test]
fn events_end_with_the_account() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let (mut alice, mut admin) = (subscriber(&proxy, "auth"), proxy.admin());
    assert!(alice.line().contains(" user=admin "));
    assert_eq!(admin.command("DELETE-USER alice"), "200 OK");
    guess(&proxy, "secret");
    assert_eq!(alice.command("PING"), "401 Unauthorized", "nobody is told of a login");
    alice.hears_eof();
    eventually("its place is free", || admin.info("subscribers") == "0");
}

/// A deleted subscriber that says nothing does not stay for ever: nobody could close it.
#[test]
fn a_deleted_subscriber_that_is_silent_is_closed() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let mut alice = subscriber(&proxy, "connections metrics EVERY 3600");
    assert!(alice.line().starts_with("650 metrics "));
    let mut admin = proxy.admin();
    assert_eq!(admin.command("DELETE-USER alice"), "200 OK");
    let origin = Origin::echo();
    let mut tunnel = proxy.client();
    tunnel.say(&support::socks::connect_request(origin.address));
    read_exactly(&mut tunnel.stream, 10);
    admin.set("metp-idle-timeout", "0.5");
    let heard = alice.rest();
    assert!(heard.is_empty() || heard == "401 Unauthorized\n", "{heard:?}");
}

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
    // Users evict one another when all places are taken, never an administrator.
    let mut more: Vec<Metp> = (0..8).map(|_| user()).collect();
    for session in admins.iter_mut().chain(&mut more[3..]) {
        session.metrics();
    }
    // Who becomes an administrator is one from the next command on.
    assert_eq!(admins[0].command("SET-ROLE alice admin"), "200 OK");
    for session in &mut more[3..] {
        session.ask("USERS");
    }
}
