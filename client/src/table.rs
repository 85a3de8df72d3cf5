//! Answers as aligned columns, for people and for scripts that split lines. On a terminal, sizes and times are
//! short and columns that do not fit are left out; elsewhere every column that has a value is there, with exact values.

use std::io::{self, IsTerminal};

use metp_protocol::key::{self, MetpKey, ValueForm};
use metp_protocol::text::line_of_text;
use metp_protocol::{Command, ConnectionLine, seconds};

use crate::answer::{Answer, AnswerKind};
use crate::failure::Failure;
use crate::{render, terminal, units};

/// How answers are formatted.
#[derive(Clone, Copy, Default)]
pub struct TableStyle {
    /// Sizes and times in units, as `1.5 KiB` and `1m01s`.
    pub human: bool,
    /// Headings in bold.
    pub colour: bool,
    /// Columns of the terminal; `None` elsewhere.
    pub width: Option<usize>,
}

impl TableStyle {
    /// The style for standard output.
    pub fn of_stdout() -> Self {
        let human = io::stdout().is_terminal();
        let width = if human { terminal::width() } else { None };
        TableStyle { human, colour: human && terminal::colours(), width }
    }
}

/// Columns of a table at most; far more than METP has keys.
const MAX_COLUMNS: usize = 64;
/// Columns that are left out, one after the other, until the table fits the terminal.
const OPTIONAL_COLUMNS: [MetpKey; 6] =
    [key::BUFFERED, key::PEER, key::IDLE, key::APPLIES, key::UNIT, key::LAST_SEEN];

/// Columns that are left out, wherever the table goes, where no line has a value for them: those of associations and
/// limits.
const RARE_COLUMNS: [MetpKey; 9] = [
    key::TARGETS,
    key::DATAGRAMS,
    key::DROPPED,
    key::QUOTA,
    key::QUOTA_USED,
    key::EXPIRES,
    key::SOURCES,
    key::RATE,
    key::RULE,
];

/// Formats an answer that is no list.
///
/// # Errors
/// [`Failure::Broken`] if the answer is incomplete.
pub fn text(answer: &Answer) -> Result<String, Failure> {
    let style = TableStyle::of_stdout();
    Ok(match answer.kind {
        AnswerKind::Done => render::DONE.to_owned(),
        AnswerKind::Killed => {
            let count = key::KILLED.digits(&answer.text).unwrap_or("0");
            format!("Connections cut: {count}\n")
        }
        AnswerKind::Generated => {
            format!("{}\n", key::PASSWORD.of(&answer.text).unwrap_or_default())
        }
        AnswerKind::Reloaded => {
            let count = |key: MetpKey| key.digits(&answer.text).unwrap_or("0").to_owned();
            let more = |key: MetpKey, word: &str| {
                let count = key.digits(&answer.text);
                count.map_or(String::new(), |count| format!("; {word}: {count}"))
            };
            format!(
                "Accounts: {}, {} added, {} deleted, {} changed; settings changed: {}{}{}\n",
                count(key::ACCOUNTS),
                count(key::ADDED),
                count(key::DELETED),
                count(key::CHANGED),
                count(key::SETTINGS),
                more(key::RULES, "rules"),
                more(key::CUT, "connections cut")
            )
        }
        AnswerKind::Imported => {
            format!("Accounts imported: {}, refused: {}\n", answer.imported(), answer.lines.len())
        }
        AnswerKind::Metrics => render::metrics(answer.metrics()?),
        AnswerKind::Users | AnswerKind::Records | AnswerKind::Rows => String::new(),
        AnswerKind::Figures => list(&answer.lines, ':', style),
        AnswerKind::Pairs => list(&answer.lines, '=', style),
    })
}

/// Formats one key and its value in each line; `between` separates them in the answer.
fn list(lines: &[String], between: char, style: TableStyle) -> String {
    let pairs: Vec<(&str, String)> = lines
        .iter()
        .filter_map(|line| line.split_once(between))
        .map(|(key, value)| (key, shown(form(key), value.trim(), style)))
        .collect();
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0).min(MAX_COLUMN_WIDTH);
    pairs.iter().map(|(key, value)| format!("{key:width$}  {value}\n")).collect()
}

/// Lines that are read before the widths of the columns are fixed. A wider cell in a later line moves the rest
/// of that line.
const FIRST_ROWS: usize = 4096;
/// Bytes of these lines at most.
const FIRST_BYTES: usize = 512 << 10;
/// The widest column, in characters: one wide cell must not widen all lines.
const MAX_COLUMN_WIDTH: usize = 64;
/// Blanks between two columns.
const COLUMN_GAP: usize = 2;

