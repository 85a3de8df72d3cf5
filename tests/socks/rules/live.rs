//! Rules that change while the server runs (METP section 5.27).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use support::metp::value;
use support::origin::Origin;
use support::{exchange, read_to_reset};

use super::{NOT_ALLOWED, Rules, alice, code, local, rules_of};

/// A change is on the disk and in force when it is answered; the text has to match for a deletion.
#[test]
fn lines_come_and_go() {
    let echo = Origin::echo();
    let port = echo.address.port();
    let rules = Rules::new("# head\nallow # the rest\n");
    let proxy = rules.proxy();
    let mut admin = proxy.admin();
    assert_eq!(code(alice(&proxy), echo.address), 0);
    let rule = format!("deny user alice port {port}");
    assert_eq!(admin.command(&format!("RULE INSERT 2 {rule}")), "200 OK");
    assert_eq!(rules.text(), format!("# head\n{rule}\nallow # the rest\n"));
    assert_eq!(code(alice(&proxy), echo.address), NOT_ALLOWED);
    let listed = admin.ask("RULES");
    let text = rule.replace(' ', "\\x20");
    assert_eq!(
        listed,
        [format!("rule=2 hits=1 text={text}"), "rule=3 hits=1 text=allow".to_owned()]
    );
    let other = admin.command("RULE DELETE 2 deny user bob");
    assert_eq!(other, format!("409 Conflict [MISMATCH] line 2 is: {rule}"));
    assert_eq!(
        admin.command("RULE DELETE 1 allow"),
        "404 Not Found [NORULE] there is no rule in this line"
    );
    let last = "400 Bad Request [BADRULE] line 2: the last rule has to be a bare allow or deny, for all the rest";
    assert_eq!(admin.command("RULE DELETE 3 allow"), last);
    // The clauses may come in another order.
    assert_eq!(admin.command(&format!("RULE DELETE 2 deny port {port} user alice")), "200 OK");
    assert_eq!(rules.text(), "# head\nallow # the rest\n");
    assert_eq!(code(alice(&proxy), echo.address), 0);
    rules.write("deny\n");
    let edited = "500 Internal Server Error [STORE] changed on disk, RELOAD first";
    assert_eq!(admin.command("RULE INSERT 1 deny port 25"), edited);
    assert_eq!(
        admin.command("RELOAD"),
        "200 OK accounts=0 added=0 deleted=0 changed=0 settings=0 rules=1"
    );
    assert_eq!(code(alice(&proxy), echo.address), NOT_ALLOWED);
    assert_eq!(admin.command("RULE INSERT 1 allow user admin"), "200 OK");
    assert_eq!(rules.text(), "allow user admin\ndeny\n");
    proxy.stderr.wait_for(|line| line.contains("command=\"RULE INSERT 1 allow user admin\""));
}

/// All or nothing, with the numbers of the lines.
#[test]
fn a_file_that_is_no_good_changes_nothing() {
    let echo = Origin::echo();
    let rules = Rules::new("allow\n");
    let proxy = rules.proxy();
    rules.write("deny prot 25\nallow\nallow to x:y\n");
    let told = proxy.admin().command("RELOAD");
    assert!(
        told.starts_with("409 Conflict [INVALID] rules: line 1: unknown word \"prot\""),
        "{told}"
    );
    assert!(told.contains("; rules: line 3: \"x:y\" is not a network"), "{told}");
    assert_eq!(code(alice(&proxy), echo.address), 0);
    proxy.signal(libc::SIGHUP);
    proxy.stderr.wait_for(|line| line.contains("not reloaded: nothing has changed"));
    assert_eq!(code(alice(&proxy), echo.address), 0);
    rules.write("deny\n");
    proxy.signal(libc::SIGHUP);
    proxy.stderr.wait_for(|line| line.contains("reloaded: ") && line.ends_with(" rules=1"));
    assert_eq!(code(alice(&proxy), echo.address), NOT_ALLOWED);
}

