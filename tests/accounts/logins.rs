//! What a login costs, and what it tells (RFC 1929, METP section 11.5).

use std::time::{Duration, Instant};

use support::eventually;
use support::socks::{Client, DENIED, HELLO, WELCOME, credentials};

use super::{BCRYPT, TOKEN, UsersFile, login, status};

/// Argon2id of a password that nobody knows, at the costs of new hashes.
const ARGON2: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// No failure is told earlier.
const DELAY: Duration = Duration::from_millis(100);

/// A failure takes its time, whether the name is unknown, its password has been seen or not, or it is locked.
#[test]
fn failures_are_told_no_earlier_than_100_ms() {
    let file = UsersFile::new(&format!(
        "seen:{BCRYPT}\nunseen:{BCRYPT}\nargon:{ARGON2}\ntoken:{TOKEN}\nclear:=c\nlocked:!=l\nnone:\nempty:=\n"
    ));
    let proxy = file.proxy();
    assert_eq!(login(&proxy, "seen", "U*U"), WELCOME);
    for (name, password) in [
        ("seen", "wrong"),
        ("unseen", "wrong"),
        ("argon", "wrong"),
        ("token", "wrong"),
        ("clear", "wrong"),
        ("locked", "l"),
        ("none", "x"),
        ("empty", "="),
        ("none", ""),
        ("empty", ""),
        ("nobody", "wrong"),
        ("", ""),
    ] {
        let start = Instant::now();
        assert_eq!(login(&proxy, name, password), DENIED, "{name}");
        assert!(start.elapsed() >= DELAY, "{name}");
    }
    let start = Instant::now();
    let mut metp = proxy.metp();
    metp.say("HELLO METP/1.0\nAUTH nobody x\n");
    metp.hears("200 Welcome to METP/1.0\n401 Unauthorized\n").hears_eof();
    assert!(start.elapsed() >= DELAY);
    for (name, password) in [("seen", "U*U"), ("unseen", "U*U"), ("clear", "c")] {
        assert_eq!(login(&proxy, name, password), WELCOME, "{name}");
    }
}

/// All of one login's clients share its hash: none of them is too many.
#[test]
fn a_browser_full_of_connections_gets_in() {
    let file = UsersFile::new("");
    let mut proxy = file.proxy();
    assert_eq!(proxy.admin().command("ADD-USER alice wonderland"), "200 OK");
    proxy.signal(libc::SIGKILL);
    proxy.wait();
    let proxy = file.proxy();
    let mut clients: Vec<Client> = (0..40).map(|_| Client::new(proxy.socks())).collect();
    for client in &mut clients {
        client.say(&[HELLO, &credentials(b"alice", b"wonderland")].concat());
    }
    for client in &mut clients {
        client.hears(b"\x05\x02\x01\x00");
    }
}

