//! Tests that need a network of their own run again inside a network namespace, which ends with them.

use std::process::{Command, Stdio};

/// Set inside, for the test that runs again.
const INSIDE: &str = "SOCKS5D_TEST_NAMESPACE";

/// What the tests do in a namespace. A kernel or a container may allow only a part of it.
const TRIAL: &str =
    "ip link add t0 type veth peer name t1 && ip rule add to 192.0.2.1 lookup 100 &&
    echo 0 >/proc/sys/net/ipv4/ip_nonlocal_bind &&
    { [ ! -e /proc/sys/net/ipv6 ] || ip -6 rule add to 2001:db8::1 lookup 100; }";

/// Runs the body of the test of this name in a network namespace, in which loopback is up and nothing else is
/// there. Where that needs rights or programs that are missing, the test is skipped and says so.
pub fn in_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let Some(mut command) = unshare() else {
        return println!("{test}: skipped, needs `unshare --net`, `ip`, veth and rules");
    };
    let own = std::env::current_exe().expect("a test knows where it is");
    command.arg(own).args([test, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = command.output().expect("it has been tried");
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{test} in its namespace");
}

/// The command that makes a namespace, as root or by a user namespace.
fn unshare() -> Option<Command> {
    let with = |flags: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
        command
    };
    [&["--net"][..], &["--map-root-user", "--net"]].into_iter().find_map(|flags| {
        let mut trial = with(flags);
        trial.args(["sh", "-c", TRIAL]).stdout(Stdio::null()).stderr(Stdio::null());
        trial.status().is_ok_and(|status| status.success()).then(|| with(flags))
    })
}

/// Runs `ip` with these words.
pub fn ip(words: &str) {
    assert!(try_ip(words), "ip {words}");
}

/// Runs `ip` with these words, and says whether it could.
pub fn try_ip(words: &str) -> bool {
    let status = Command::new("ip").args(words.split_whitespace()).status();
    status.expect("it is installed").success()
}

/// Sets a parameter below /proc/sys/net.
pub fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/net/{}", name.replace('.', "/"));
    std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Whether this machine has IPv6 at all.
pub fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

/// The number of an interface, which is the zone of its addresses. /sys shows those of another namespace.
pub fn index_of(interface: &str) -> u32 {
    let output = Command::new("ip").args(["-o", "link", "show", interface]).output();
    let said = String::from_utf8(output.expect("it is installed").stdout).expect("ASCII");
    let index = said.split(':').next().and_then(|index| index.parse().ok());
    index.unwrap_or_else(|| panic!("ip link show {interface}: {said:?}"))
}
