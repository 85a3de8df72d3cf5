//! The tables: users, destinations, connections and access log. Each has a heading, and as many rows as fit.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Widget;

use super::limits::BAR_WIDTH;
use super::model::Row;
use super::news::{Bytes, LogLine};
use super::rates::TopEntry;
use crate::units;

/// A size, such as `12.3 MiB`, and a blank before it.
const SIZE_WIDTH: usize = 9;
/// A number of connections, and blanks before it.
const COUNT_WIDTH: usize = 6;
/// An age, and blanks before it.
const AGE_WIDTH: usize = 8;
/// The widest name of an account in a table of connections or the log.
const USER_WIDTH: usize = 14;
/// `06-28 14:32:10`
const TIME_WIDTH: usize = 14;
/// An outcome: `12.3 MiB in 3m05s, finished`.
const OUTCOME_WIDTH: usize = 27;
/// Blanks between two columns.
const COLUMN_GAP: usize = 2;
/// An IPv4 address and a port, or the beginning and the end of an IPv6 address.
const SOURCE_WIDTH: usize = 22;
/// The widest name or destination: on a wide screen, its numbers should not be far from it.
const NAME_WIDTH: usize = 48;
/// The least width of the screen at which connections show the source.
const SOURCE_MIN_WIDTH: u16 = 110;
/// The least width of a name or a destination; where there is less, other columns are left out.
const MIN_NAME_WIDTH: usize = 8;
const MIN_DESTINATION_WIDTH: usize = 11;
/// The least width of the screen for users and destinations side by side.
pub const TWO_TABLES_WIDTH: u16 = 2 * 34;

/// Which rates are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rates {
    /// Up and down, in two columns.
    Both,
    /// Their sum, in one.
    Sum,
}

impl Rates {
    /// The width of the columns.
    const fn width(self) -> usize {
        match self {
            Rates::Both => 2 * SIZE_WIDTH,
            Rates::Sum => SIZE_WIDTH,
        }
    }

    fn titles(self) -> String {
        match self {
            Rates::Both => format!("{:>SIZE_WIDTH$}{:>SIZE_WIDTH$}", "UP/s", "DOWN/s"),
            Rates::Sum => format!("{:>SIZE_WIDTH$}", "BOTH/s"),
        }
    }

    fn text(self, rate: Bytes) -> String {
        match self {
            Rates::Both => {
                format!("{:>SIZE_WIDTH$}{:>SIZE_WIDTH$}", speed(rate.up), speed(rate.down))
            }
            Rates::Sum => format!("{:>SIZE_WIDTH$}", speed(rate.total())),
        }
    }
}

/// A bar, and blanks before it.
const BAR_COLUMN: usize = BAR_WIDTH + 1;

/// Draws users or destinations. With less room, the number of connections is left out first, then the rates are
/// added up, then the bars of limits go, which are there if one of the rows has a limit.
pub fn top_entries(title: &str, entries: &[TopEntry], area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let shown = entries.get(..usize::from(area.height).min(entries.len())).unwrap_or_default();
    let bars = if shown.iter().any(|entry| entry.limits.is_some()) { 2 * BAR_COLUMN } else { 0 };
    let shapes = [(COUNT_WIDTH, Rates::Both), (0, Rates::Both), (0, Rates::Sum)];
    let shapes =
        [bars, 0].into_iter().flat_map(|bars| shapes.map(|(count, rates)| (bars, count, rates)));
    let room = |(bars, count, rates): (usize, usize, Rates)| {
        width.saturating_sub(bars + count + rates.width())
    };
    let shape = shapes.into_iter().find(|shape| room(*shape) >= MIN_NAME_WIDTH);
    let shape @ (bars, count, rates) = shape.unwrap_or((0, 0, Rates::Sum));
    let name = room(shape).min(NAME_WIDTH);
    let line = |title: &str, number: &str, rates: &str, limits: [&str; 2]| {
        let number = if count == 0 { "" } else { number };
        let limits = if bars == 0 {
            String::new()
        } else {
            limits.map(|limit| format!(" {limit:<BAR_WIDTH$}")).concat()
        };
        format!("{:<name$}{number:>count$}{rates}{limits}", fitted_to(title, name))
    };
    let rows = shown.iter().map(|entry| {
        let [rate, quota] =
            entry.limits.unwrap_or_default().bars(entry.rate.up.max(entry.rate.down));
        let (number, speeds) = (entry.connections.to_string(), rates.text(entry.rate));
        line(&entry.name, &number, &speeds, [&rate, &quota]).into()
    });
    draw(&line(title, "CONNS", &rates.titles(), ["RATE", "QUOTA"]), rows, area, buffer);
}

