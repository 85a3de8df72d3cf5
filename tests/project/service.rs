//! The units of systemd agree with the program and its documents.

use std::collections::BTreeMap;

use super::documents::read;

const SERVICE: &str = "contrib/systemd/socks5d.service";

/// The lines `Key=value` of a unit; a key may be there more than once.
fn settings(path: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in read(path).lines().filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            found.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    found
}

fn one(settings: &BTreeMap<String, Vec<String>>, key: &str) -> String {
    let values = settings.get(key).unwrap_or_else(|| panic!("{key} is missing"));
    assert_eq!(values.len(), 1, "{key}");
    values[0].clone()
}

/// How it is started is in `documents.rs`; here is what systemd is to know of it.
#[test]
fn the_unit_waits_for_the_program_to_be_ready() {
    let unit = settings(SERVICE);
    assert_eq!(one(&unit, "Type"), "notify");
    assert_eq!(one(&unit, "ExecReload"), "/bin/kill -HUP $MAINPID");
    assert!(unit.contains_key("WatchdogSec"));
}

/// There is room for the threads of look-ups (16 times `--dns-threads`), hashes, files and logs.
#[test]
fn the_unit_has_room_for_threads() {
    let tasks: usize = one(&settings(SERVICE), "TasksMax").parse().expect("a number");
    let threads = socks5d::state::settings::Settings::default().dns_threads;
    assert!(tasks >= threads * 16 + 64, "{tasks} for {threads}");
}

/// What the sandbox is made of.
#[test]
fn the_unit_gives_up_what_it_can() {
    let unit = settings(SERVICE);
    for key in [
        "DynamicUser",
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectClock",
        "ProtectHostname",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "LockPersonality",
        "MemoryDenyWriteExecute",
    ] {
        assert_eq!(one(&unit, key), "yes", "{key}");
    }
    for (key, value) in [
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("ProtectProc", "invisible"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
        ("SystemCallArchitectures", "native"),
        ("SystemCallFilter", "@system-service"),
        ("UMask", "0077"),
        ("StateDirectory", "socks5d"),
        ("LogsDirectory", "socks5d"),
        ("RuntimeDirectory", "socks5d"),
        ("Environment", "PROXY_CTRL_SUPERUSER_FILE=%d/superuser"),
    ] {
        assert_eq!(one(&unit, key), value, "{key}");
    }
    assert!(one(&unit, "LoadCredential").starts_with("superuser:"));
}
