//! Draws the screen: header, charts, users and destinations, connections, log, footer. It takes any size; what
//! does not fit is left out.

use std::time::Duration;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::chart::{self, Chart};
use super::dialog::{Dialog, Prompt};
use super::history::Figures;
use super::layout;
use super::model::Model;
use super::news::ServerStatus;
use super::table;
use super::tty;
use crate::units;

/// The least width of a chart; a narrow screen has fewer charts.
const CHART_MIN_WIDTH: u16 = 20;
const PAUSED: &str = " PAUSED ";

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);

/// Settings of a watch, which do not change.
pub struct WatchConfig {
    /// The server, as `HOST:PORT`.
    pub server: String,
    /// The account.
    pub user: String,
    /// The time between two snapshots, which is that of a column of the charts.
    pub interval: Duration,
    /// Whether colours may be used.
    pub colours: bool,
    /// Whether characters beyond ASCII may be used.
    pub utf8: bool,
}

/// Everything that a frame shows.
pub struct ScreenView<'a> {
    pub config: &'a WatchConfig,
    /// The model, live or frozen.
    pub model: &'a Model,
    pub dialog: &'a Dialog,
    /// Whether the user has paused the screen.
    pub paused: bool,
    /// The reason why the server is away, if it is.
    pub away: Option<&'a str>,
}

impl ScreenView<'_> {
    /// Draws the frame.
    pub fn draw(&self, frame: &mut Frame) {
        let [header, body, footer] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)])
                .areas(frame.area());
        let rows = layout::row_heights(body.height);
        let rows = [rows.charts, rows.top, rows.connections, rows.log];
        let [charts, top, connections, log] =
            Layout::vertical(rows.map(Constraint::Length)).areas(body);
        let (users, destinations) = if top.width >= table::TWO_TABLES_WIDTH {
            let halves = Layout::horizontal([Constraint::Fill(1); 2]).spacing(2);
            let [users, destinations] = halves.areas(top);
            (users, destinations)
        } else {
            (top, Rect::ZERO)
        };
        let buffer = frame.buffer_mut();
        self.header(header, buffer);
        self.charts(charts, buffer);
        table::top_entries("USERS", self.model.users(), users, buffer);
        table::top_entries("DESTINATIONS", self.model.destinations(), destinations, buffer);
        // Connections may have closed since they were scrolled off.
        let skipped = self.dialog.skipped.min(self.model.row_count().saturating_sub(1));
        table::connections(self.model.rows(), skipped, connections, buffer);
        table::log(self.model.log(), self.style(Color::Yellow), log, buffer);
        let cursor = self.footer(footer, buffer);
        if self.dialog.prompt == Prompt::Help {
            layout::draw_help(body, buffer);
        }
        if !self.config.utf8 {
            tty::to_ascii(buffer);
        }
        if let Some(position) = cursor {
            frame.set_cursor_position(position);
        }
    }

    fn style(&self, colour: Color) -> Style {
        if self.config.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn header(&self, area: Rect, buffer: &mut Buffer) {
        let paused = if self.paused { PAUSED } else { "" };
        let width = u16::try_from(paused.len()).unwrap_or(u16::MAX).min(area.width);
        let left = Rect { width: area.width.saturating_sub(width), ..area };
        let full = self.state(true);
        let line = if full.width() <= left.width.into() { full } else { self.state(false) };
        line.render(left, buffer);
        let style = BOLD.patch(self.style(Color::Yellow)).add_modifier(Modifier::REVERSED);
        Span::styled(paused, style).render(Rect { x: left.right(), width, ..area }, buffer);
    }

    /// The server and its state. Without `full`, the account and the limit of connections are left out.
    fn state(&self, full: bool) -> Line<'_> {
        let mut line = Line::from(Span::styled(self.config.server.as_str(), BOLD));
        if full {
            line.push_span(format!(" as {}", self.config.user));
        }
        let gap = if full { "   " } else { " " };
        if let Some(why) = self.away {
            let style = self.style(Color::Yellow).patch(BOLD);
            line.push_span(gap);
            line.push_span(Span::styled(format!("{why}; connecting again"), style));
            return line;
        }
        let Some(status) = self.model.status() else {
            line.push_span(format!("{gap}waiting for the server"));
            return line;
        };
        let style = match status.state.as_str() {
            "running" => Style::new(),
            _ => self.style(Color::Yellow).patch(BOLD),
        };
        line.push_span(gap);
        line.push_span(Span::styled(doing(status), style));
        line.push_span(format!("{gap}{}", self.model.connections()));
        line.push_span(match full {
            true => format!(" of {} connections", status.limit),
            false => " open".to_owned(),
        });
        line
    }

    fn charts(&self, area: Rect, buffer: &mut Buffer) {
        let (model, history) = (self.model, self.model.history());
        let current = history.current();
        let octets = |name, pick: fn(&Figures) -> u64, colour| Chart {
            name,
            history,
            now: current.as_ref().map(pick),
            pick,
            interval: self.config.interval,
            round: chart::round_size,
            show: units::rate,
            label: units::round_size,
            style: self.style(colour),
        };
        let charts = [
            octets("UP", |figures| figures.up, Color::Green),
            octets("DOWN", |figures| figures.down, Color::Cyan),
            Chart {
                name: "CONNECTIONS",
                now: model.status().map(|_| model.connections()),
                pick: |figures| figures.connections,
                round: chart::round_count,
                show: |count| count.to_string(),
                label: |count| count.to_string(),
                ..octets("", |figures| figures.connections, Color::Magenta)
            },
        ];
        let count = (area.width / CHART_MIN_WIDTH).clamp(1, 3);
        let columns = vec![Constraint::Fill(1); count.into()];
        let areas = Layout::horizontal(columns).spacing(1).split(area);
        for (chart, area) in charts.into_iter().zip(areas.iter()) {
            chart.render(*area, buffer);
        }
    }

    /// Returns the place of the cursor, if a text is being typed.
    fn footer(&self, area: Rect, buffer: &mut Buffer) -> Option<(u16, u16)> {
        let line = match (&self.dialog.prompt, self.dialog.message()) {
            (Prompt::None, Some(message)) => Line::styled(message, BOLD),
            (Prompt::None | Prompt::Help, _) => self.keys_and_pace(area, buffer),
            (Prompt::KillWhich(typed), _) => {
                let asked = format!("Cut which connection (Esc: none)? {typed}");
                let asked = match asked.len() < area.width.into() {
                    true => asked,
                    false => format!("Cut? {typed}"),
                };
                let end = area.x.saturating_add(u16::try_from(asked.len()).unwrap_or(u16::MAX));
                Line::styled(asked, BOLD).render(area, buffer);
                return Some((end.min(area.right().saturating_sub(1)), area.y));
            }
            (Prompt::ConfirmKill(connection), _) => {
                let asked = format!(
                    "Cut {}: {}, {} -> {}? (y/n)",
                    connection.id, connection.user, connection.source, connection.destination
                );
                let style = BOLD.patch(self.style(Color::Yellow));
                Line::styled(table::fitted(&asked, area.width), style)
            }
        };
        line.render(area, buffer);
        None
    }

    /// The keys, as far as they fit, and the interval if it fits besides.
    fn keys_and_pace(&self, area: Rect, buffer: &mut Buffer) -> Line<'static> {
        let pause = if self.paused { "go on" } else { "pause" };
        let all = [("q", "quit"), ("p", pause), ("k", "cut a connection"), ("?", "keys")];
        let short = [("q", "quit"), ("p", pause), ("k", "cut"), ("?", "keys")];
        let few = [("q", "quit"), ("?", "keys")];
        let line = |keys: &[(&'static str, &'static str)]| {
            let gaps = ["", "   "].into_iter().chain(std::iter::repeat("   "));
            Line::from_iter(keys.iter().zip(gaps).flat_map(|((key, does), gap)| {
                [Span::raw(gap), Span::styled(*key, BOLD), format!(" {does}").into()]
            }))
        };
        let width = usize::from(area.width);
        let lines = [line(&all), line(&short), line(&few)].into_iter();
        let line = lines.clone().find(|line| line.width() <= width).or(lines.last());
        let line = line.unwrap_or_default();
        let pace = format!("every {} s", self.config.interval.as_secs_f64());
        if line.width().saturating_add(3).saturating_add(pace.len()) <= width {
            Line::styled(pace, FAINT).alignment(Alignment::Right).render(area, buffer);
        }
        line
    }
}

