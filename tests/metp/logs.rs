//! METP/1.1: GET_LOGS with LAST and USER (`protocol_metp.txt` §5.3).

use std::net::TcpStream;

use support::metp::Metp;
use support::origin::Origin;
use support::proxy::{Builder, Proxy};
use support::socks::Client;
use support::{eventually, exchange};

const SYNTAX: &str = "400 Bad Request [SYNTAX] wrong arguments";
const RANGE: &str = "400 Bad Request [RANGE] number out of range";

fn open(proxy: &Proxy, name: &str, origin: &Origin) -> TcpStream {
    Client::new(proxy.socks()).logged_in(name, "pw").connected(origin.address)
}

/// All choices of records are what a reader would choose from all records: the user's, then the newest.
#[test]
fn each_choice_is_taken_from_the_whole_list() {
    let names = ["alice", "bob", "carl"];
    let users = names.map(|name| format!("{name}:pw"));
    let options = users.iter().flat_map(|user| ["-u", user]);
    let (proxy, origin) = (Builder::default().args(options).start(), Origin::echo());
    for number in 0..40 {
        // carl comes seldom: the search for his records goes far back.
        let name = if number % 13 == 0 { "carl" } else { names[number * number % 7 % 2] };
        exchange(&mut open(&proxy, name, &origin), number);
    }
    proxy.wait_until_idle();
    let mut admin = proxy.admin();
    let all = admin.ask("GET_LOGS");
    assert_eq!(all.len(), 40);
    for name in [None, Some("alice"), Some("bob"), Some("carl"), Some("admin"), Some("nobody")] {
        let of = |record: &&String| name.is_none_or(|name| record.split(' ').nth(1) == Some(name));
        let wanted: Vec<&String> = all.iter().filter(of).collect();
        for last in
            [None, Some(0), Some(1), Some(2), Some(4), Some(13), Some(39), Some(40), Some(41)]
        {
            let expected = &wanted[wanted.len().saturating_sub(last.unwrap_or(usize::MAX))..];
            let last = last.map_or(String::new(), |last| format!(" LAST {last}"));
            let user = name.map_or(String::new(), |name| format!(" USER {name}"));
            for command in [format!("GET_LOGS{last}{user}"), format!("GET_LOGS{user}{last}")] {
                assert_eq!(admin.ask(&command).iter().collect::<Vec<_>>(), expected, "{command}");
            }
        }
    }
}

/// A number has up to ten digits, and each option may be there once.
#[test]
fn what_is_no_choice_is_400() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for good in [
        "LAST 0",
        "LAST 0000000001",
        "LAST 9999999999",
        "LAST 4294967296",
        "USER LAST",
        "USER USER LAST 1",
    ] {
        assert_eq!(admin.ask(&format!("GET_LOGS {good}")), [""; 0], "{good}");
    }
    for beyond in ["00000000001", "99999999999", "18446744073709551616"] {
        assert_eq!(admin.command(&format!("GET_LOGS LAST {beyond}")), RANGE, "{beyond}");
    }
    for bad in [
        "LAST",
        "LAST ",
        "LAST x",
        "LAST -1",
        "LAST +1",
        "LAST 1.0",
        "LAST 1 2",
        "last 1",
        "USER",
        "USER a b",
        "USER a USER a",
        "LAST 1 LAST 1",
        "LAST 1 USER a LAST 2",
        "1",
        "ALL",
        "FIRST 1",
    ] {
        assert_eq!(admin.command(&format!("GET_LOGS {bad}")), SYNTAX, "{bad}");
    }
}

/// Records outlive their account, and belong to the name: who gets it later has them too.
#[test]
fn records_outlive_their_account() {
    let (proxy, origin) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    drop(open(&proxy, "alice", &origin));
    proxy.wait_until_idle();
    let mut admin = proxy.admin();
    let before = admin.ask("GET_LOGS USER alice");
    assert_eq!(before.len(), 1);
    assert_eq!(admin.command("DELETE-USER alice"), "200 OK");
    assert_eq!(admin.ask("GET_LOGS USER alice"), before);
    assert_eq!(admin.command("ADD-USER alice pw"), "200 OK");
    drop(open(&proxy, "alice", &origin));
    assert_eq!(admin.ask("GET_LOGS USER alice").len(), 2);
    assert_eq!(admin.ask("GET_LOGS LAST 1 USER alice").len(), 1);
}

