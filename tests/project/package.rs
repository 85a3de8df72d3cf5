//! The package for Debian: its configuration is one that the server takes, and stands for what the unit gives.

use std::fs;
use std::process::Command;

use super::documents::options::options;
use super::documents::{between, read};
use support::binary;

const CONFIGURATION: &str = "debian/etc/socks5d.conf";
const RULES: &str = "debian/etc/rules";
const MANUAL: &str = "man/socks5d.conf.5";
/// Options that have no place in a file (`src/args/config_file.rs`).
const NOT_IN_A_FILE: [&str; 6] =
    ["help", "version", "config", "check-config", "print-config", "hash-password"];

/// What `--check-config` says of a configuration, whose rules are those of the package.
fn check(text: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, rules) = (folder.path().join("socks5d.conf"), folder.path().join("rules"));
    fs::write(&rules, read(RULES)).expect("written");
    let text = text.replace("/etc/socks5d/rules", rules.to_str().expect("text"));
    fs::write(&file, text).expect("written");
    let mut command = Command::new(binary("socks5d"));
    command.arg("--config").arg(&file).arg("--check-config");
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

/// The lines that set something, and those that would without their `#`, which no blank follows.
fn settings(text: &str) -> (Vec<&str>, Vec<&str>) {
    let lines = text.lines().filter(|line| !line.is_empty());
    let (comments, active): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with('#'));
    let commented = comments.into_iter().filter_map(|line| line.strip_prefix('#'));
    (active, commented.filter(|line| !line.starts_with(' ')).collect())
}

#[test]
fn the_configuration_of_the_package_is_good_with_and_without_its_comments() {
    let text = read(CONFIGURATION);
    assert_eq!(check(&text), "");
    let (active, commented) = settings(&text);
    assert!(commented.len() >= 5, "{commented:?}");
    let key = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let kept = active.iter().filter(|line| !commented.iter().any(|other| key(other) == key(line)));
    let all = kept.chain(&commented).copied().collect::<Vec<&str>>().join("\n");
    assert_eq!(check(&all), "");
}

/// A first start serves nobody but this machine, and what listens there is closed (`--local-for`).
#[test]
fn the_configuration_of_the_package_is_harmless() {
    let text = read(CONFIGURATION);
    let (active, _) = settings(&text);
    for line in ["listen 127.0.0.1", "metp-listen 127.0.0.1", "local-for nobody"] {
        assert!(active.contains(&line), "{line}");
    }
    for key in ["http ", "trust ", "user "] {
        assert!(!active.iter().any(|line| line.starts_with(key)), "{key}");
    }
}

/// The rules of the package keep its private networks closed.
#[test]
fn the_rules_of_the_package_end_with_a_bare_one() {
    let text = read(RULES);
    let (active, _) = settings(&text);
    assert_eq!(active.last(), Some(&"allow"));
    assert!(active.iter().any(|rule| rule.starts_with("deny to ") && rule.contains("10.0.0.0/8")));
}

/// The package's unit names the file alone, so all that the unit in `contrib` gives stands in the file.
#[test]
fn the_configuration_of_the_package_has_what_the_unit_gives() {
    let (text, unit) = (read(CONFIGURATION), read("contrib/systemd/socks5d.service"));
    let (active, _) = settings(&text);
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let start = start.replace("%S", "/var/lib").replace("%L", "/var/log").replace("%t", "/run");
    let known = options("socks5d");
    let mut words = start.split(' ').skip(1).peekable();
    while let Some(word) = words.next() {
        let option = known.iter().find(|o| o.long == word || o.short.as_deref() == Some(word));
        let key = &option.unwrap_or_else(|| panic!("{word} is no option")).long[2..];
        let value = words.next_if(|next| !next.starts_with('-'));
        let line = value.map_or_else(|| key.to_owned(), |value| format!("{key} {value}"));
        assert!(active.contains(&line.as_str()), "{CONFIGURATION} lacks: {line}");
    }
}

#[test]
fn every_key_of_the_configuration_file_is_in_its_manual_with_its_default() {
    let text = read(MANUAL);
    let item = |text: &str| {
        let (head, body) = text.split_once('\n').expect("a body");
        let body = body.split("\n.El").next().unwrap_or_default();
        (head.split(' ').next().unwrap_or_default().to_owned(), format!("{body}\n"))
    };
    let items: Vec<(String, String)> = text.split("\n.It Cm ").skip(1).map(item).collect();
    let options = options("socks5d");
    let mut keys: Vec<&str> = options.iter().map(|option| &option.long[2..]).collect();
    keys.retain(|key| !NOT_IN_A_FILE.contains(key));
    for key in &keys {
        let found = items.iter().find(|(head, _)| head == key);
        let (_, body) = found.unwrap_or_else(|| panic!("{MANUAL} lacks {key}"));
        let option = options.iter().find(|option| &option.long[2..] == *key).expect("found above");
        if let Some(default) = option.preset() {
            assert!(body.contains(&format!("The default is {default}.\n")), "{key}: {default}");
        }
    }
    for (head, _) in &items {
        assert!(keys.contains(&head.as_str()), "{MANUAL} has {head}, which is no key");
    }
}

#[test]
fn the_examples_of_the_manual_are_configurations() {
    let manual = read(MANUAL);
    let examples = between(&manual, ".Bd -literal -offset indent\n", ".Ed");
    assert_eq!(examples.len(), 2);
    for example in examples {
        assert_eq!(check(example), "");
    }
}

/// Every place that names the version names this one.
#[test]
fn the_version_is_one() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("debian/changelog").starts_with(&format!("socks5d ({version}) ")));
    assert!(read("protocol_metp.txt").starts_with(&format!("socks5d {version} ")));
    let changelog = read("CHANGELOG.md");
    let released = changelog.lines().find_map(|line| line.strip_prefix("## ")?.split_once(" - "));
    assert_eq!(released.map(|(released, _)| released), Some(version));
    for file in ["client/Cargo.toml", "metp/Cargo.toml", "common/Cargo.toml"] {
        assert!(read(file).contains("version.workspace = true"), "{file}");
    }
}
