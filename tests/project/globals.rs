//! No global state: what a loop uses belongs to it, or is handed to it. So that several loops can run in one process,
//! the few exceptions are named here.

use crate::documents::determinism::sources_below;

/// Files of the server with a static that is not a constant, and why there has to be one.
const KNOWN: [(&str, &str, &str); 2] = [
    ("src/reactor/signal.rs", "PIPE", "a signal handler has no argument of its own"),
    ("src/workers/log_writer.rs", "REPORTING", "of the thread: a logger is called without one"),
];

/// The static that a line declares, if it does.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let visible = line.strip_prefix("pub").map(|rest| match rest.strip_prefix('(') {
        Some(rest) => rest.split_once(')').map_or(rest, |(_, rest)| rest),
        None => rest,
    });
    let (name, _) =
        visible.unwrap_or(line).trim_start().strip_prefix("static ")?.split_once(':')?;
    Some(name.trim_start_matches("mut ").trim())
}

/// A source without what stands behind its first test.
fn without_tests(source: &str) -> &str {
    source.split_once("#[cfg(test)]").map_or(source, |(before, _)| before)
}

#[test]
fn no_state_is_global() {
    let mut found = Vec::new();
    for folder in ["src", "common", "metp"] {
        for (name, source) in sources_below(folder) {
            let names = without_tests(&source).lines().filter_map(declared);
            found.extend(names.map(|variable| (name.clone(), variable.to_owned())));
        }
    }
    // The environment of the process is C's.
    found.retain(|(_, variable)| variable != "environ");
    found.sort();
    let known: Vec<(String, String)> =
        KNOWN.iter().map(|(file, name, _)| ((*file).to_owned(), (*name).to_owned())).collect();
    assert_eq!(found, known, "a static; hand it over instead, or say here why it has to be one");
}

#[test]
fn statics_are_recognised() {
    assert_eq!(declared("    static A: u8 = 0;"), Some("A"));
    assert_eq!(declared("pub(super) static B: Cell<u8> = const { Cell::new(0) };"), Some("B"));
    assert_eq!(declared("pub static mut C: u8 = 0;"), Some("C"));
    assert_eq!(declared("const D: &'static str = \"\";"), None);
    assert_eq!(declared("fn of(x: &'static str) {}"), None);
}
