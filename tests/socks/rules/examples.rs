//! The examples of the manual, pasted into a file and run.

use std::fs;

use super::Rules;

/// The rules of the manual below this heading.
fn example(heading: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/man/socks5d.8");
    let manual = fs::read_to_string(path).expect("the manual");
    let (_, section) = manual.split_once(&format!("\n.Ss {heading}\n")).expect("the heading");
    let (_, text) = section.split_once("\n.Bd -literal -offset indent\n").expect("an example");
    let (text, _) = text.split_once("\n.Ed\n").expect("its end");
    format!("{text}\n").replace("\\e", "\\")
}

/// Runs an example and expects these verdicts: request, verdict, and the line that decides.
fn runs(heading: &str, expected: &[(&str, &str, u32)]) {
    let rules = Rules::new(&example(heading));
    let proxy = rules.proxy();
    assert!(!proxy.stderr.all().iter().any(|line| line.contains("--rules")), "a warning");
    let mut admin = proxy.admin();
    for (request, verdict, line) in expected {
        let told = admin.ask(&format!("RULES TEST {request}")).concat();
        let wanted = format!("verdict={verdict} by=rule rule={line} ");
        assert!(told.starts_with(&wanted), "{request}: {told}");
    }
}

#[test]
fn a_company() {
    runs(
        "A company",
        &[
            ("staff-1 10.1.1.1 mail.example:25", "deny", 1),
            ("staff-1 10.1.1.1 203.0.113.1:465", "deny", 1),
            ("staff-1 10.1.1.1 wiki.corp.example:443", "allow", 2),
            ("guest-7 10.1.1.1 wiki.corp.example:443", "depends", 3),
            ("staff-1 10.1.1.1 10.2.3.4:443", "deny", 3),
            ("guest-7 10.1.1.1 192.0.2.80:443", "allow", 4),
            ("guest-7 10.1.1.1 192.0.2.80:443 udp", "deny", 5),
            ("guest-7 10.1.1.1 192.0.2.80:22", "deny", 5),
            ("staff-1 10.1.1.1 192.0.2.80:22", "allow", 6),
        ],
    );
}

#[test]
fn a_provider() {
    runs(
        "A provider",
        &[
            ("c1 203.0.113.7 198.51.100.9:22", "deny", 1),
            ("c1 203.0.113.7 [2001:db8:1::9]:22", "deny", 1),
            ("c1 203.0.113.7 100.64.0.1:80", "deny", 2),
            ("c1 203.0.113.7 [fd00::1]:80", "deny", 3),
            ("c1 203.0.113.7 192.0.2.25:25", "deny", 4),
            ("trial-3 203.0.113.7 192.0.2.25:587", "deny", 5),
            ("c1 203.0.113.7 192.0.2.25:587", "allow", 7),
            ("trial-3 203.0.113.7 192.0.2.53:53 udp", "deny", 6),
            ("trial-3 203.0.113.7 192.0.2.53:20 bind", "deny", 6),
            ("c1 203.0.113.7 192.0.2.53:53 udp", "allow", 7),
        ],
    );
}

#[test]
fn a_private_server() {
    runs(
        "A private server",
        &[
            ("kid 192.0.2.7 www.games.example:443", "deny", 1),
            ("kid 203.0.113.7 www.games.example:443", "deny", 1),
            ("kid 192.0.2.7 192.0.2.99:22", "allow", 2),
            ("friend 203.0.113.7 NAS.home.example:22", "allow", 3),
            ("mum 203.0.113.7 10.0.0.5:80", "deny", 4),
            ("kid 203.0.113.7 192.0.2.99:443", "allow", 5),
            ("mum 203.0.113.7 [2001:db8::1]:53 udp", "allow", 5),
            ("mum 203.0.113.7 192.0.2.99:22", "deny", 6),
            ("friend 203.0.113.7 nas.home.example:443", "deny", 6),
            ("friend 203.0.113.7 192.0.2.10:22", "deny", 6),
        ],
    );
}

#[test]
fn behind_a_proxy() {
    runs(
        "Behind haproxy, stunnel, ssh or a sidecar",
        &[
            ("alice 127.0.0.1 127.0.0.1:5432", "deny", 1),
            ("alice 127.0.0.1 0.0.0.0:5432", "deny", 1),
            ("alice 127.0.0.1 [64:ff9b::169.254.169.254]:80", "deny", 1),
            ("alice 127.0.0.1 [::1]:5432", "deny", 2),
            ("alice 127.0.0.1 192.0.2.10:22", "deny", 3),
            ("alice 127.0.0.1 [64:ff9b::10.0.0.5]:22", "deny", 4),
            ("alice 127.0.0.1 10.0.0.5:22", "deny", 4),
            ("alice 127.0.0.1 192.0.2.11:443", "allow", 5),
        ],
    );
}