/// The state of the server with its uptime, or with the time left: `running 3m05s`, `closing, 4s left`.
fn doing(status: &ServerStatus) -> String {
    let state = &status.state;
    match status.closing_in {
        _ if state == "running" => format!("{state} {}", units::age(status.uptime)),
        Some(left) => format!("{state}, {} left", units::left(left)),
        None => state.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Instant;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::limits::UserLimits;
    use super::super::news::{Bytes, ConnectionInfo, LogLine, ServerStatus, Snapshot};
    use super::*;

    fn model() -> Model {
        let mut model = Model::default();
        let start = Instant::now();
        for second in 0..70_u64 {
            let connection = |slot: u64| {
                let up = slot * 1000 * (second + 1);
                ConnectionInfo::parse(&format!(
                    "id={slot}.1 user=user{slot} source=127.0.0.1:{slot} destination=host{slot}.example:443 \
                     state=relay age={second}.000 up={up} down={up}"
                ))
            };
            model.apply_snapshot(Snapshot {
                at: start + Duration::from_secs(second),
                connections: second,
                bytes: Bytes { up: second * second * 1000, down: second * 5000 },
                status: ServerStatus {
                    state: "running".into(),
                    uptime: Duration::from_secs(second),
                    limit: 480,
                    closing_in: None,
                },
                list: (1..=second.min(30)).map(connection).collect(),
                limits: HashMap::default(),
            });
            model.add_log_line(LogLine {
                outcome: format!("line {second}"),
                warns: second.is_multiple_of(2),
                ..LogLine::default()
            });
        }
        model
    }

    fn drawn(model: &Model, prompt: Prompt, width: u16, height: u16) -> String {
        drawn_while(None, model, prompt, width, height)
    }

    fn drawn_while(
        away: Option<&str>,
        model: &Model,
        prompt: Prompt,
        width: u16,
        height: u16,
    ) -> String {
        let config = WatchConfig {
            server: "127.0.0.1:8080".into(),
            user: "admin".into(),
            interval: Duration::from_secs(1),
            colours: true,
            utf8: true,
        };
        let mut dialog = Dialog::default();
        dialog.prompt = prompt;
        let view = ScreenView { config: &config, model, dialog: &dialog, paused: true, away };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_is_there() {
        for (width, height) in [(80, 24), (200, 50), (132, 43)] {
            let screen = drawn(&model(), Prompt::None, width, height);
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
                "q quit   p go on   k cut a connection   ? keys",
                "every 1 s",
            ] {
                assert!(screen.contains(part), "{part} at {width}x{height}:\n{screen}");
            }
            // Its times are local.
            assert!(screen.contains("ACCESS LOG  ") && !screen.contains(" UTC"), "{screen}");
        }
    }

    #[test]
    fn users_have_bars_of_their_limits() {
        let mut model = Model::default();
        let start = Instant::now();
        let line = "user=amy quota=1GB/day quota-used=999999999 rate=8kbit";
        for second in 0..2_u64 {
            let connection =
                format!("id=1.1 user=amy state=relay age=9.000 up={} down=0", second * 500);
            model.apply_snapshot(Snapshot {
                at: start + Duration::from_secs(second),
                connections: 1,
                bytes: Bytes { up: second * 500, down: 0 },
                status: ServerStatus::default(),
                list: vec![ConnectionInfo::parse(&connection)],
                limits: HashMap::from([("amy".to_owned(), UserLimits::parse(line))]),
            });
        }
        let screen = drawn(&model, Prompt::None, 80, 24);
        assert!(screen.contains(" RATE  QUOTA"), "{screen}");
        assert!(screen.contains("500 B        - ██░░░ ████░"), "{screen}");
        assert!(!drawn(&self::model(), Prompt::None, 80, 24).contains("QUOTA"));
    }

    #[test]
    fn the_header_says_that_the_server_is_away_and_the_tables_stay() {
        let away = Some("the server is closing down");
        let screen = drawn_while(away, &model(), Prompt::None, 100, 24);
        let header = "127.0.0.1:8080 as admin   the server is closing down; connecting again";
        assert!(screen.contains(header), "{screen}");
        assert!(!screen.contains("running") && screen.contains("user30"), "{screen}");
        let narrow = drawn_while(Some("The connection was lost"), &model(), Prompt::None, 70, 24);
        let header = "127.0.0.1:8080 The connection was lost; connecting again";
        assert!(narrow.contains(header), "{narrow}");
    }

    #[test]
    fn the_state_has_the_uptime_or_the_time_left() {
        let mut status = ServerStatus {
            state: "running".into(),
            uptime: Duration::from_secs(517),
            closing_in: Some(Duration::from_millis(3250)),
            ..ServerStatus::default()
        };
        assert_eq!(doing(&status), "running 8m37s");
        status.state = "closing".into();
        assert_eq!(doing(&status), "closing, 4s left");
        status.closing_in = None;
        assert_eq!(doing(&status), "closing");
    }

    #[test]
    fn names_and_rates_stay_on_a_small_screen() {
        for (width, height) in [(50, 20), (40, 10), (30, 10)] {
            let screen = drawn(&model(), Prompt::None, width, height);
            for part in ["UP 134 KiB/s", "USERS", "user30", "ID ", "30.1 ", "29.3 KiB"] {
                assert!(screen.contains(part), "{part} at {width}x{height}:\n{screen}");
            }
            assert!(!screen.contains("DESTINATIONS"), "{width}x{height}:\n{screen}");
            assert!(width == 30 || !screen.contains("every"), "{width}x{height}:\n{screen}");
        }
        let screen = drawn(&model(), Prompt::None, 20, 4);
        assert!(screen.contains("30.1 "), "{screen}");
    }

    #[test]
    fn no_size_is_too_small() {
        let (model, empty) = (model(), Model::default());
        let connection = Box::new(model.find("1.1").unwrap().clone());
        for width in [1, 2, 5, 11, 20, 33, 47, 61] {
            for height in [1, 2, 3, 5, 8, 13] {
                for prompt in [
                    Prompt::None,
                    Prompt::Help,
                    Prompt::KillWhich("1.1".into()),
                    Prompt::ConfirmKill(connection.clone()),
                ] {
                    drawn(&model, prompt.clone(), width, height);
                    drawn(&empty, prompt, width, height);
                }
            }
        }
    }
}
