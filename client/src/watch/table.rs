//! The tables below the plots. A heading, then as many rows as there is room for.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Widget;

use super::model::Row;
use super::news::LogLine;
use super::parties::Party;
use crate::units;

/// A size, such as `12.3 MiB`, and a blank before it.
const SIZE: usize = 9;
/// A number of connections.
const COUNT: usize = 6;
/// How old something is.
const AGE: usize = 8;
/// The longest name of an account that is shown in a table of connections.
const USER: usize = 14;
/// Month to second.
const TIME: usize = 14;
/// What came of a request: `12.3 MiB in 3m05s, finished`.
const OUTCOME: usize = 27;
/// Columns between two others.
const GAP: usize = 2;
/// An address and a port.
const SOURCE: usize = 22;
/// The longest name or destination: on a wide screen, its numbers should not be far from it.
const NAME: usize = 48;
/// From this width on there is room for it.
const WIDE: u16 = 110;

/// Users or destinations.
pub fn parties(title: &str, parties: &[Party], area: Rect, buffer: &mut Buffer) {
    let name = usize::from(area.width).saturating_sub(COUNT + 2 * SIZE).min(NAME);
    let line = |title: &str, count: &str, up: &str, down: &str| {
        format!("{:<name$}{count:>COUNT$}{up:>SIZE$}{down:>SIZE$}", fitted_to(title, name))
    };
    let rows = parties.iter().map(|party| {
        let (up, down) = (speed(party.rate.up), speed(party.rate.down));
        line(&party.name, &party.connections.to_string(), &up, &down).into()
    });
    draw(&line(title, "CONNS", "UP/s", "DOWN/s"), rows, area, buffer);
}

/// Connections with their ids.
pub fn connections<'a>(rows: impl Iterator<Item = &'a Row>, area: Rect, buffer: &mut Buffer) {
    let rows: Vec<&Row> = rows.take(usize::from(area.height).saturating_sub(1)).collect();
    let ids = rows.iter().map(|row| row.connection.id.len()).max().unwrap_or(0).max(6);
    let sources = if area.width >= WIDE { SOURCE + GAP } else { 0 };
    let taken = ids + GAP + USER + GAP + sources + 3 * SIZE + AGE;
    let names = usize::from(area.width).saturating_sub(taken).min(NAME);
    let line = |[id, user, source, destination]: [&str; 4], numbers: [&str; 4]| {
        let user = fitted_to(user, USER);
        let source = fitted_to(source, sources.saturating_sub(GAP));
        let destination = fitted_to(destination, names);
        let [up, down, total, age] = numbers;
        format!(
            "{id:<ids$}  {user:<USER$}  {source:<sources$}{destination:<names$}\
             {up:>SIZE$}{down:>SIZE$}{total:>SIZE$}{age:>AGE$}"
        )
    };
    let texts = rows.iter().map(|row| {
        let connection = &row.connection;
        let state = format!("({})", connection.state);
        let destination = match connection.destination.as_str() {
            "-" => &state,
            destination => destination,
        };
        let texts = [&connection.id, &connection.user, &connection.source, destination];
        let (up, down) = (speed(row.rate.up), speed(row.rate.down));
        let (total, age) = (units::size(connection.bytes.total()), units::age(connection.age));
        line(texts, [&up, &down, &total, &age]).into()
    });
    let heading = line(["ID", "USER", "SOURCE", "DESTINATION"], ["UP/s", "DOWN/s", "TOTAL", "AGE"]);
    draw(&heading, texts, area, buffer);
}

/// The newest lines of the access log, the newest last. Columns are as wide as what is in them; the
/// destination is cut first.
pub fn log<'a>(
    lines: impl DoubleEndedIterator<Item = &'a LogLine>,
    warning: Style,
    area: Rect,
    buffer: &mut Buffer,
) {
    let rows = usize::from(area.height).saturating_sub(1);
    let mut lines: Vec<&LogLine> = lines.rev().take(rows).collect();
    lines.reverse();
    let widest = |text: fn(&LogLine) -> &str, title: &str, most: usize| {
        let longest = lines.iter().map(|line| text(line).len()).max().unwrap_or(0);
        longest.max(title.len()).min(most)
    };
    let [time_title, user_title, source_title, destination_title] =
        ["ACCESS LOG UTC", "USER", "SOURCE", "DESTINATION"];
    let time = widest(|line| &line.time, time_title, TIME);
    let user = widest(|line| &line.user, user_title, USER);
    let source = widest(|line| &line.source, source_title, SOURCE);
    let taken = time + user + source + 4 * GAP + OUTCOME;
    let room = usize::from(area.width).saturating_sub(taken);
    let destination = widest(|line| &line.destination, destination_title, room.min(NAME));
    let format = |texts: [&str; 4], outcome: &str| {
        let widths = [time, user, source, destination];
        let cells = texts
            .iter()
            .zip(widths)
            .map(|(text, width)| format!("{:<width$}  ", fitted_to(text, width)));
        fitted(&(cells.collect::<String>() + outcome), area.width)
    };
    let texts = lines.iter().map(|line| {
        let texts = [&line.time, &line.user, &line.source, &line.destination];
        let style = if line.warns { warning } else { Style::new() };
        Line::styled(format(texts.map(String::as_str), &line.outcome), style)
    });
    let titles = [time_title, user_title, source_title, destination_title];
    draw(&format(titles, "OUTCOME"), texts, area, buffer);
}

/// The heading is underlined from edge to edge.
fn draw<'a>(heading: &str, rows: impl Iterator<Item = Line<'a>>, area: Rect, buffer: &mut Buffer) {
    let style = Style::new().add_modifier(Modifier::BOLD).add_modifier(Modifier::UNDERLINED);
    let heading = format!("{heading:<width$}", width = usize::from(area.width));
    let lines = [Line::styled(heading, style)].into_iter().chain(rows);
    for (line, row) in lines.zip(area.rows()) {
        line.render(row, buffer);
    }
}

/// Octets per second; nothing is easier to overlook than `0 B`.
fn speed(octets: u64) -> String {
    if octets == 0 { "-".to_owned() } else { units::size(octets) }
}

/// A text that is cut in its middle if it has more columns: beginning and end tell most.
pub fn fitted(text: &str, columns: u16) -> String {
    fitted_to(text, columns.into())
}

fn fitted_to(text: &str, columns: usize) -> String {
    let length = text.chars().count();
    if length <= columns {
        return text.to_owned();
    }
    let Some(kept) = columns.checked_sub(1) else { return String::new() };
    let (head, tail) = (kept / 2, kept - kept / 2);
    let begin = text.chars().take(head);
    let end = text.chars().skip(length.saturating_sub(tail));
    begin.chain(['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_in_their_middle() {
        assert_eq!(fitted("example.com:443", 15), "example.com:443");
        assert_eq!(fitted("example.com:443", 10), "exam…m:443");
        assert_eq!((fitted("example", 1), fitted("example", 0)), ("…".into(), String::new()));
    }
}