/// The columns of a table of connections, besides the id.
#[derive(Clone, Copy)]
struct Shape {
    /// The width of the account; without destinations, its least width.
    user: usize,
    destination: bool,
    rates: Rates,
    total: bool,
    age: bool,
}

/// The shapes from all columns to the fewest, for ever less room.
const SHAPES: [Shape; 6] = {
    let all =
        Shape { user: USER_WIDTH, destination: true, rates: Rates::Both, total: true, age: true };
    let ageless = Shape { age: false, ..all };
    let rates = Shape { total: false, ..ageless };
    let short = Shape { user: 8, ..rates };
    let users = Shape { destination: false, ..short };
    [all, ageless, rates, short, users, Shape { rates: Rates::Sum, ..users }]
};

impl Shape {
    /// The first shape that fits into `width` columns besides the id, and the room for its last text.
    fn fitting(width: usize) -> (Self, usize) {
        let [.., last] = SHAPES;
        let fits = |shape: &Shape| {
            let least = if shape.destination { MIN_DESTINATION_WIDTH } else { shape.user };
            shape.room(width) >= least
        };
        let shape = SHAPES.into_iter().find(fits).unwrap_or(last);
        (shape, shape.room(width))
    }

    /// The room for the destination, or for the user if there is none.
    fn room(self, width: usize) -> usize {
        let user = if self.destination { self.user + COLUMN_GAP } else { 0 };
        let (total, age) =
            (if self.total { SIZE_WIDTH } else { 0 }, if self.age { AGE_WIDTH } else { 0 });
        width.saturating_sub(user + self.rates.width() + total + age)
    }
}

/// Draws connections with their ids, except the first `skipped`.
pub fn connections<'a>(
    rows: impl Iterator<Item = &'a Row>,
    skipped: usize,
    area: Rect,
    buffer: &mut Buffer,
) {
    let rows = rows.skip(skipped).take(usize::from(area.height).saturating_sub(1));
    let rows: Vec<&Row> = rows.collect();
    let ids = rows.iter().map(|row| row.connection.id.len()).max().unwrap_or(0).max(6);
    let sources = if area.width >= SOURCE_MIN_WIDTH { SOURCE_WIDTH + COLUMN_GAP } else { 0 };
    let (shape, room) =
        Shape::fitting(usize::from(area.width).saturating_sub(ids + COLUMN_GAP + sources));
    let line = |[id, user, source, destination]: [&str; 4],
                rates: &str,
                [total, age]: [&str; 2]| {
        let mut line = format!("{id:<ids$}  ");
        if shape.destination {
            let (width, names) = (shape.user, room.min(NAME_WIDTH));
            line += &format!("{:<width$}  ", fitted_to(user, width));
            line += &format!("{:<sources$}", fitted_to(source, sources.saturating_sub(COLUMN_GAP)));
            line += &format!("{:<names$}", fitted_to(destination, names));
        } else {
            line += &format!("{:<room$}", fitted_to(user, room));
        }
        line += rates;
        if shape.total {
            line += &format!("{total:>SIZE_WIDTH$}");
        }
        if shape.age {
            line += &format!("{age:>AGE_WIDTH$}");
        }
        line
    };
    let texts = rows.iter().map(|row| {
        let connection = &row.connection;
        let state = format!("({})", connection.state);
        let destination = match connection.destination.as_str() {
            "-" => &state,
            destination => destination,
        };
        let texts = [&connection.id, &connection.user, &connection.source, destination];
        let (total, age) = (units::size(connection.bytes.total()), units::age(connection.age));
        line(texts, &shape.rates.text(row.speed.rate), [&total, &age]).into()
    });
    let destination = match skipped {
        0 => "DESTINATION".to_owned(),
        _ => format!("DESTINATION, from {}", skipped.saturating_add(1)),
    };
    let titles = ["ID", "USER", "SOURCE", &destination];
    let heading = line(titles, &shape.rates.titles(), ["TOTAL", "AGE"]);
    draw(&heading, texts, area, buffer);
}