/// Names are found in the form in which they are shown.
#[test]
fn names_are_found_escaped() {
    let (server, origin) = (crate::inprocess::Builder::default(), Origin::echo());
    let proxy = server.account(b"a b\n\xff", b"pw").start();
    let mut client = proxy.stranger();
    client.say(&[5, 1, 2, 1, 5]).say(b"a b\n\xff\x02pw").hears(&[5, 2, 1, 0]);
    let _tunnel = client.connected(origin.address);
    let mut admin = proxy.admin();
    let shown = "a\\x20b\\x0a\\xff";
    let records = admin.ask(&format!("GET_LOGS USER {shown}"));
    assert!(records.len() == 1 && records[0].contains(&format!(" {shown} ")), "{records:?}");
    assert_eq!(admin.ask("GET_LOGS USER a\\x20b"), [""; 0]);
}

/// An open tunnel's record counts on, and `log-entries` decides how many there are, at once.
#[test]
fn the_list_is_live() {
    let (proxy, origin) = (Proxy::with(&["-u", "alice:pw"]), Origin::echo());
    let mut tunnels: Vec<TcpStream> = (0..6).map(|_| open(&proxy, "alice", &origin)).collect();
    let mut admin = proxy.admin();
    let bytes = |records: Vec<String>| -> Vec<String> {
        records.iter().map(|record| record.rsplit(' ').next().expect("bytes").to_owned()).collect()
    };
    exchange(&mut tunnels[5], 5);
    eventually("they are counted", || bytes(admin.ask("GET_LOGS LAST 2")) == ["0", "10"]);
    admin.set("log-entries", 2);
    assert_eq!(bytes(admin.ask("GET_LOGS")), ["0", "10"]);
    admin.set("log-entries", 4);
    assert_eq!(bytes(admin.ask("GET_LOGS USER alice")), ["0", "10"], "what is gone is gone");
    // Tunnels without a record count on elsewhere.
    exchange(&mut tunnels[0], 7);
    exchange(&mut tunnels[5], 1);
    tunnels.push(open(&proxy, "alice", &origin));
    eventually("they are counted", || bytes(admin.ask("GET_LOGS LAST 9")) == ["0", "12", "0"]);
    assert_eq!(admin.metrics()[2], 26);
    admin.set("log-entries", 0);
    assert_eq!(admin.ask("GET_LOGS LAST 9"), [""; 0]);
    exchange(&mut tunnels[6], 1);
    admin.set("log-entries", 3);
    assert_eq!(admin.ask("GET_LOGS"), [""; 0]);
    drop(open(&proxy, "alice", &origin));
    assert_eq!(admin.ask("GET_LOGS").len(), 1);
}

/// Long lists in pieces, pipelined, while records come and the oldest go.
#[test]
fn long_lists_while_the_log_moves_on() {
    let (proxy, origin) =
        (Proxy::with(&["-u", "alice:pw", "--log-entries", "300"]), Origin::echo());
    for _ in 0..300 {
        drop(open(&proxy, "alice", &origin));
    }
    let mut reader: Metp = proxy.admin();
    let lists = 60;
    reader.say(&"GET_LOGS LAST 250 USER alice\n".repeat(lists));
    for _ in 0..100 {
        drop(open(&proxy, "alice", &origin));
    }
    for _ in 0..lists {
        assert_eq!(reader.line(), "200 OK");
        let body = reader.body();
        assert!((150..=250).contains(&body.len()), "{} records", body.len());
        assert!(body.iter().all(|record| record.starts_with('[') && record.contains(" alice ")));
    }
    assert_eq!(proxy.admin().ask("GET_LOGS LAST 250 USER alice").len(), 250);
}