/// A flood of logins of one address: what is too many is closed without a status, and has no line that fail2ban would
/// ban its source for. An administrator gets in meanwhile.
#[test]
fn a_flood_is_shed_without_a_word() {
    let file = UsersFile::new(&format!("alice:{ARGON2}\nroot:{BCRYPT}:role=admin\n"));
    let proxy = file.proxy();
    let mut flood: Vec<Client> = (0..60).map(|_| Client::new(proxy.socks())).collect();
    for (number, client) in flood.iter_mut().enumerate() {
        let name = format!("nobody{number}");
        client.say(&[HELLO, &credentials(name.as_bytes(), b"x")].concat());
    }
    let mut root = proxy.metp().logged_in("root", "U*U");
    let mut told = 0;
    for client in &mut flood {
        client.hears(b"\x05\x02");
        match &status(client)[..] {
            [] => {}
            DENIED => told += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((1..60).contains(&told), "{told} of 60");
    assert_eq!(root.figure("LOGINS_SHED"), 60 - told);
    drop(flood);
    eventually("each is counted", || root.figure("REFUSED_AUTH") == told);
    // Lines of single failures, and counts of further ones.
    let failures = || -> u64 {
        let lines = proxy.stderr.all();
        let one = lines.iter().filter(|line| line.contains("auth failed: ")).count() as u64;
        let counts = lines.iter().filter_map(|line| {
            let (_, count) = line.split_once("auth failed ")?;
            count.split(' ').next()?.parse::<u64>().ok()
        });
        one + counts.sum::<u64>()
    };
    eventually("each failure that was told is logged", || failures() == told);
}

/// What hashes take goes back to the system, and does not stay in pieces.
#[test]
fn hashes_leave_no_memory_behind() {
    let file = UsersFile::new(&format!("alice:{ARGON2}\n"));
    let proxy = file.builder().args(["--auth-threads", "1"]).start();
    for number in 0..60 {
        assert_eq!(login(&proxy, &format!("nobody{number}"), "x"), DENIED);
    }
    let rss = proxy.status_kib("VmRSS");
    assert!(rss < 80 * 1024, "{rss} KiB");
}

/// A client that leaves, or whose time is over, while its hash is computed or waited for.
#[test]
fn who_waits_for_a_hash_may_leave_and_has_a_deadline() {
    let file = UsersFile::new(&format!("alice:{ARGON2}\n"));
    let proxy = file.builder().args(["--handshake-timeout", "0.001"]).start();
    let mut client = Client::new(proxy.socks());
    client.say(&[HELLO, &credentials(b"alice", b"x")].concat());
    let mut heard = Vec::new();
    // It may be reset: what it has sent may not have been read.
    let _ = std::io::Read::read_to_end(&mut client.stream, &mut heard);
    assert!(!heard.ends_with(WELCOME) && !heard.ends_with(DENIED), "{heard:?}");
    let proxy = file.proxy();
    for _ in 0..20 {
        let mut client = Client::new(proxy.socks());
        client.say(&[HELLO, &credentials(b"alice", b"x")].concat());
        drop(client);
    }
    proxy.wait_until_idle();
    assert_eq!(login(&proxy, "alice", "x"), DENIED);
}

/// While its hash waits, an account is deleted: nobody gets in, not even if the name comes back.
#[test]
fn an_account_that_is_deleted_in_mid_flight_lets_nobody_in() {
    let file = UsersFile::new(&format!("alice:{BCRYPT}\n"));
    let proxy = file.proxy();
    let mut admin = proxy.admin();
    for _ in 0..10 {
        let mut client = Client::new(proxy.socks());
        client.say(&[HELLO, &credentials(b"alice", b"U*U")].concat());
        admin.say(&format!("DELETE-USER alice\nIMPORT alice:{TOKEN}\n")).hears("200 OK\n200 OK\n");
        client.hears(b"\x05\x02");
        // It came before the deletion, or after it.
        assert!([WELCOME, DENIED].contains(&&status(&mut client)[..]));
        assert_eq!(login(&proxy, "alice", "U*U"), DENIED);
        admin.say(&format!("DELETE-USER alice\nIMPORT alice:{BCRYPT}\n")).hears("200 OK\n200 OK\n");
    }
}

/// Who needs no login does not wait for the failure of a wrong one; with a right one the account counts.
#[test]
fn trusted_networks_do_not_wait() {
    let file = UsersFile::new(&format!("alice:{BCRYPT}\n"));
    let trust = ["--trust", "127.0.0.0/8", "--trust-any-login"];
    let proxy = file.builder().args(trust).start();
    for (name, password) in [("nobody", "x"), ("alice", "wrong"), ("alice", "U*U")] {
        assert_eq!(login(&proxy, name, password), WELCOME, "{name}");
    }
    let usage = |name: &str| proxy.admin().ask(&format!("USER-METRICS {name}"))[0].clone();
    assert!(usage("alice").contains(" total=1 "), "{}", usage("alice"));
    assert!(usage("-").contains(" total=2 "), "{}", usage("-"));
}

/// Without a users file a failure is told at once, as ever, until a hash is imported.
#[test]
fn without_hashes_nothing_waits() {
    let proxy = support::proxy::Proxy::with(&["-u", "alice:pw"]);
    for _ in 0..3 {
        assert_eq!(login(&proxy, "alice", "no"), DENIED);
    }
    assert_eq!(proxy.admin().command(&format!("IMPORT bob:{BCRYPT}")), "200 OK");
    let start = Instant::now();
    assert_eq!(login(&proxy, "nobody", "no"), DENIED);
    assert!(start.elapsed() >= DELAY);
    assert_eq!(login(&proxy, "bob", "U*U"), WELCOME);
    assert_eq!(login(&proxy, "alice", "pw"), WELCOME);
}
