//! Answers for people, and for scripts that split lines: tables with aligned columns. On a terminal sizes and
//! times are short and columns are left out that do not fit; elsewhere everything is exact and there.

use std::io::{self, IsTerminal};
use std::time::Duration;

use socks5d::proto::metp::Command;

use crate::answer::{Answer, Kind};
use crate::conversation::Failure;
use crate::order::Order;
use crate::{fields, render, terminal, units};

/// How an answer is to look.
#[derive(Clone, Copy, Default)]
pub struct Style {
    /// Sizes and times for people.
    pub human: bool,
    /// Headings stand out.
    pub colour: bool,
    /// Columns of the terminal, if it is one.
    pub width: Option<usize>,
}

impl Style {
    /// What fits standard output.
    pub fn of_stdout() -> Self {
        let human = io::stdout().is_terminal();
        let width = if human { terminal::width() } else { None };
        Style { human, colour: human && terminal::colours(), width }
    }
}

/// Far more than a server has keys.
const MOST_COLUMNS: usize = 64;
/// The columns that are left out first where there is no room.
const DISPENSABLE: [&str; 6] = ["buffered", "peer", "idle", "acts", "unit", "last-seen"];
/// Columns of `CONNECTIONS`, for a list that is empty.
const CONNECTIONS: [&str; 11] = [
    "id",
    "user",
    "source",
    "destination",
    "peer",
    "state",
    "age",
    "idle",
    "up",
    "down",
    "buffered",
];
/// Keys whose numbers are bytes.
const SIZES: [&str; 9] = [
    "up",
    "down",
    "buffered",
    "buffers",
    "buffers-limit",
    "rss",
    "BYTES_TRANSFERRED",
    "BYTES_UP",
    "BYTES_DOWN",
];
/// Keys whose numbers are seconds.
const TIMES: [&str; 5] = ["age", "idle", "uptime", "duration", "closing-in"];

/// The answer to a command as standard output shows it.
///
/// # Errors
/// If the answer lacks what it has to have.
pub fn text(answer: &Answer, order: &Order) -> Result<String, Failure> {
    let style = Style::of_stdout();
    Ok(match answer.kind {
        Kind::Done => render::DONE.to_owned(),
        Kind::Killed => format!("Connections cut: {}\n", fields::number(&answer.text, "killed")),
        Kind::Metrics => render::metrics(&answer.lines)?,
        // They are shown as they come.
        Kind::Users | Kind::Records => String::new(),
        Kind::Figures => list(&answer.lines, ':', style),
        Kind::Pairs => list(&answer.lines, '=', style),
        Kind::Rows => {
            let empty: &[&str] = match order.command {
                Some(Command::Connections(_)) => &CONNECTIONS,
                _ => &[],
            };
            rows(&answer.lines, empty, style)
        }
    })
}

/// Keys and values below one another.
fn list(lines: &[String], between: char, style: Style) -> String {
    let pairs: Vec<(&str, String)> = lines
        .iter()
        .filter_map(|line| line.split_once(between))
        .map(|(key, value)| (key, shown(key, value.trim(), style)))
        .collect();
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    pairs.iter().map(|(key, value)| format!("{key:width$}  {value}\n")).collect()
}