/// Draws the newest lines of the access log, the newest last. Columns are as wide as their texts. With less
/// room, the destination is cut first, then other columns are left out.
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
        ["ACCESS LOG", "USER", "SOURCE", "DESTINATION"];
    let time = widest(|line| &line.time, time_title, TIME_WIDTH);
    let user = widest(|line| &line.user, user_title, USER_WIDTH);
    let source = widest(|line| &line.source, source_title, SOURCE_WIDTH);
    let shapes = [[time, user, source], [time, user, 0], [0, user, 0], [0, 0, 0]];
    let room = |shape: &[usize; 3]| {
        let cells = shape.iter().filter(|width| **width > 0).map(|width| width + COLUMN_GAP);
        usize::from(area.width).saturating_sub(cells.sum::<usize>() + COLUMN_GAP + OUTCOME_WIDTH)
    };
    let shape = shapes.into_iter().find(|shape| room(shape) >= MIN_DESTINATION_WIDTH);
    let shape @ [time, user, source] = shape.unwrap_or_default();
    // Where the outcome does not fit either, destination and outcome share the room.
    let room = room(&shape)
        .max((usize::from(area.width) / 2).saturating_sub(COLUMN_GAP).min(MIN_DESTINATION_WIDTH));
    let destination = widest(|line| &line.destination, destination_title, room.min(NAME_WIDTH));
    let format = |texts: [&str; 4], outcome: &str| {
        let widths = [time, user, source, destination];
        let cells = texts.iter().zip(widths).filter(|(_, width)| *width > 0);
        let cells = cells.map(|(text, width)| format!("{:<width$}  ", fitted_to(text, width)));
        let cells = cells.collect::<String>();
        let left = usize::from(area.width).saturating_sub(cells.chars().count());
        cells + &fitted_to(outcome, left)
    };
    let texts = lines.iter().map(|line| {
        let texts = [&line.time, &line.user, &line.source, &line.destination];
        let style = if line.warns { warning } else { Style::new() };
        Line::styled(format(texts.map(String::as_str), &line.outcome), style)
    });
    let titles = match time {
        0 => ["", user_title, source_title, "ACCESS LOG"],
        _ => [time_title, user_title, source_title, destination_title],
    };
    draw(&format(titles, "OUTCOME"), texts, area, buffer);
}

/// Draws a heading, underlined over the whole width, and rows; nothing if there is no room for a row.
fn draw<'a>(heading: &str, rows: impl Iterator<Item = Line<'a>>, area: Rect, buffer: &mut Buffer) {
    if area.height < 2 {
        return;
    }
    let style = Style::new().add_modifier(Modifier::BOLD).add_modifier(Modifier::UNDERLINED);
    let heading = format!("{heading:<width$}", width = usize::from(area.width));
    let lines = [Line::styled(heading, style)].into_iter().chain(rows);
    for (line, row) in lines.zip(area.rows()) {
        line.render(row, buffer);
    }
}

/// Formats octets per second; `-` for none, which is easier to overlook than `0 B`.
fn speed(octets: u64) -> String {
    if octets == 0 { "-".to_owned() } else { units::size(octets) }
}

/// Cuts a text in its middle to fit `columns`: its beginning and its end say most.
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
