//! The shells complete what the programs take: the options of `-h`, the settings, the verbs of METP. bash is
//! made to complete; zsh and fish, where they are installed, check the syntax, and fish completes too.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use metp_protocol::verbs;
use socks5d::state::knobs::{KNOBS, Knob};
use socks5d::state::settings::Settings;

use super::documents::options::{Opt, options};

const PROGRAMS: [&str; 2] = ["client", "socks5d"];

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "contrib/completions", name].iter().collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// How many values an option takes.
#[derive(Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    Maybe,
    Some,
}

/// As `-h` says it: `--user-metrics [USER]`, `--host HOST`.
fn takes(option: &Opt) -> Takes {
    let (_, rest) = option.text.split_once(&option.long).expect("its name is in it");
    match rest.as_bytes() {
        [b' ', b'[', ..] => Takes::Maybe,
        [b' ', b'A'..=b'Z', ..] => Takes::Some,
        _ => Takes::Nothing,
    }
}

/// An option as a shell is told of it.
struct Told {
    names: Vec<String>,
    text: String,
    takes: Takes,
}

/// `'*'{-m,--metrics}'[show the metrics]' \`
fn told_to_zsh(line: &str) -> Option<Told> {
    let line = line.strip_prefix("    ").filter(|line| line.starts_with(['\'', '"']))?;
    let (head, rest) = line.split_once('[')?;
    let (text, rest) = rest.split_once(']')?;
    // Before the names may stand those that it excludes.
    let head = head.rsplit(')').next()?;
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let names = head.split(|c| !part(c)).filter(|word| !word.is_empty()).map(str::to_owned);
    let takes = match rest {
        _ if rest.starts_with("::") => Takes::Maybe,
        _ if rest.starts_with(':') => Takes::Some,
        _ => Takes::Nothing,
    };
    Some(Told { names: names.collect(), text: text.to_owned(), takes })
}

/// `complete -c client -s m -l metrics -d 'show the metrics'`
fn told_to_fish(line: &str, program: &str) -> Option<Told> {
    let line = line.strip_prefix(&format!("complete -c {program} "))?;
    let (head, text) = line.split_once(" -d ")?;
    let words: Vec<&str> = head.split(' ').collect();
    let names = words.windows(2).filter_map(|pair| match pair {
        ["-s", name] => Some(format!("-{name}")),
        ["-l", name] => Some(format!("--{name}")),
        _ => None,
    });
    let names: Vec<String> = names.collect();
    let some = words.contains(&"-x") || words.contains(&"-r");
    let takes = if some { Takes::Some } else { Takes::Nothing };
    (!names.is_empty() && words[0] != "-n").then(|| Told {
        names,
        text: text.trim_matches(['\'', '"']).to_owned(),
        takes,
    })
}

/// The words of a list that is called `name`.
fn list(file: &str, name: &str) -> Vec<String> {
    let text = read(file).replace("\\\n", " ");
    let (start, end) = match file {
        _ if file.ends_with(".bash") => (format!(" {name}='"), '\''),
        _ if file.ends_with(".fish") => (format!("set -l {name} "), '\n'),
        _ => (format!(" {name}=("), ')'),
    };
    let (_, rest) = text.split_once(&start).unwrap_or_else(|| panic!("{file}: {start}"));
    let (words, _) = rest.split_once(end).expect("it has an end");
    words.split_whitespace().map(str::to_owned).collect()
}

fn names(options: &[Opt]) -> Vec<String> {
    let names = |option: &Opt| option.short.iter().cloned().chain([option.long.clone()]).collect();
    options.iter().flat_map::<Vec<String>, _>(names).collect()
}

fn keys() -> Vec<String> {
    KNOBS.iter().map(|knob| knob.key.to_owned()).collect()
}

fn levels() -> Vec<String> {
    let knob = Knob::find(b"log-level").expect("it is one");
    let range = knob.set(&mut Settings::default(), "no level").expect_err("no level");
    range.to_string().split(", ").map(str::to_owned).collect()
}