/// A table: one line for each thing, one column for each key. `empty` are the columns where nothing is there.
fn rows(lines: &[String], empty: &[&str], style: Style) -> String {
    let mut keys: Vec<&str> = match lines.first() {
        Some(line) => fields::pairs(line).map(|(key, _)| key).take(MOST_COLUMNS).collect(),
        None => empty.to_vec(),
    };
    let cell =
        |line: &String, key: &&str| shown(key, fields::value(line, key).unwrap_or("-"), style);
    let mut table: Vec<Vec<String>> = vec![keys.iter().map(|key| key.to_uppercase()).collect()];
    table.extend(lines.iter().map(|line| keys.iter().map(|key| cell(line, key)).collect()));
    for dispensable in DISPENSABLE {
        let needed = widths(&table).iter().sum::<usize>().saturating_sub(GAP);
        let wide = style.width.is_some_and(|width| needed > width);
        if let Some(at) = keys.iter().position(|key| *key == dispensable).filter(|_| wide) {
            keys.remove(at);
            for row in &mut table {
                row.remove(at);
            }
        }
    }
    let widths = widths(&table);
    let mut text = String::new();
    for (number, row) in table.iter().enumerate() {
        let mut line = String::new();
        for ((cell, width), key) in row.iter().zip(&widths).zip(&keys) {
            let room = width.saturating_sub(GAP);
            if is_number(key) {
                line.push_str(&format!("{cell:>room$}  "));
            } else {
                line.push_str(&format!("{cell:room$}  "));
            }
        }
        let line = line.trim_end();
        match number == 0 && style.colour && !line.is_empty() {
            true => text.push_str(&format!("\x1b[1m{line}\x1b[0m\n")),
            false => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

/// Blanks between two columns.
const GAP: usize = 2;

fn widths(table: &[Vec<String>]) -> Vec<usize> {
    let columns = table.first().map_or(0, Vec::len);
    let widest = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0) + GAP
    };
    (0..columns).map(widest).collect()
}

fn is_number(key: &str) -> bool {
    SIZES.contains(&key) || TIMES.contains(&key) || ["connections", "total"].contains(&key)
}

/// A value as it is shown.
fn shown(key: &str, value: &str, style: Style) -> String {
    let human = if !style.human {
        None
    } else if SIZES.contains(&key) {
        value.parse().ok().map(units::size)
    } else if TIMES.contains(&key) {
        let seconds = value.parse().ok();
        seconds.and_then(|time| Duration::try_from_secs_f64(time).ok()).map(units::age)
    } else {
        None
    };
    human.unwrap_or_else(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    const CONNECTION: &str = "id=17.3 user=alice source=127.0.0.1:5000 destination=example.com:443 \
         peer=192.0.2.1:443 state=relay age=61.250 idle=0.001 up=1536 down=20971520 buffered=0 new=x";

    #[test]
    fn columns_are_aligned_and_exact() {
        let lines = owned(&[
            "user=al role=admin connections=2 total=10 up=1 down=2 last-seen=-",
            "user=longer role=user connections=0 total=0 up=123456 down=0 last-seen=-",
        ]);
        assert_eq!(
            rows(&lines, &[], Style::default()),
            "USER    ROLE   CONNECTIONS  TOTAL      UP  DOWN  LAST-SEEN\n\
             al      admin            2     10       1     2  -\n\
             longer  user             0      0  123456     0  -\n"
        );
        assert_eq!(
            list(&owned(&["pid=7", "uptime=3.250"]), '=', Style::default()),
            "pid     7\nuptime  3.250\n"
        );
    }

    #[test]
    fn on_a_terminal_they_are_short_and_fit() {
        let style = Style { human: true, width: Some(100), ..Style::default() };
        assert_eq!(
            rows(&owned(&[CONNECTION]), &[], style),
            "ID    USER   SOURCE          DESTINATION      STATE    AGE  IDLE       UP      DOWN  NEW\n\
             17.3  alice  127.0.0.1:5000  example.com:443  relay  1m01s  0.0s  1.5 KiB  20.0 MiB  x\n"
        );
        let all = rows(&owned(&[CONNECTION]), &[], Style { width: None, ..style });
        assert!(all.contains("PEER") && all.contains("BUFFERED"));
        let bold = rows(&owned(&[CONNECTION]), &[], Style { colour: true, ..style });
        assert!(bold.starts_with("\x1b[1mID") && bold.contains("NEW\x1b[0m\n17.3"));
    }

    #[test]
    fn an_empty_list_has_its_heading() {
        let text = rows(&[], &CONNECTIONS, Style::default());
        assert!(text.starts_with("ID  USER  SOURCE") && text.ends_with("BUFFERED\n"));
    }
}