/// A table with a column for each key. Lines go in as they come, and text comes out as soon as the columns are
/// fixed, so that a list of any length takes no more memory than its beginning.
pub struct Table {
    style: TableStyle,
    /// The heading of an empty table.
    empty: &'static [MetpKey],
    /// The lines so far, until the columns are fixed.
    first: Vec<String>,
    octets: usize,
    columns: Option<Vec<Column>>,
}

struct Column {
    key: String,
    /// The form of its values; `None` for a key of a later version.
    form: Option<ValueForm>,
    width: usize,
}

impl Table {
    /// A table for the answer to `command`.
    pub fn new(command: Option<&Command>, style: TableStyle) -> Self {
        // Without a line, only the protocol tells the keys.
        let empty: &[MetpKey] = match command {
            Some(Command::Connections(_)) => &ConnectionLine::KEYS,
            _ => &[],
        };
        Table { style, empty, first: Vec::new(), octets: 0, columns: None }
    }

    /// Adds a printable line. Returns the text that can be printed now, if any.
    pub fn add(&mut self, line: String) -> String {
        if let Some(columns) = &self.columns {
            return row(columns, &line, self.style);
        }
        self.octets = self.octets.saturating_add(line.len());
        self.first.push(line);
        match self.first.len() >= FIRST_ROWS || self.octets >= FIRST_BYTES {
            true => self.settle(),
            false => String::new(),
        }
    }

    /// Ends the table. Returns the text that has not been printed.
    pub fn end(mut self) -> String {
        if self.columns.is_none() { self.settle() } else { String::new() }
    }

    /// Fixes the columns by the lines so far. Returns the heading and these lines.
    fn settle(&mut self) -> String {
        let first = std::mem::take(&mut self.first);
        let keys: Vec<&str> = match first.first() {
            Some(line) => key::pairs(line).map(|(key, _)| key).take(MAX_COLUMNS).collect(),
            None => self.empty.iter().map(|key| key.name).collect(),
        };
        let has_value = |key: &str| first.iter().any(|line| key::value(line, key).is_some());
        let is_rare = |key: &str| RARE_COLUMNS.iter().any(|rare| rare.name == key);
        let mut columns: Vec<Column> = keys
            .into_iter()
            .filter(|key| !is_rare(key) || has_value(key))
            .map(|key| {
                let mut column = Column { key: key.to_owned(), form: form(key), width: 0 };
                let widths = first.iter().map(|line| column.cell(line, self.style).len());
                let width = widths.chain([key.len()]).max().unwrap_or(0);
                column.width = width.min(MAX_COLUMN_WIDTH);
                column
            })
            .collect();
        for dispensable in OPTIONAL_COLUMNS {
            let needed = columns.iter().map(|column| column.width + COLUMN_GAP).sum::<usize>();
            if self.style.width.is_some_and(|width| needed.saturating_sub(COLUMN_GAP) > width) {
                columns.retain(|column| column.key != dispensable.name);
            }
        }
        let heading = line(&columns, |column| column.key.to_uppercase());
        let mut text = match self.style.colour && !heading.is_empty() {
            true => format!("\x1b[1m{heading}\x1b[0m\n"),
            false => format!("{heading}\n"),
        };
        first.iter().for_each(|line| text += &row(&columns, line, self.style));
        self.columns = Some(columns);
        text
    }
}

impl Column {
    fn cell(&self, line: &str, style: TableStyle) -> String {
        shown(self.form, key::value(line, &self.key).unwrap_or("-"), style)
    }

    fn is_right_aligned(&self) -> bool {
        matches!(
            self.form,
            Some(ValueForm::Count | ValueForm::Octets | ValueForm::Millis | ValueForm::Micros)
        )
    }
}

fn row(columns: &[Column], text: &str, style: TableStyle) -> String {
    line(columns, |column| column.cell(text, style)) + "\n"
}

fn line(columns: &[Column], cell: impl Fn(&Column) -> String) -> String {
    let mut line = String::new();
    for column in columns {
        let (width, cell) = (column.width, cell(column));
        match column.is_right_aligned() {
            true => line += &format!("{cell:>width$}  "),
            false => line += &format!("{cell:width$}  "),
        }
    }
    line.truncate(line.trim_end().len());
    line
}

fn form(key: &str) -> Option<ValueForm> {
    MetpKey::find(key).map(|key| key.form)
}