/// RELOAD acts on new requests; with CUT, tunnels that would be denied now end, and no others.
#[test]
fn cut_ends_what_would_be_denied() {
    let echo = Origin::echo();
    let rules = Rules::new("allow\n");
    let proxy = rules.proxy();
    let mut of_alice = alice(&proxy).connected(echo.address);
    let mut of_admin = proxy.tunnel(echo.address);
    rules.write("deny user alice\nallow\n");
    let mut admin = proxy.admin();
    assert!(admin.command("RELOAD").starts_with("200 OK accounts=0 "));
    exchange(&mut of_alice, 1000);
    exchange(&mut of_admin, 1000);
    let cut = admin.command("RELOAD CUT");
    assert_eq!(cut, "200 OK accounts=0 added=0 deleted=0 changed=0 settings=0 rules=2 cut=1");
    assert_eq!(read_to_reset(&mut of_alice), b"");
    exchange(&mut of_admin, 1000);
    let line = proxy.stdout.wait_for(|line| line.contains("\talice\t"));
    assert!(line.ends_with("\tdenied\trule=1"), "{line}");
    // What is open has been judged anew, and counts once.
    assert_eq!(value(&admin.ask("CONNECTIONS")[0], "rule"), "2");
    let hits: Vec<String> =
        admin.ask("RULES").iter().map(|line| value(line, "hits").to_owned()).collect();
    assert_eq!(hits, ["1", "2"]);
}

/// RFC 1928 section 6: a listener for a peer that is denied by now waits for nobody.
#[test]
fn cut_ends_a_listener_for_a_denied_peer() {
    let rules = Rules::new("allow\n");
    let proxy = rules.proxy();
    let (mut of_one, mut of_both) = (alice(&proxy), alice(&proxy));
    for (client, last) in [(&mut of_one, 7), (&mut of_both, 8)] {
        let request = [5, 2, 0, 1, 127, 0, 0, last, 0, 80];
        assert_eq!(client.say(&request).reply().0, 0);
    }
    rules.write("deny to 127.0.0.7\nallow\n");
    let cut = proxy.admin().command("RELOAD CUT");
    assert!(cut.ends_with(" rules=2 cut=1"), "{cut}");
    let line = proxy.stdout.wait_for(|line| line.contains("\t127.0.0.7\t80\t"));
    assert!(line.ends_with("\tdenied\trule=1"), "{line}");
}

/// A file that cannot be replaced is not changed over METP.
#[test]
fn a_fixed_file_is_changed_by_no_command() {
    let rules = Rules::new("allow\n");
    let directory = rules.path().parent().expect("a directory").to_owned();
    fs::set_permissions(&directory, Permissions::from_mode(0o555)).expect("ours");
    let proxy = rules.proxy();
    // Root may write everywhere.
    if proxy.stderr.all().iter().any(|line| line.contains("METP cannot change it")) {
        let fixed = "409 Conflict [FIXED] the rules are not changed here";
        assert_eq!(proxy.admin().command("RULE INSERT 1 deny"), fixed);
    }
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("ours");
    assert_eq!(rules.text(), "allow\n");
}

/// Which line decides, and why.
#[test]
fn a_request_is_tested() {
    let rules = Rules::new(
        "deny to .corp.test\nallow user dev-* to 10.0.0.0/8 port 443\ndeny to 10.0.0.0/8\nallow port 80,443\ndeny\n",
    );
    let proxy = rules.proxy();
    let mut admin = proxy.admin();
    let own = proxy.metp_address();
    for (request, expected) in [
        (
            "alice 192.0.2.7 WWW.corp.test:443",
            "verdict=deny by=rule rule=1 text=deny\\x20to\\x20.corp.test",
        ),
        (
            "alice 192.0.2.7 10.1.2.3:443",
            "verdict=deny by=rule rule=3 text=deny\\x20to\\x2010.0.0.0/8",
        ),
        (
            "dev-1 192.0.2.7 10.1.2.3:443",
            "verdict=allow by=rule rule=2 text=allow\\x20user\\x20dev-*\\x20to\\x2010.0.0.0/8\\x20port\\x20443",
        ),
        (
            "alice 192.0.2.7 example.com:443",
            "verdict=depends by=rule rule=3 text=deny\\x20to\\x2010.0.0.0/8",
        ),
        ("alice 192.0.2.7 example.com:25", "verdict=deny by=rule rule=5 text=deny"),
        (
            "alice 192.0.2.7 [2001:db8::1]:80 udp",
            "verdict=allow by=rule rule=4 text=allow\\x20port\\x2080,443",
        ),
        ("alice 192.0.2.7 127.0.0.1:443", "verdict=deny by=local-for rule=- text=-"),
        // The number of an own port on another machine.
        (
            &format!("alice 192.0.2.7 169.254.9.9:{}", own.port()),
            "verdict=deny by=local-for rule=- text=-",
        ),
        ("alice 192.0.2.7 224.0.0.1:443 udp", "verdict=deny by=destination rule=- text=-"),
        ("alice 192.0.2.7 192.0.2.1:0 udp", "verdict=deny by=destination rule=- text=-"),
        ("alice 192.0.2.7 corp\\.test:443", "verdict=deny by=name rule=- text=-"),
        (
            "alice 192.0.2.7 0.0.0.0:0 bind",
            "verdict=depends by=rule rule=4 text=allow\\x20port\\x2080,443",
        ),
        (
            "alice 127.0.0.1 127.0.0.1:443",
            "verdict=allow by=rule rule=4 text=allow\\x20port\\x2080,443",
        ),
        (&format!("alice 127.0.0.1 {own}"), "verdict=deny by=own-port rule=- text=-"),
    ] {
        assert_eq!(admin.ask(&format!("RULES TEST {request}")), [expected], "{request}");
    }
    assert!(admin.ask("RULES").iter().all(|line| value(line, "hits") == "0"));
}

