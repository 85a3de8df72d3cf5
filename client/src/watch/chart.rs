//! A chart of one figure over time: the present value and the peak, then a column of block characters for each
//! interval, between a value axis that ends at a round maximum and a time axis with marks at round times.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::history::{Figures, History};

/// Columns left of the value axis, for a maximum such as `500 MiB` and a blank.
const GUTTER_WIDTH: u16 = 8;
/// A cell that is filled from the bottom, by eighths of its height.
const BLOCKS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
/// Rows besides the bars: name, peak and time axis.
const FRAME_ROWS: u16 = 3;

/// Round numbers of octets within a unit; the next unit is 1024 times as large.
const SIZE_STEPS: [u64; 9] = [1, 2, 5, 10, 20, 50, 100, 200, 500];
/// The lowest maximum of an axis of octets per second: less need not fill a chart.
const MIN_SIZE: u64 = 1024;
/// The lowest maximum of an axis of numbers.
const MIN_COUNT: u64 = 5;
/// Times between marks, in seconds; beyond, whole days are used.
const MARK_SECONDS: [u64; 16] =
    [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 43_200];
const DAY_SECONDS: u64 = 86_400;
/// The least distance between marks, in columns.
const MIN_MARK_DISTANCE: u64 = 10;

/// A chart to be drawn.
pub struct Chart<'a> {
    /// The title.
    pub name: &'a str,
    /// The samples.
    pub history: &'a History,
    /// The present value, if it is known.
    pub now: Option<u64>,
    /// Selects the figure of a sample.
    pub pick: fn(&Figures) -> u64,
    /// The time that one column stands for.
    pub interval: Duration,
    /// Rounds the largest value up to the maximum of the axis.
    pub round: fn(u64) -> u64,
    /// Formats a value.
    pub show: fn(u64) -> String,
    /// Formats the maximum of the axis, in at most seven characters.
    pub label: fn(u64) -> String,
    /// The style of title and bars.
    pub style: Style,
}

impl Widget for Chart<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let now = self.now.map_or_else(|| "-".to_owned(), self.show);
        let peak = format!("peak {}", (self.show)((self.pick)(&self.history.peak())));
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let title =
            [Span::styled(self.name, self.style.patch(bold)), " ".into(), Span::styled(now, bold)];
        Line::from_iter(title).render(row(area, 0), buffer);
        Line::from(peak).render(row(area, 1), buffer);
        let bars = Rect {
            x: area.x.saturating_add(GUTTER_WIDTH),
            y: area.y.saturating_add(FRAME_ROWS - 1),
            width: area.width.saturating_sub(GUTTER_WIDTH),
            height: area.height.saturating_sub(FRAME_ROWS),
        };
        if bars.is_empty() {
            return;
        }
        let values = self.history.columns(self.interval, bars.width.into(), self.pick);
        let most = (self.round)(values.iter().flatten().copied().max().unwrap_or(0));
        draw_bars(&values, most, bars, self.style, buffer);
        let gutter = usize::from(GUTTER_WIDTH - 1);
        for y in bars.top()..bars.bottom() {
            let text = if y == bars.top() {
                format!("{:>gutter$}┤", (self.label)(most))
            } else {
                format!("{:>gutter$}│", "")
            };
            Line::from(text).render(Rect { x: area.x, y, width: GUTTER_WIDTH, height: 1 }, buffer);
        }
        let time = format!("{:>gutter$}└{}", 0, time_axis(self.interval, bars.width.into()));
        Line::from(time).render(row(area, area.height.saturating_sub(1)), buffer);
    }
}

/// A row of an area, of height 0 if it lies below the area.
fn row(area: Rect, index: u16) -> Rect {
    let height = u16::from(index < area.height);
    Rect { y: area.y.saturating_add(index), height, ..area }
}

