//! The loop of the live screen: waits for keys, updates, signals and changes of size, and draws what has
//! changed.

use std::io::{ErrorKind, IsTerminal, stdout};
use std::time::{Duration, Instant};

use metp_protocol::text::Escaped;

use super::dialog::{Action, Dialog, Prompt};
use super::feed::{Feed, Update};
use super::input::{self, KeyPress, Signals};
use super::model::Freeze;
use super::tty::TerminalGuard;
use super::view::{ScreenView, WatchConfig};
use crate::failure::Failure;
use crate::locale;
use crate::render;
use crate::session::Server;
use crate::terminal::{self, StopTarget};

/// How long the loop waits for an update before it looks at signals; and the least time between two frames, so
/// that a flood of updates is no flood of output.
const FRAME_TIME: Duration = Duration::from_millis(50);
/// Updates that are applied before the loop looks at signals again.
const UPDATES_PER_TURN: usize = 1024;

/// Whether standard output is a terminal that can show the screen. Without a known `TERM`, lines are printed
/// instead.
pub fn has_screen() -> bool {
    let kind = std::env::var_os("TERM").unwrap_or_default();
    stdout().is_terminal() && !kind.is_empty() && kind != "dumb"
}

/// Shows the server until `q` is pressed.
///
/// # Errors
/// If the server cannot be watched, the sessions end and cannot be renewed, or the terminal fails.
pub fn screen(server: &Server, interval: Duration) -> Result<(), Failure> {
    let (feed, records) = Feed::open(server, interval)?;
    let mut freeze = Freeze::default();
    freeze.reset(records);
    let config = WatchConfig {
        server: render::endpoint(&server.host, server.port),
        user: Escaped(&server.name).to_string(),
        interval,
        colours: terminal::colours(),
        utf8: locale::is_utf8(),
    };
    let no_screen = |error| Failure::Usage(format!("-w: cannot use the terminal: {error}"));
    let signals = Signals::catch().map_err(no_screen)?;
    let keyboard = input::open_terminal().map_err(no_screen)?;
    let mut guard = TerminalGuard::enter().map_err(no_screen)?;
    feed.read_keys(keyboard)?;
    let mut app = App { feed, freeze, dialog: Dialog::default(), away: None };
    let ended = app.run(&mut guard, &signals, &config);
    drop(guard);
    signals.raise();
    ended
}

/// The state of the live screen.
struct App {
    feed: Feed,
    freeze: Freeze,
    dialog: Dialog,
    /// Why the server is away, if it is.
    away: Option<String>,
}

impl App {
    fn run(
        &mut self,
        guard: &mut TerminalGuard,
        signals: &Signals,
        config: &WatchConfig,
    ) -> Result<(), Failure> {
        let mut changed = true;
        let mut drawn = None::<Instant>;
        while !signals.end_requested() {
            if signals.stop_requested() {
                guard.stop(StopTarget::Process).map_err(Failure::Output)?;
                changed = true;
            }
            if signals.continued() {
                guard.enter_again().map_err(Failure::Output)?;
                changed = true;
            }
            changed |= signals.resized() | self.dialog.forget(Instant::now());
            if changed && drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME_TIME) {
                let (model, paused) = (self.freeze.shown(), self.freeze.is_paused());
                let away = self.away.as_deref();
                let view = ScreenView { config, model, dialog: &self.dialog, paused, away };
                guard.terminal.draw(|frame| view.draw(frame)).map_err(Failure::Output)?;
                drawn = Some(Instant::now());
                changed = false;
            }
            match self.take_updates()? {
                Turn::Quiet => continue,
                Turn::Changed => {}
                Turn::Anew => guard.invalidate().map_err(Failure::Output)?,
                Turn::Stop => guard.stop(StopTarget::Job).map_err(Failure::Output)?,
                Turn::Quit => break,
            }
            changed = true;
        }
        Ok(())
    }

    fn press(&mut self, key: KeyPress) -> Turn {
        let now = Instant::now();
        let model = self.freeze.shown();
        let action = self.dialog.press(key, now, |id| model.find(id).cloned());
        // The rows must not move while an id is being read and typed.
        self.freeze
            .hold(matches!(self.dialog.prompt, Prompt::KillWhich(_) | Prompt::ConfirmKill(_)));
        match action {
            Action::Nothing => {}
            Action::Quit => return Turn::Quit,
            Action::Suspend => return Turn::Stop,
            Action::Redraw => return Turn::Anew,
            Action::Pause => self.freeze.toggle_pause(),
            Action::Kill(id) => {
                let text = if self.feed.kill(id) {
                    format!("Cutting {id} ...")
                } else if self.away.is_some() {
                    "The server is away".to_owned()
                } else {
                    "The server has not answered yet".to_owned()
                };
                self.dialog.say(text, now);
            }
        }
        let last = self.freeze.shown().row_count().saturating_sub(1);
        self.dialog.skipped = self.dialog.skipped.min(last);
        Turn::Changed
    }

    /// Waits for an update, and applies all that are in the queue.
    fn take_updates(&mut self) -> Result<Turn, Failure> {
        let Some(first) = self.feed.wait(FRAME_TIME)? else { return Ok(Turn::Quiet) };
        let mut turn = self.apply(first)?;
        for _ in 1..UPDATES_PER_TURN {
            match self.feed.next() {
                Some(Some(update)) => turn = turn.max(self.apply(update)?),
                // An update of ended sessions.
                Some(None) => {}
                None => break,
            }
        }
        Ok(turn)
    }

    fn apply(&mut self, update: Update) -> Result<Turn, Failure> {
        match update {
            Update::Snapshot(snapshot, permit) => {
                self.freeze.live.apply_snapshot(snapshot);
                drop(permit);
            }
            Update::Event(event) => self.freeze.live.apply_event(event, Instant::now()),
            Update::KillResult(answer) => self.dialog.say(answer, Instant::now()),
            Update::Key(key) => return Ok(self.press(key)),
            Update::TerminalGone => return Err(Failure::Output(ErrorKind::UnexpectedEof.into())),
            Update::Ended(failure) if self.away.is_some() => return Err(failure),
            Update::Ended(failure) => {
                let why = failure.to_string();
                self.feed.reconnect(failure)?;
                self.away = Some(why);
            }
            Update::Reconnected(back) => {
                self.away = None;
                self.freeze.reset(self.feed.resume(*back));
                self.dialog.say("Connected again".to_owned(), Instant::now());
            }
        }
        Ok(Turn::Changed)
    }
}

/// What an update asks for; of several, the greatest counts.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// Nothing has come.
    Quiet,
    /// Draw what has changed.
    Changed,
    /// Draw the whole screen, whatever the terminal shows.
    Anew,
    /// Stop the program until it is continued.
    Stop,
    /// End the program.
    Quit,
}