fn set(words: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    words.into_iter().collect()
}

#[test]
fn every_option_of_the_help_is_completed_and_no_other_is() {
    for program in PROGRAMS {
        let options = options(program);
        assert_eq!(list(&format!("{program}.bash"), "options"), names(&options), "{program}");
        let (zsh, fish) = (read(&format!("_{program}")), read(&format!("{program}.fish")));
        let zsh: Vec<Told> = zsh.lines().filter_map(told_to_zsh).collect();
        let fish: Vec<Told> = fish.lines().filter_map(|line| told_to_fish(line, program)).collect();
        for (shell, told) in [("zsh", zsh), ("fish", fish)] {
            assert_eq!(told.len(), options.len(), "{program}, {shell}");
            for (told, option) in told.iter().zip(&options) {
                let place = format!("{program}, {shell}: {}", option.long);
                assert_eq!(told.names, names(std::slice::from_ref(option)), "{place}");
                assert!(!told.text.is_empty() && option.text.contains(&told.text), "{place}");
                // To fish, a value that may be missing stands behind = only.
                let takes = match takes(option) {
                    Takes::Maybe if shell == "fish" => Takes::Nothing,
                    takes => takes,
                };
                assert_eq!(told.takes, takes, "{place}");
            }
        }
    }
}

#[test]
fn every_setting_verb_and_level_is_completed_and_no_other_is() {
    let verbs: Vec<String> = verbs().map(str::to_owned).collect();
    for file in ["client.bash", "_client", "client.fish"] {
        assert_eq!(list(file, "keys"), keys(), "{file}");
        assert_eq!(list(file, "verbs"), verbs, "{file}");
        assert_eq!(list(file, "levels"), levels(), "{file}");
    }
    assert_eq!(list("socks5d.bash", "levels"), levels());
    let levels = levels().join(" ");
    assert!(read("_socks5d").contains(&format!(":level:({levels})'")));
    assert!(read("socks5d.fish").contains(&format!("-l log-level -x -a '{levels}' ")));
}