/// Draws each value as a column of its share of `most`. A value above 0 has one eighth of a cell at least.
fn draw_bars(values: &[Option<u64>], most: u64, area: Rect, style: Style, buffer: &mut Buffer) {
    for (x, value) in (area.left()..area.right()).zip(values) {
        let eighths = eighths(value.unwrap_or(0), most, area.height);
        for (y, below) in (area.top()..area.bottom()).rev().zip((0..).step_by(8)) {
            let filled = eighths.saturating_sub(below).min(8);
            if let (Some(cell), Some(block)) = (buffer.cell_mut((x, y)), BLOCKS.get(filled)) {
                cell.set_symbol(block).set_style(style);
            }
        }
    }
}

/// The height of a column, in eighths of a cell.
fn eighths(value: u64, most: u64, rows: u16) -> usize {
    let all = u128::from(rows) * 8;
    let filled = (u128::from(value) * all + u128::from(most) / 2) / u128::from(most).max(1);
    usize::try_from(filled.max(u128::from(value > 0)).min(all)).unwrap_or(0)
}

/// The time axis: `──┴10s──────now`.
fn time_axis(interval: Duration, columns: usize) -> String {
    let mut axis = vec!['─'; columns];
    let mut write = |at: Option<usize>, text: &str| {
        let Some(place) =
            at.and_then(|at| axis.get_mut(at..at.saturating_add(text.chars().count())))
        else {
            return;
        };
        for (cell, letter) in place.iter_mut().zip(text.chars()) {
            *cell = letter;
        }
    };
    for (ago, time) in marks(interval, columns) {
        write(columns.checked_sub(ago.saturating_add(1)), &format!("┴{time}"));
    }
    write(columns.checked_sub(3), "now");
    axis.into_iter().collect()
}

/// Rounds octets up: 1, 2, 5, 10 ... 500 KiB, MiB, and so on.
pub fn round_size(value: u64) -> u64 {
    round_up(value, MIN_SIZE, &SIZE_STEPS, 1024)
}

/// Rounds a number up: 1, 2 or 5, and zeros.
pub fn round_count(value: u64) -> u64 {
    round_up(value.max(MIN_COUNT), 1, &[1, 2, 5], 10)
}

fn round_up(value: u64, mut unit: u64, steps: &[u64], next_unit: u64) -> u64 {
    loop {
        let mut rounds = steps.iter().map(|step| unit.saturating_mul(*step));
        // The loop ends: `unit` saturates at the largest number.
        if let Some(round) = rounds.find(|round| *round >= value) {
            return round;
        }
        unit = unit.saturating_mul(next_unit);
    }
}

/// The marks of a time axis whose columns are one `interval` each: the column, counted from the right, and its
/// text.
pub fn marks(interval: Duration, columns: usize) -> impl Iterator<Item = (usize, String)> {
    let interval = interval.as_millis().max(1);
    let apart = interval.saturating_mul(MIN_MARK_DISTANCE.into());
    let fits = |seconds: &u64| u128::from(*seconds).saturating_mul(1000) >= apart;
    let step = MARK_SECONDS.into_iter().find(fits).unwrap_or_else(|| {
        let days = apart.div_ceil(1000 * u128::from(DAY_SECONDS));
        u64::try_from(days).unwrap_or(1).saturating_mul(DAY_SECONDS)
    });
    (1..).map_while(move |mark: u64| {
        let seconds = step.saturating_mul(mark);
        let column = u128::from(seconds).saturating_mul(1000) / interval;
        let column = usize::try_from(column).ok().filter(|column| *column < columns)?;
        Some((column, round_time(seconds)))
    })
}

