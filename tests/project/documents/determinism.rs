//! The tests say the same every time: what they draw comes from one place, which draws the same each time.

use std::fs;
use std::path::{Path, PathBuf};

use super::{file, read};

/// Where cases are drawn.
const SHARED: &str = "tests/support/src/property.rs";
const THIS: &str = "tests/project/documents/determinism.rs";

/// All sources below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
        // Not what a build of the fuzz targets leaves.
        if kind.is_dir() && entry.file_name() != "target" {
            sources(&path, found);
        } else if kind.is_file() && path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The sources below a folder of the project by their names and texts.
pub fn sources_below(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    sources(&file(folder), &mut found);
    let name = |path: PathBuf| {
        let name = path.strip_prefix(file("")).expect("it is below").to_str().expect("text");
        (name.to_owned(), read(name))
    };
    found.into_iter().map(name).collect()
}

/// The sources of the project, but for the two that may speak of all this.
fn all() -> Vec<(String, String)> {
    let folders = ["src", "tests", "client", "common", "metp", "bench", "fuzz"].into_iter();
    let all: Vec<_> = folders.flat_map(sources_below).collect();
    assert!(all.len() > 150, "only {} sources", all.len());
    all.into_iter().filter(|(name, _)| ![SHARED, THIS].contains(&name.as_str())).collect()
}

/// What is wrong with how a source draws its cases.
fn fault(source: &str) -> Option<String> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    for (number, line) in lines.iter().enumerate() {
        let next = lines.get(number + 1).copied().unwrap_or_default();
        let configured = next.starts_with("#![proptest_config(support::property::config(");
        if line.contains("proptest!") && !(*line == "proptest! {" && configured) {
            return Some(format!("{}: its cases are not those of {SHARED}", number + 1));
        }
        for word in ["TestRunner", "ProptestConfig", "RngSeed", "test_runner", "quickcheck"] {
            if line.contains(word) {
                return Some(format!("{}: {word} belongs into {SHARED}", number + 1));
            }
        }
        for word in ["thread_rng", "getrandom", "fastrand", "RandomState", "rand::"] {
            let before = line.find(word).and_then(|at| line[..at].chars().next_back());
            // In quotes it is the name of a system call.
            let whole =
                before.is_none_or(|before| !before.is_ascii_alphanumeric() && before != '"');
            if line.contains(word) && whole {
                return Some(format!("{}: {word} draws something else each time", number + 1));
            }
        }
    }
    None
}

#[test]
fn every_property_test_draws_the_same_cases_each_time() {
    for (name, mut source) in all() {
        // The accounts hash names and logins with keys of the process, on which no result depends.
        // A range of ports is searched from a random one on, and any free one will do.
        let known = ["src/state/users.rs", "src/state/digest.rs", "src/reactor/ports.rs"];
        if known.contains(&name.as_str()) {
            source = source.replace("RandomState", "");
        }
        // What is fit for secrets.
        if name == "common/src/random.rs" {
            source = source.replace("getrandom", "");
        }
        assert_eq!(fault(&source), None, "{name}");
    }
}

#[test]
fn a_property_test_with_cases_of_its_own_is_found() {
    let good = "proptest! {\n    #![proptest_config(support::property::config(256))]\n";
    assert_eq!(fault(good), None);
    for bad in [
        "proptest! {\n    #[test]\n",
        "proptest::proptest! {\n    #![proptest_config(support::property::config(256))]\n",
        "    proptest!(|(x in 0..9)| prop_assert!(x < 9));\n",
        "proptest! {\n    #![proptest_config(ProptestConfig::with_cases(9))]\n",
        "let mut runner = proptest::test_runner::TestRunner::default();",
        "let x = rand::random();",
    ] {
        assert!(fault(bad).is_some(), "{bad}");
    }
    assert_eq!(fault("use super::request::ActiveRequest;"), None);
}

/// `make fuzz` draws other cases for each property test, and `make test` never does.
#[test]
fn make_fuzz_runs_every_property_test() {
    let makefile = read("Makefile");
    let listed = makefile.lines().find_map(|line| line.strip_prefix("PROPERTIES := "));
    let listed: Vec<&str> = listed.expect("the list").split(' ').collect();
    let mut count = 0;
    for (name, source) in all() {
        if !source.contains("property::config(") && !source.contains("property::runner(") {
            continue;
        }
        let parts: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
        let words = match parts[..] {
            ["src" | "metp", ..] => vec![],
            ["tests", binary, module, ..] => {
                vec![format!("--test={binary}"), format!("{module}::")]
            }
            _ => panic!("{name} is not among the property tests of the Makefile"),
        };
        for word in words {
            assert!(listed.contains(&word.as_str()), "{name}: {word} is not in {listed:?}");
        }
        count += 1;
    }
    assert!(count >= 10, "only {count} sources with property tests");
    assert!(makefile.contains("--package socks5d --package metp-protocol --lib &&"));
    assert!(makefile.contains("--package socks5d $(PROPERTIES)"));
    assert!(makefile.contains("unset PROPTEST_RNG_SEED; $(CARGO) test --locked --workspace"));
}
