//! The live screen: it waits for keys, news, signals and another size, and draws what has changed.

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

/// How long news are waited for before signals have their turn; and how long the screen stays as it is, so
/// that a flood of news is no flood of screens.
const FRAME_TIME: Duration = Duration::from_millis(50);
/// Update that are taken in one turn, so that a flood of them does not keep signals waiting.
const UPDATES_PER_TURN: usize = 1024;

/// Whether standard output is a terminal that can show it. One of which nothing is known can show lines.
pub fn has_screen() -> bool {
    let kind = std::env::var_os("TERM").unwrap_or_default();
    stdout().is_terminal() && !kind.is_empty() && kind != "dumb"
}

/// Shows the server until somebody presses `q`.
///
/// # Errors
/// If the server cannot be watched, when it ends, or if the terminal fails.
pub fn screen(server: &Server, interval: Duration) -> Result<(), Failure> {
    let (feed, records) = Feed::open(server, interval)?;
    let mut freeze = Freeze::default();
    freeze.begin(records);
    let place = WatchConfig {
        server: render::endpoint(&server.host, server.port),
        user: Escaped(&server.name).to_string(),
        interval,
        colours: terminal::colours(),
        utf8: locale::is_utf8(),
    };
    let no_screen = |error| Failure::Usage(format!("-w: no use of the terminal: {error}"));
    let signals = Signals::catch().map_err(no_screen)?;
    let keyboard = input::open_terminal().map_err(no_screen)?;
    let mut terminal_guard = TerminalGuard::enter().map_err(no_screen)?;
    feed.listen(keyboard)?;
    let mut app = App { feed, freeze, keys: Dialog::default(), away: None };
    let ended = app.run(&mut terminal_guard, &signals, &place);
    drop(terminal_guard);
    signals.obey();
    ended
}

/// Everything that changes while the screen is on.
struct App {
    feed: Feed,
    freeze: Freeze,
    keys: Dialog,
    /// Why the server is away, if it is.
    away: Option<String>,
}

impl App {
    fn run(
        &mut self,
        terminal_guard: &mut TerminalGuard,
        signals: &Signals,
        place: &WatchConfig,
    ) -> Result<(), Failure> {
        let mut changed = true;
        let mut drawn = None::<Instant>;
        while !signals.end() {
            if signals.stop() {
                terminal_guard.stop(StopTarget::Process).map_err(Failure::Output)?;
                changed = true;
            }
            if signals.continued() {
                terminal_guard.enter_again().map_err(Failure::Output)?;
                changed = true;
            }
            changed |= signals.resized() | self.keys.forget(Instant::now());
            if changed && drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME_TIME) {
                let (model, paused) = (self.freeze.seen(), self.freeze.is_paused());
                let away = self.away.as_deref();
                let view = ScreenView { place, model, keys: &self.keys, paused, away };
                terminal_guard.terminal.draw(|frame| view.draw(frame)).map_err(Failure::Output)?;
                drawn = Some(Instant::now());
                changed = false;
            }
            match self.take_news()? {
                Turn::Quiet => continue,
                Turn::Changed => {}
                Turn::Anew => terminal_guard.forget().map_err(Failure::Output)?,
                Turn::Stop => terminal_guard.stop(StopTarget::Job).map_err(Failure::Output)?,
                Turn::Quit => break,
            }
            changed = true;
        }
        Ok(())
    }

    fn press(&mut self, key: KeyPress) -> Turn {
        let now = Instant::now();
        let model = self.freeze.seen();
        let action = self.keys.press(key, now, |id| model.find(id).cloned());
        // Nobody can type an id that is somewhere else before it is typed.
        self.freeze.hold(matches!(self.keys.prompt, Prompt::Which(_) | Prompt::Sure(_)));
        match action {
            Action::Nothing => {}
            Action::Quit => return Turn::Quit,
            Action::Stop => return Turn::Stop,
            Action::Redraw => return Turn::Anew,
            Action::Pause => self.freeze.pause(),
            Action::Cut(id) => {
                let text = if self.feed.cut(id) {
                    format!("Cutting {id} ...")
                } else if self.away.is_some() {
                    "The server is away".to_owned()
                } else {
                    "The server has not answered yet".to_owned()
                };
                self.keys.say(text, now);
            }
        }
        let last = self.freeze.seen().row_count().saturating_sub(1);
        self.keys.skipped = self.keys.skipped.min(last);
        Turn::Changed
    }

    /// Waits for news for a turn, and takes what there is.
    fn take_news(&mut self) -> Result<Turn, Failure> {
        let Some(first) = self.feed.wait(FRAME_TIME)? else { return Ok(Turn::Quiet) };
        let mut turn = self.take(first)?;
        for _ in 1..UPDATES_PER_TURN {
            match self.feed.next() {
                Some(Some(news)) => turn = turn.max(self.take(news)?),
                // Of sessions that have ended.
                Some(None) => {}
                None => break,
            }
        }
        Ok(turn)
    }

    fn take(&mut self, news: Update) -> Result<Turn, Failure> {
        match news {
            Update::Snapshot(look, waiting) => {
                self.freeze.live.look(look);
                drop(waiting);
            }
            Update::Event(event) => self.freeze.live.event(event, Instant::now()),
            Update::KillResult(answer) => self.keys.say(answer, Instant::now()),
            Update::Key(key) => return Ok(self.press(key)),
            Update::TerminalGone => return Err(Failure::Output(ErrorKind::UnexpectedEof.into())),
            Update::Ended(failure) if self.away.is_some() => return Err(failure),
            Update::Ended(failure) => {
                let why = failure.to_string();
                self.feed.reach_again(failure)?;
                self.away = Some(why);
            }
            Update::Reconnected(back) => {
                self.away = None;
                self.freeze.begin(self.feed.take(*back));
                self.keys.say("Connected again".to_owned(), Instant::now());
            }
        }
        Ok(Turn::Changed)
    }
}

/// What a turn came to; of several, the greatest counts.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// Nothing new.
    Quiet,
    /// There is something to be drawn.
    Changed,
    /// All is to be drawn, whatever the terminal shows.
    Anew,
    /// The program is to stop until it is continued.
    Stop,
    /// Somebody has seen enough.
    Quit,
}