/// Calls the function that completes the program's words, as bash does. The word at the cursor and the one
/// before it are handed over too.
const COMPLETE: &str = r#"
compopt() { [[ $1 == -o ]] && printf '(%s)\n' "$2"; }
source "$1" || exit
function=$(complete -p "$2") && function=${function#*-F } && function=${function%% *} || exit
COMP_LINE=$3 COMP_POINT=$4 COMP_CWORD=$5
COMP_WORDS=("${@:8}")
"$function" "$2" "$6" "$7"
((${#COMPREPLY[@]})) && printf '%s\n' "${COMPREPLY[@]}"
exit 0
"#;

/// Where bash parts a line that has no quotes: at blanks, and around characters of COMP_WORDBREAKS.
fn split<'a>(line: &'a str, breaks: &str) -> Vec<&'a str> {
    let mut words = Vec::new();
    for mut word in line.split(' ').filter(|word| !word.is_empty()) {
        while let Some(first) = word.chars().next() {
            let is_break = breaks.contains(first);
            let end = word.find(|c| breaks.contains(c) != is_break).unwrap_or(word.len());
            words.push(&word[..end]);
            word = &word[end..];
        }
    }
    words
}

/// What bash offers on TAB at the end of this line, or at `|`: whole words, and options of completion in
/// parentheses.
fn offered(line: &str, breaks: &str, hosts: &Path) -> Vec<String> {
    let (before, after) = line.split_once('|').unwrap_or((line, ""));
    assert!(after.is_empty() || after.starts_with(' '), "a word is not parted");
    let mut words = split(before, breaks);
    if before.ends_with(' ') {
        words.push("");
    }
    let place = words.len() - 1;
    let current = words[place];
    // What bash will replace.
    let replaced = if current.contains(|c| breaks.contains(c)) { "" } else { current };
    let typed = before.rsplit(' ').next().expect("at least one");
    let kept = typed.strip_suffix(replaced).expect("the end of it");
    let program = words[0];
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-c", COMPLETE, "bash"]);
    bash.arg(file(&format!("{program}.bash"))).args([program, &format!("{before}{after}")]);
    bash.args([before.len().to_string(), place.to_string()]);
    bash.args([replaced, words[place - 1]]).args(&words).args(split(after, breaks));
    bash.env_remove("BASH_ENV").env("HOSTFILE", hosts);
    let output = bash.output().expect("bash");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{line:?}: {errors}");
    let text = String::from_utf8(output.stdout).expect("text");
    let whole = |word: &str| match word.starts_with('(') {
        true => word.to_owned(),
        false => format!("{kept}{word}"),
    };
    text.lines().map(whole).collect()
}

/// Lines, and what is offered for them. `@options`, `@keys` and `@verbs` are all of them.
const CASES: [(&str, &str); 63] = [
    ("client ", "@options"),
    ("client --se", "--set --set-limit --set-role"),
    ("client -l -l --use", "--user --user-metrics --users"),
    ("client --no", ""),
    ("client --js| -l", "--json"),
    ("client -r ", ""),
    ("client -r bob ", "user admin"),
    ("client --set-role bob a", "admin"),
    ("client -r bob admin ", "@options"),
    ("client -r -l ", "user admin"),
    ("client -a bob ", ""),
    ("client -a bob --js", "--json"),
    ("client -a bob -l --js", "--json"),
    ("client -a bob --config=grace --js", "--json"),
    ("client -a bob - --js", "--json"),
    ("client -a bob -r ", ""),
    ("client -f -n 5 --js", "--json"),
    ("client -a bob pass --js", "--json"),
    ("client --set id", "(nospace) idle-timeout="),
    ("client --set=id", "(nospace) --set=idle-timeout="),
    ("client --set idle-timeout=", ""),
    ("client --set idle-timeout=9 --js", "--json"),
    ("client --set log-level=d", "log-level=debug"),
    ("client --set=log-level=d", "--set=log-level=debug"),
    ("client --set log-level=d| -l", "log-level=debug"),
    ("client --set allow-local=", "allow-local=on allow-local=off"),
    ("client --set local-for=", "local-for=loopback local-for=nobody local-for=all"),
    ("client --config ", "@keys"),
    ("client --config=lo", "--config=local-for --config=log-entries --config=log-level"),
    ("client --config lo", "local-for log-entries log-level"),
    ("client --config grace --js", "--json"),
    ("client --config --js", "--json"),
    ("client -w ", "@options"),
    ("client -w 2 --js", "--json"),
    ("client --connections --js", "--json"),
    ("client --shutdown --js", "--json"),
    ("client --json=", ""),
    ("client -u admin:", ""),
    ("client -u admin:-", ""),
    ("client -u admin:1234 --js", "--json"),
    ("client -u -- --js", "--json"),
    ("client -H ::1 --js", "--json"),
    ("client -H prox", "proxy.example proxy-two"),
    ("client --password-file ", "(default)"),
    ("client --password-file=/etc/ho", "(default)"),
    ("client -- ", "@verbs"),
    ("client -l -- CON", "CONNECTIONS CONFIG"),
    ("client -- KILL ", ""),
    ("client -- --js", ""),
    ("client -- -r bob ", ""),
    ("socks5d ", "@options"),
    ("socks5d --max-c", "--max-connections --max-connections-per-ip"),
    ("socks5d --log-level d", "debug"),
    ("socks5d --log-level=d", "--log-level=debug"),
    ("socks5d --idle-timeout=", ""),
    ("socks5d -u bob:", ""),
    ("socks5d -L ::", ""),
    ("socks5d --allow-local=", ""),
    ("socks5d --local-for n", "nobody"),
    ("socks5d --local-for=", "--local-for=loopback --local-for=nobody --local-for=all"),
    ("socks5d -u bob:pass --allow-local --gra", "--grace"),
    ("socks5d -L ::1 --gra", "--grace"),
    ("socks5d -L :: --gra", "--grace"),
];

/// With the word breaks that bash has from the start, and with those that people leave of them.
#[test]
fn bash_offers_what_fits() {
    let mut hosts = tempfile::NamedTempFile::new().expect("a file");
    hosts.write_all(b"192.0.2.7 proxy.example proxy-two other.example\n").expect("written");
    for (line, expected) in CASES {
        let program = line.split(' ').next().expect("a program");
        let expected: Vec<String> = match expected {
            "@options" => names(&options(program)),
            "@keys" => keys(),
            "@verbs" => verbs().map(str::to_owned).collect(),
            words => words.split_terminator(' ').map(str::to_owned).collect(),
        };
        for breaks in ["=:", ":", ""] {
            assert_eq!(
                set(offered(line, breaks, hosts.path())),
                set(expected.clone()),
                "{line:?} {breaks:?}"
            );
        }
    }
}

/// What may be missing is not asked for, and what has to be there is not taken for an option.
#[test]
fn bash_knows_which_options_have_values() {
    for program in PROGRAMS {
        for option in options(program) {
            let value = takes(&option) == Takes::Some;
            for name in names(std::slice::from_ref(&option)) {
                let offered = offered(&format!("{program} {name} --vers"), "=:", Path::new("/"));
                let is_there = offered.contains(&"--version".to_owned());
                assert_eq!(is_there, !value, "{program} {name}: {offered:?}");
            }
        }
    }
}

/// Whether this shell is here; if not, a note says that a file was not checked.
fn is_installed(shell: &str) -> bool {
    let found = Command::new(shell).args(["-c", "exit"]).status().is_ok();
    if !found {
        // Unlike eprintln, this is shown although the test succeeds.
        let note = format!("NOTE: {shell} is not installed, its completions were not tried\n");
        std::io::stderr().write_all(note.as_bytes()).expect("somebody reads it");
    }
    found
}

#[test]
fn the_shells_accept_their_files() {
    for program in PROGRAMS {
        let files = [
            ("bash", format!("{program}.bash")),
            ("zsh", format!("_{program}")),
            ("fish", format!("{program}.fish")),
        ];
        for (shell, name) in files.iter().filter(|(shell, _)| is_installed(shell)) {
            let output = Command::new(shell).arg("-n").arg(file(name)).output().expect("it runs");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && errors.is_empty(), "{name}: {errors}");
        }
    }
}

/// Unlike bash, fish offers options only behind a dash.
#[test]
fn fish_offers_what_fits() {
    if !is_installed("fish") {
        return;
    }
    let cases = [
        ("client --se", "--set --set-limit --set-role"),
        ("client --set-limit bob ", ""),
        ("client -r ", ""),
        ("client -r bob ", "user admin"),
        ("client --set-role bob a", "admin"),
        ("client --set id", "idle-timeout="),
        ("client --set=id", "--set=idle-timeout="),
        ("client --set log-level=d", "log-level=debug"),
        ("client --set allow-local=o", "allow-local=on allow-local=off"),
        ("client --config lo", "local-for log-entries log-level"),
        ("client --config=lo", "--config=local-for --config=log-entries --config=log-level"),
        ("client --config --js", "--json"),
        ("client -w --js", "--json"),
        ("client -u admin:", ""),
        ("client -l -- CON", "CONNECTIONS CONFIG"),
        ("client -- KILL ", ""),
        ("client -- --js", ""),
        ("socks5d --max-c", "--max-connections --max-connections-per-ip"),
        ("socks5d --log-level d", "debug"),
        ("socks5d -l ", ""),
    ];
    let home = tempfile::tempdir().expect("a folder");
    for (line, expected) in cases {
        let program = line.split(' ').next().expect("a program");
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", "source $argv[1]; complete -C $argv[2]"]);
        fish.arg(file(&format!("{program}.fish"))).arg(line).env("HOME", home.path());
        let output = fish.output().expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let words = text.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned);
        let expected = expected.split_terminator(' ').map(str::to_owned);
        assert_eq!(set(words), set(expected), "{line:?}");
    }
}
