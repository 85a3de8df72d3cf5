//! How it looks: header, plots, users and destinations, connections, log, footer. Draws what it is given, at
//! any size; what finds no room is left out.

use std::time::Duration;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::history::Figures;
use super::keys::{Keys, Question};
use super::model::Model;
use super::plot::Plot;
use super::scale;
use super::table;
use crate::units;

/// Rows that the plots take, at least and at most.
const PLOT_ROWS: (u16, u16) = (7, 16);
/// Columns that a plot takes at least; a narrow screen has fewer plots.
const PLOT_COLUMNS: u16 = 20;
const PAUSED: &str = " PAUSED ";

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);

/// What is watched, and how; it does not change.
pub struct Where {
    /// The server's address.
    pub server: String,
    /// The account.
    pub user: String,
    /// What a column of the plots stands for.
    pub interval: Duration,
    /// Whether there are to be colours.
    pub colours: bool,
}

/// All that is drawn.
pub struct View<'a> {
    /// What is watched.
    pub place: &'a Where,
    /// What is known of it.
    pub model: &'a Model,
    /// The dialogue.
    pub keys: &'a Keys,
    /// Whether the screen stands still.
    pub paused: bool,
}

impl View<'_> {
    /// Draws it.
    pub fn draw(&self, frame: &mut Frame) {
        let [header, body, footer] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)])
                .areas(frame.area());
        let (least, most) = PLOT_ROWS;
        let plots = (body.height.saturating_mul(3) / 8).clamp(least, most);
        let rows =
            [Constraint::Max(plots), Constraint::Fill(3), Constraint::Fill(4), Constraint::Fill(3)];
        let [plots, parties, connections, log] = Layout::vertical(rows).areas(body);
        let halves = Layout::horizontal([Constraint::Fill(1); 2]).spacing(2);
        let [users, destinations] = halves.areas(parties);
        let buffer = frame.buffer_mut();
        self.header(header, buffer);
        self.plots(plots, buffer);
        table::parties("USERS", self.model.users(), users, buffer);
        table::parties("DESTINATIONS", self.model.destinations(), destinations, buffer);
        table::connections(self.model.rows(), connections, buffer);
        table::log(self.model.log(), self.style(Color::Yellow), log, buffer);
        if let Some(position) = self.footer(footer, buffer) {
            frame.set_cursor_position(position);
        }
    }

    fn style(&self, colour: Color) -> Style {
        if self.place.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn header(&self, area: Rect, buffer: &mut Buffer) {
        let place = self.place;
        let mut line = Line::from_iter([
            Span::styled(place.server.as_str(), BOLD),
            format!(" as {}", place.user).into(),
        ]);
        match self.model.condition() {
            None => line.push_span("   waiting for the server"),
            Some(condition) => {
                let style = match condition.state.as_str() {
                    "running" => Style::new(),
                    _ => self.style(Color::Yellow).patch(BOLD),
                };
                line.push_span("   ");
                line.push_span(Span::styled(condition.state.clone(), style));
                line.push_span(format!(
                    " {}   {} of {} connections",
                    units::age(condition.uptime),
                    self.model.connections(),
                    condition.limit
                ));
            }
        }
        line.render(area, buffer);
        if self.paused {
            let style = BOLD.patch(self.style(Color::Yellow)).add_modifier(Modifier::REVERSED);
            let width = u16::try_from(PAUSED.len()).unwrap_or(u16::MAX).min(area.width);
            let place = Rect { x: area.right().saturating_sub(width), width, ..area };
            Span::styled(PAUSED, style).render(place, buffer);
        }
    }

    fn plots(&self, area: Rect, buffer: &mut Buffer) {
        let (model, history) = (self.model, self.model.history());
        let current = history.current();
        let octets = |name, pick: fn(&Figures) -> u64, colour| Plot {
            name,
            history,
            now: current.as_ref().map(pick),
            pick,
            interval: self.place.interval,
            round: scale::round_size,
            show: units::rate,
            label: units::round_size,
            style: self.style(colour),
        };
        let plots = [
            octets("UP", |figures| figures.up, Color::Green),
            octets("DOWN", |figures| figures.down, Color::Cyan),
            Plot {
                name: "CONNECTIONS",
                now: model.condition().map(|_| model.connections()),
                pick: |figures| figures.connections,
                round: scale::round_count,
                show: |count| count.to_string(),
                label: |count| count.to_string(),
                ..octets("", |figures| figures.connections, Color::Magenta)
            },
        ];
        let count = (area.width / PLOT_COLUMNS).clamp(1, 3);
        let columns = vec![Constraint::Fill(1); count.into()];
        let areas = Layout::horizontal(columns).spacing(1).split(area);
        for (plot, area) in plots.into_iter().zip(areas.iter()) {
            plot.render(*area, buffer);
        }
    }

    /// Returns where the cursor belongs, if something is to be typed.
    fn footer(&self, area: Rect, buffer: &mut Buffer) -> Option<(u16, u16)> {
        let line = match &self.keys.question {
            Question::None if self.keys.message.is_empty() => {
                let pace = format!("every {} s", self.place.interval.as_secs_f64());
                Line::styled(pace, FAINT).alignment(Alignment::Right).render(area, buffer);
                let pause = if self.paused { " go on   " } else { " pause   " };
                let keys = [("q", " quit   "), ("p", pause), ("k", " kill a connection ")];
                Line::from_iter(
                    keys.iter()
                        .flat_map(|(key, does)| [Span::styled(*key, BOLD), Span::raw(*does)]),
                )
            }
            Question::None => Line::styled(self.keys.message.clone(), BOLD),
            Question::Which(typed) => {
                let asked = format!("Kill which connection (Esc: none)? {typed}");
                let end = area.x.saturating_add(u16::try_from(asked.len()).unwrap_or(u16::MAX));
                Line::styled(asked, BOLD).render(area, buffer);
                return Some((end.min(area.right().saturating_sub(1)), area.y));
            }
            Question::Sure(connection) => {
                let asked = format!(
                    "Kill {}: {}, {} -> {}? (y/n)",
                    connection.id, connection.user, connection.source, connection.destination
                );
                let style = BOLD.patch(self.style(Color::Yellow));
                Line::styled(table::fitted(&asked, area.width), style)
            }
        };
        line.render(area, buffer);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::news::{Bytes, Condition, Connection, LogLine, Look};
    use super::*;

    fn model() -> Model {
        let mut model = Model::default();
        let start = Instant::now();
        for second in 0..70_u64 {
            let connection = |slot: u64| {
                let up = slot * 1000 * (second + 1);
                Connection::parse(&format!(
                    "id={slot}.1 user=user{slot} source=127.0.0.1:{slot} destination=host{slot}.example:443 \
                     state=relay age={second}.000 up={up} down={up}"
                ))
            };
            model.look(Look {
                at: start + Duration::from_secs(second),
                connections: second,
                bytes: Bytes { up: second * second * 1000, down: second * 5000 },
                condition: Condition {
                    state: "running".into(),
                    uptime: Duration::from_secs(second),
                    limit: 480,
                },
                list: (1..=second.min(30)).map(connection).collect(),
            });
            model.log_line(LogLine {
                outcome: format!("line {second}"),
                warns: second.is_multiple_of(2),
                ..LogLine::default()
            });
        }
        model
    }

    fn drawn(model: &Model, question: Question, width: u16, height: u16) -> String {
        let place = Where {
            server: "127.0.0.1:8080".into(),
            user: "admin".into(),
            interval: Duration::from_secs(1),
            colours: true,
        };
        let keys = Keys { question, ..Keys::default() };
        let view = View { place: &place, model, keys: &keys, paused: true };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_is_there() {
        for (width, height) in [(80, 24), (200, 50), (132, 43)] {
            let screen = drawn(&model(), Question::None, width, height);
            for part in [
                "127.0.0.1:8080 as admin   running 1m09s   69 of 480 connections",
                " PAUSED ",
                "UP 134 KiB/s",
                "DOWN 4.9 KiB/s",
                "CONNECTIONS 69",
                "peak 134 KiB/s",
                "peak 69",
                "200 KiB┤",
                "100┤",
                "0└",
                "┴10s─",
                "now",
                "USERS",
                "user30",
                "DESTINATIONS",
                "host30.example:443",
                "30.1",
                "29.1",
                "line 69",
                "q quit   p go on   k kill a connection",
                "every 1 s",
            ] {
                assert!(screen.contains(part), "{part} at {width}x{height}:\n{screen}");
            }
        }
    }

    #[test]
    fn no_size_is_too_small() {
        let (model, empty) = (model(), Model::default());
        let connection = Box::new(model.find("1.1").unwrap().clone());
        for width in [1, 2, 5, 11, 20, 33, 47, 61] {
            for height in [1, 2, 3, 5, 8, 13] {
                for question in [
                    Question::None,
                    Question::Which("1.1".into()),
                    Question::Sure(connection.clone()),
                ] {
                    drawn(&model, question.clone(), width, height);
                    drawn(&empty, question, width, height);
                }
            }
        }
    }
}