/// Trap 21: while rules are replaced, each request is judged by the one or the other, and by nothing between. In both,
/// one port is open; a mixture of them would open both or none.
#[test]
fn no_request_is_judged_by_half_a_table() {
    let (first, second) = (Origin::echo(), Origin::echo());
    let ports = [first.address.port(), second.address.port()];
    let filler: String =
        (1..=2000).map(|n| format!("deny to 10.{}.{}.0/24\n", n / 250, n % 250)).collect();
    // The rule that opens a port is behind what closes the other.
    let table =
        |open: u16, closed: u16| format!("deny port {closed}\n{filler}allow port {open}\ndeny\n");
    let tables = [table(ports[0], ports[1]), table(ports[1], ports[0])];
    let rules = Rules::new(&tables[0]);
    let proxy = rules.proxy();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = |target| {
            let (proxy, over) = (&proxy, &over);
            scope.spawn(move || {
                let mut codes = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    codes.push(code(alice(proxy), target));
                }
                codes
            })
        };
        let clients = [client(first.address), client(second.address)];
        let mut admin = proxy.admin();
        for round in 1..=20 {
            rules.write(&tables[round % 2]);
            assert!(admin.command("RELOAD").ends_with(" rules=2003"));
            // Answered: the new ones are in force.
            assert_eq!(code(alice(&proxy), local(1, ports[round % 2])), 0);
            assert_eq!(code(alice(&proxy), local(1, ports[1 - round % 2])), NOT_ALLOWED);
        }
        over.store(true, Ordering::Relaxed);
        for client in clients {
            let codes = client.join().expect("no panic");
            assert!(codes.iter().all(|code| [0, NOT_ALLOWED].contains(code)), "{codes:?}");
        }
    });
    // Each request has the line of one table: what closes is the first line, and what opens is behind the others.
    let lines = proxy.stdout.all();
    for line in &lines {
        let fields: Vec<&str> = line.split('\t').collect();
        assert!(matches!((fields[7], fields[12]), ("0", "rule=2002") | ("2", "rule=1")), "{line}");
    }
    assert!(lines.len() >= 20);
}

/// The hits of a rule are its own, in whatever line it comes to stand.
#[test]
fn hits_go_on_when_rules_change() {
    let echo = Origin::echo();
    let port = echo.address.port();
    let rules = Rules::new("deny user bob\nallow\n");
    let proxy = rules.proxy();
    for _ in 0..3 {
        assert_eq!(code(alice(&proxy), echo.address), 0);
    }
    assert_eq!(rules_of(&proxy, port, 3), ["rule=2"; 3]);
    let many: String =
        (1..=9998).map(|n| format!("deny to 10.{}.{}.0/24\n", n / 250, n % 250)).collect();
    rules.write(&format!("{many}deny user bob\nallow\n"));
    let mut admin = proxy.admin();
    assert!(admin.command("RELOAD").ends_with(" rules=10000"));
    let last = admin.ask("RULES").pop().expect("the last");
    assert_eq!(last, "rule=10000 hits=3 text=allow");
    assert_eq!(code(alice(&proxy), echo.address), 0);
}
