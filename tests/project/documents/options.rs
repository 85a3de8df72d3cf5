//! What `-h` says of a program's options.

use std::process::Command;

use support::binary;

/// One option.
#[derive(Debug, Default)]
pub struct Opt {
    /// `-p`, if there is a short form.
    pub short: Option<String>,
    /// `--port`
    pub long: String,
    /// What its description says.
    pub text: String,
}

impl Opt {
    /// The default, as far as it is a number or an address.
    pub fn preset(&self) -> Option<&str> {
        let (_, value) = self.text.split_once("(default ")?;
        let value = value.split([';', ':', ')']).next()?;
        value.starts_with(|c: char| c.is_ascii_digit()).then_some(value)
    }

    /// What it does, without its default.
    pub fn says(&self) -> &str {
        let (_, text) = self.text.split_once(&self.long).expect("its name");
        let text = text.trim_start_matches(|c: char| c.is_ascii_uppercase() || " :[]".contains(c));
        let text = text.split_once(" (default").map_or(text, |(text, _)| text);
        text.trim()
    }

    /// As mdoc writes it: `Fl p , Fl -port`.
    pub fn mdoc(&self) -> String {
        let short = self.short.iter().map(|short| format!("Fl {} , ", &short[1..]));
        format!("{}Fl {}", short.collect::<String>(), &self.long[1..])
    }
}

/// The options of a program.
pub fn options(program: &str) -> Vec<Opt> {
    let output = Command::new(binary(program)).arg("-h").output().expect("it starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{program} -h");
    let help = String::from_utf8(output.stdout).expect("text");
    let mut options: Vec<Opt> = Vec::new();
    for line in help.lines().skip_while(|line| *line != "Options:").skip(1) {
        if line.starts_with("    -") || line.starts_with("        --") {
            let words = line.split([' ', ',']).filter(|word| word.starts_with('-'));
            let mut option = Opt { text: line.to_owned(), ..Opt::default() };
            for word in words {
                match word.strip_prefix("--") {
                    Some(_) => word.clone_into(&mut option.long),
                    None => option.short = Some(word.to_owned()),
                }
            }
            options.push(option);
        } else if let Some(option) = options.last_mut() {
            option.text.push(' ');
            option.text.push_str(line.trim());
        }
    }
    assert!(options.len() >= 12, "{program} -h has been read: {options:?}");
    options
}
