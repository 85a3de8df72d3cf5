//! The lints of the workspace hold in all of it: no member goes without them, and few files without one of them.

use crate::documents::determinism::sources_below;
use crate::documents::{between, read};

/// The files that may hold unsafe code: each is a C interface.
const UNSAFE: [&str; 26] = [
    "bench/src/sys.rs",
    "client/src/locale.rs",
    "client/src/terminal.rs",
    "common/src/process.rs",
    "common/src/stdio.rs",
    "common/src/terminal.rs",
    "common/src/thread.rs",
    "src/process.rs",
    "src/process/activation.rs",
    "src/process/identity.rs",
    "src/reactor/datagram/message.rs",
    "src/reactor/handover.rs",
    "src/reactor/pipe.rs",
    "src/reactor/process_usage.rs",
    "src/reactor/signal.rs",
    "src/reactor/tcp_state.rs",
    "src/reactor/waker.rs",
    "src/workers/durable/calls.rs",
    "src/workers/getaddrinfo.rs",
    "src/workers/getnameinfo.rs",
    "tests/inject/src/signal.rs",
    "tests/support/src/seccomp.rs",
    "tests/support/src/system.rs",
    "tests/support/src/terminal.rs",
    "tests/support/src/usage.rs",
    "tests/project/lints.rs",
];

#[test]
fn every_member_inherits_the_lints() {
    let root = read("Cargo.toml");
    let members = between(&root, "\nmembers = [", "]")[0];
    let folders =
        members.split('"').skip(1).step_by(2).map(|member| format!("{member}/Cargo.toml"));
    let manifests: Vec<String> = folders.chain(["Cargo.toml".to_owned()]).collect();
    assert!(manifests.len() >= 9, "{manifests:?}");
    for manifest in manifests {
        assert!(read(&manifest).contains("\n[lints]\nworkspace = true\n"), "{manifest}");
    }
}

#[test]
fn unsafe_code_and_panics_are_allowed_where_that_is_known() {
    let mut found = Vec::new();
    for folder in ["src", "client", "common", "metp", "bench", "tests"] {
        for (name, text) in sources_below(folder) {
            if text.contains("allow(unsafe_code") || text.contains("expect(unsafe_code") {
                found.push(name.clone());
            }
            let program = ["src/", "client/src/", "common/src/", "metp/src/"];
            if program.iter().any(|program| name.starts_with(program)) {
                for lint in ["unwrap_used", "expect_used", "clippy::panic", "indexing_slicing"] {
                    assert!(!text.contains(lint), "{name}: {lint}");
                }
            }
        }
    }
    found.sort();
    let mut known = UNSAFE.to_vec();
    known.sort_unstable();
    assert_eq!(found, known);
}
