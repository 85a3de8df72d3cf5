//! METP section 5.21: the networks whose clients need no login, and the account "-" (section 2.3).

use support::metp::value;
use support::proxy::Proxy;

const OK: &str = "200 OK";

fn listed(admin: &mut support::metp::Metp) -> Vec<String> {
    admin.ask("TRUST").iter().map(|line| value(line, "network").to_owned()).collect()
}

/// Those of the command line and those that were added, in their order, none twice, each in its plainest form.
#[test]
fn networks_are_listed_in_the_order_of_their_coming() {
    let proxy =
        Proxy::with(&["--trust", "192.0.2.0/24", "--trust", "::1", "--trust", "192.0.2.0/24"]);
    let mut admin = proxy.admin();
    assert_eq!(listed(&mut admin), ["192.0.2.0/24", "::1/128"]);
    for network in ["10.0.0.0/8", "::1/128", "::ffff:10.0.0.0/104", "192.0.2.7", "10.0.0.0/8"] {
        assert_eq!(admin.command(&format!("TRUST ADD {network}")), OK);
    }
    assert_eq!(listed(&mut admin), ["192.0.2.0/24", "::1/128", "10.0.0.0/8", "192.0.2.7/32"]);
    assert_eq!(admin.command("TRUST DELETE ::1"), OK);
    assert_eq!(listed(&mut admin), ["192.0.2.0/24", "10.0.0.0/8", "192.0.2.7/32"]);
    let missing = "404 Not Found [NONET] this network is not in the list";
    for network in ["::1", "192.0.2.8", "192.0.0.0/16"] {
        assert_eq!(admin.command(&format!("TRUST DELETE {network}")), missing);
    }
}

#[test]
fn what_is_no_network_is_400_with_what_was_expected() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for verb in ["ADD", "DELETE"] {
        assert_eq!(
            admin.command(&format!("TRUST {verb} 192.168.1.5/24")),
            "400 Bad Request [BADNET] expected a network without bits behind its prefix, such as 192.168.1.0/24"
        );
        for text in ["nowhere", "10.0.0.0/33", "::/129", "10.0.0.0/", "fe80::1%1/64", "\u{fc}"] {
            assert_eq!(
                admin.command(&format!("TRUST {verb} {text}")),
                "400 Bad Request [BADNET] expected a network, such as 10.0.0.0/8 or 2001:db8::/32"
            );
        }
    }
    assert!(listed(&mut admin).is_empty());
}

#[test]
fn there_are_256_at_most() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    for last in 0..=255 {
        assert_eq!(admin.command(&format!("TRUST ADD 10.0.0.{last}")), OK);
    }
    assert_eq!(admin.command("TRUST ADD 10.0.1.0"), "409 Conflict [FULL] too many networks");
    assert_eq!(admin.command("TRUST ADD 10.0.0.7"), OK, "it is there already");
    assert_eq!(admin.info("trusted-networks"), "256");
    assert_eq!(admin.command("TRUST DELETE 10.0.0.7"), OK);
    assert_eq!(admin.command("TRUST ADD 10.0.1.0"), OK);
}

#[test]
fn info_warns_of_networks_with_every_address() {
    let proxy = Proxy::start();
    let mut admin = proxy.admin();
    let shown = |admin: &mut support::metp::Metp| {
        (admin.info("trusted-networks"), admin.info("trusted-everywhere"))
    };
    assert_eq!(shown(&mut admin), ("0".to_owned(), "-".to_owned()));
    assert_eq!(admin.command("TRUST ADD 10.0.0.0/8"), OK);
    assert_eq!(shown(&mut admin), ("1".to_owned(), "-".to_owned()));
    assert_eq!(admin.command("TRUST ADD ::ffff:0:0/96"), OK);
    assert_eq!(admin.command("TRUST ADD ::/0"), OK);
    assert_eq!(shown(&mut admin), ("3".to_owned(), "0.0.0.0/0,::/0".to_owned()));
    for network in ["0.0.0.0/0", "::/0"] {
        let line = format!("WARN  trusting {network}: everybody who can connect needs no login");
        proxy.stderr.wait_for(|said| said.ends_with(&line));
    }
}

/// It is listed where it can be of use, and last.
#[test]
fn the_account_of_trusted_clients_is_shown() {
    let proxy = Proxy::with(&["-u", "alice:pw"]);
    let mut admin = proxy.admin();
    let names = |admin: &mut support::metp::Metp| -> Vec<String> {
        admin.ask("USER-METRICS").iter().map(|line| value(line, "user").to_owned()).collect()
    };
    assert_eq!(names(&mut admin), ["admin", "alice"]);
    assert_eq!(admin.command("TRUST ADD 10.0.0.0/8"), OK);
    assert_eq!(names(&mut admin), ["admin", "alice", "-"]);
    assert_eq!(admin.ask("USERS"), ["admin admin", "alice user"]);
    assert_eq!(admin.ask("USER-METRICS -").len(), 1);
    assert!(admin.ask("CONNECTIONS USER -").is_empty());
    assert_eq!(admin.command("KILL USER -"), "200 OK killed=0");
    let mut alice = proxy.metp().logged_in("alice", "pw");
    assert_eq!(alice.command("USER-METRICS -"), "403 Forbidden");
}