/// Formats a value of this form.
fn shown(form: Option<ValueForm>, value: &str, style: TableStyle) -> String {
    let human = match form.filter(|_| style.human) {
        Some(ValueForm::Octets) => value.parse().ok().map(units::size),
        Some(ValueForm::Millis) => seconds(value).map(units::age),
        _ => None,
    };
    match form {
        Some(ValueForm::Line) => line_of_text(value),
        _ => human.unwrap_or_else(|| value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    fn rows(lines: &[&str], command: Option<&Command>, style: TableStyle) -> String {
        let mut table = Table::new(command, style);
        let text: String = lines.iter().map(|line| table.add((*line).to_owned())).collect();
        text + &table.end()
    }

    const CONNECTION: &str = "id=17.3 user=alice source=127.0.0.1:5000 destination=example.com:443 \
         peer=192.0.2.1:443 state=relay age=61.250 idle=0.001 up=1536 down=20971520 buffered=0 new=x";

    #[test]
    fn columns_are_aligned_and_exact() {
        let lines = [
            "user=al role=admin connections=2 total=10 up=1 down=2 last-seen=-",
            "user=longer role=user connections=0 total=0 up=123456 down=0 last-seen=-",
        ];
        assert_eq!(
            rows(&lines, None, TableStyle::default()),
            "USER    ROLE   CONNECTIONS  TOTAL      UP  DOWN  LAST-SEEN\n\
             al      admin            2     10       1     2  -\n\
             longer  user             0      0  123456     0  -\n"
        );
        assert_eq!(
            list(&owned(&["pid=7", "uptime=3.250"]), '=', TableStyle::default()),
            "pid     7\nuptime  3.250\n"
        );
    }

    #[test]
    fn on_a_terminal_they_are_short_and_fit() {
        let style = TableStyle { human: true, width: Some(100), ..TableStyle::default() };
        assert_eq!(
            rows(&[CONNECTION], None, style),
            "ID    USER   SOURCE          DESTINATION      STATE    AGE  IDLE       UP      DOWN  NEW\n\
             17.3  alice  127.0.0.1:5000  example.com:443  relay  1m01s  0.0s  1.5 KiB  20.0 MiB  x\n"
        );
        let all = rows(&[CONNECTION], None, TableStyle { width: None, ..style });
        assert!(all.contains("PEER") && all.contains("BUFFERED"));
        let bold = rows(&[CONNECTION], None, TableStyle { colour: true, ..style });
        assert!(bold.starts_with("\x1b[1mID") && bold.contains("NEW\x1b[0m\n17.3"));
    }

    /// Lines after the first ones are returned at once, in the columns of these.
    #[test]
    fn a_long_list_is_shown_as_it_comes() {
        let mut table = Table::new(None, TableStyle::default());
        for _ in 1..FIRST_ROWS {
            assert_eq!(table.add("a=1 b=22".to_owned()), "");
        }
        let text = table.add("a=333 b=4".to_owned());
        assert_eq!(text.lines().count(), FIRST_ROWS + 1);
        assert!(text.starts_with("A    B\n1    22\n") && text.ends_with("\n333  4\n"), "{text}");
        assert_eq!(table.add("b=5 a=wider".to_owned()), "wider  5\n");
        assert_eq!(table.add("c=6".to_owned()), "-    -\n");
        assert!(table.first.is_empty());
        assert_eq!(table.end(), "");
    }

    /// A wide cell is printed whole, and does not make the columns of others wide.
    #[test]
    fn no_column_is_wider_than_any_name_should_be() {
        let wide = format!("a={} b=1", "x".repeat(4000));
        let long = format!("{}=1", "k".repeat(4000));
        let text = rows(&[&wide, "a=1 b=2"], None, TableStyle::default());
        let lines: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(
            lines,
            [
                MAX_COLUMN_WIDTH + COLUMN_GAP + 1,
                4000 + COLUMN_GAP + 1,
                MAX_COLUMN_WIDTH + COLUMN_GAP + 1
            ]
        );
        let pairs = list(&owned(&[&long, "a=2"]), '=', TableStyle::default());
        assert_eq!(pairs.lines().last().map(str::len), Some(MAX_COLUMN_WIDTH + COLUMN_GAP + 1));
    }

    #[test]
    fn columns_of_associations_are_there_where_there_is_one() {
        let tunnel = "id=1.0 up=1 buffered=0 targets=- datagrams=- dropped=-";
        let association = "id=2.0 up=1 buffered=0 targets=3 datagrams=7 dropped=0";
        let text = rows(&[tunnel, tunnel], None, TableStyle::default());
        assert!(text.starts_with("ID   UP  BUFFERED\n"), "{text}");
        let text = rows(&[tunnel, association], None, TableStyle::default());
        assert!(text.starts_with("ID   UP  BUFFERED  TARGETS  DATAGRAMS  DROPPED\n"), "{text}");
        assert!(text.ends_with("2.0   1         0        3          7        0\n"), "{text}");
    }

    #[test]
    fn an_empty_list_has_its_heading() {
        let text = rows(&[], Some(&Command::Connections(None)), TableStyle::default());
        assert!(text.starts_with("ID  USER  SOURCE") && text.ends_with("BUFFERED\n"));
    }
}