/// Formats a round time in the largest unit that divides it.
fn round_time(seconds: u64) -> String {
    for (unit, name) in [(DAY_SECONDS, 'd'), (3600, 'h'), (60, 'm')] {
        if seconds.is_multiple_of(unit) {
            return format!("{}{name}", seconds / unit);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::history::Sample;
    use super::*;
    use crate::units;

    const SECOND: Duration = Duration::from_secs(1);

    fn drawn(ups: &[u64], width: u16, height: u16) -> String {
        let mut history = History::default();
        let mut since = Instant::now();
        for &up in ups {
            let figures = Figures { up, ..Figures::default() };
            history.push(Sample { since, until: since + SECOND, figures });
            since += SECOND;
        }
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        let plot = Chart {
            name: "Up",
            history: &history,
            now: history.current().map(|figures| figures.up),
            pick: |figures| figures.up,
            interval: SECOND,
            round: round_size,
            show: units::rate,
            label: units::round_size,
            style: Style::new(),
        };
        plot.render(area, &mut buffer);
        let text = |y| {
            (0..width)
                .filter_map(|x| buffer.cell((x, y)))
                .map(|cell| cell.symbol())
                .collect::<String>()
        };
        (0..height).map(|y| text(y).trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn bars_and_axes() {
        assert_eq!(
            drawn(&[0, 1, 1024, 512, 2048, 1536], 24, 5),
            "Up 1.5 KiB/s\n\
             peak 2.0 KiB/s\n\
             \x20 2 KiB┤              █▄\n\
             \x20      │           ▁█▄██\n\
             \x20     0└─────┴10s────now\n"
        );
        let idle = drawn(&[], 24, 5);
        assert!(idle.starts_with("Up -\npeak 0 B/s\n  1 KiB┤\n"), "{idle}");
    }

    #[test]
    fn a_little_is_not_nothing_and_the_most_fills_the_plot() {
        assert_eq!((eighths(0, 100, 5), eighths(1, 1_000_000, 5)), (0, 1));
        assert_eq!((eighths(100, 100, 5), eighths(50, 100, 5)), (40, 20));
        assert_eq!(eighths(u64::MAX, u64::MAX, u16::MAX), 65_535 * 8);
        assert_eq!((eighths(9, 0, 5), eighths(9, 5, 0)), (40, 0));
    }

    #[test]
    fn no_size_is_too_small() {
        for width in 0..30 {
            for height in 0..6 {
                drawn(&[1, 2, 3], width, height);
            }
        }
    }

    #[test]
    fn time_axes() {
        assert_eq!(time_axis(SECOND, 18), "───────┴10s────now");
        assert_eq!(time_axis(SECOND, 2), "──");
        assert_eq!(time_axis(SECOND * 60, 30), "─────────┴20m──────┴10m────now");
    }

    #[test]
    fn round_maxima() {
        let (kib, mib) = (1 << 10, 1 << 20);
        for (value, round) in [
            (0, kib),
            (1, kib),
            (kib, kib),
            (kib + 1, 2 * kib),
            (3 * kib, 5 * kib),
            (201 * kib, 500 * kib),
            (501 * kib, mib),
            (13 * mib, 20 * mib),
            (900 * mib, 1024 * mib),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(round_size(value), round, "{value}");
        }
        for (value, round) in
            [(0, 5), (5, 5), (6, 10), (11, 20), (21, 50), (999, 1000), (1001, 2000)]
        {
            assert_eq!(round_count(value), round);
        }
        assert_eq!(round_count(u64::MAX), u64::MAX);
    }

    #[test]
    fn marks_are_at_round_times_and_do_not_crowd() {
        let marks = |millis, columns| {
            let marks = marks(Duration::from_millis(millis), columns);
            marks.map(|(column, text)| format!("{column}:{text}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(marks(1000, 30), "10:10s 20:20s");
        assert_eq!(marks(1000, 10), "");
        assert_eq!(marks(100, 25), "10:1s 20:2s");
        assert_eq!(marks(250, 50), "20:5s 40:10s");
        assert_eq!(marks(5000, 30), "12:1m 24:2m");
        assert_eq!(marks(3_600_000, 30), "12:12h 24:1d");
        assert_eq!(marks(86_400_000 * 2, 30), "10:20d 20:40d");
    }
}
