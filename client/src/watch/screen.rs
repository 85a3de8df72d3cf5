//! The live screen: it waits for keys, news, signals and another size, and draws what has changed.

use std::io::{ErrorKind, IsTerminal, stdout};
use std::time::{Duration, Instant};

use metp_protocol::text::Escaped;

use super::feed::{Feed, News};
use super::keyboard::{self, Key};
use super::keys::{Keys, Question, Wish};
use super::picture::Picture;
use super::signals::Signals;
use super::stage::Stage;
use super::view::{View, Where};
use crate::conversation::{Failure, Server};
use crate::locale;
use crate::render;
use crate::terminal::{self, Stops};

/// How long news are waited for before signals have their turn; and how long the screen stays as it is, so
/// that a flood of news is no flood of screens.
const TURN: Duration = Duration::from_millis(50);
/// News that are taken in one turn, so that a flood of them does not keep signals waiting.
const NEWS_PER_TURN: usize = 1024;

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
    let mut picture = Picture::default();
    picture.begin(records);
    let place = Where {
        server: render::endpoint(&server.host, server.port),
        user: Escaped(&server.name).to_string(),
        interval,
        colours: terminal::colours(),
        utf8: locale::is_utf8(),
    };
    let no_screen = |error| Failure::Usage(format!("-w: no use of the terminal: {error}"));
    let signals = Signals::catch().map_err(no_screen)?;
    let keyboard = keyboard::open().map_err(no_screen)?;
    let mut stage = Stage::enter().map_err(no_screen)?;
    feed.listen(keyboard)?;
    let mut desk = Desk { feed, picture, keys: Keys::default(), away: None };
    let ended = desk.run(&mut stage, &signals, &place);
    drop(stage);
    signals.obey();
    ended
}

/// Everything that changes while the screen is on.
struct Desk {
    feed: Feed,
    picture: Picture,
    keys: Keys,
    /// Why the server is away, if it is.
    away: Option<String>,
}

impl Desk {
    fn run(&mut self, stage: &mut Stage, signals: &Signals, place: &Where) -> Result<(), Failure> {
        let mut changed = true;
        let mut drawn = None::<Instant>;
        while !signals.end() {
            if signals.stop() {
                stage.stop(Stops::Alone).map_err(Failure::Output)?;
                changed = true;
            }
            if signals.continued() {
                stage.enter_again().map_err(Failure::Output)?;
                changed = true;
            }
            changed |= signals.resized() | self.keys.forget(Instant::now());
            if changed && drawn.is_none_or(|drawn| drawn.elapsed() >= TURN) {
                let (model, paused) = (self.picture.seen(), self.picture.is_paused());
                let away = self.away.as_deref();
                let view = View { place, model, keys: &self.keys, paused, away };
                stage.terminal.draw(|frame| view.draw(frame)).map_err(Failure::Output)?;
                drawn = Some(Instant::now());
                changed = false;
            }
            match self.take_news()? {
                Turn::Quiet => continue,
                Turn::Changed => {}
                Turn::Anew => stage.forget().map_err(Failure::Output)?,
                Turn::Stop => stage.stop(Stops::WithItsJob).map_err(Failure::Output)?,
                Turn::Quit => break,
            }
            changed = true;
        }
        Ok(())
    }

    fn press(&mut self, key: Key) -> Turn {
        let now = Instant::now();
        let model = self.picture.seen();
        let wish = self.keys.press(key, now, |id| model.find(id).cloned());
        // Nobody can type an id that is somewhere else before it is typed.
        self.picture.hold(matches!(self.keys.question, Question::Which(_) | Question::Sure(_)));
        match wish {
            Wish::Nothing => {}
            Wish::Quit => return Turn::Quit,
            Wish::Stop => return Turn::Stop,
            Wish::Redraw => return Turn::Anew,
            Wish::Pause => self.picture.pause(),
            Wish::Cut(id) => {
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
        let last = self.picture.seen().row_count().saturating_sub(1);
        self.keys.skipped = self.keys.skipped.min(last);
        Turn::Changed
    }

    /// Waits for news for a turn, and takes what there is.
    fn take_news(&mut self) -> Result<Turn, Failure> {
        let Some(first) = self.feed.wait(TURN)? else { return Ok(Turn::Quiet) };
        let mut turn = self.take(first)?;
        for _ in 1..NEWS_PER_TURN {
            match self.feed.next() {
                Some(Some(news)) => turn = turn.max(self.take(news)?),
                // Of sessions that have ended.
                Some(None) => {}
                None => break,
            }
        }
        Ok(turn)
    }

    fn take(&mut self, news: News) -> Result<Turn, Failure> {
        match news {
            News::Look(look, waiting) => {
                self.picture.live.look(look);
                drop(waiting);
            }
            News::Event(event) => self.picture.live.event(event, Instant::now()),
            News::Answer(answer) => self.keys.say(answer, Instant::now()),
            News::Key(key) => return Ok(self.press(key)),
            News::Unplugged => return Err(Failure::Output(ErrorKind::UnexpectedEof.into())),
            News::Over(failure) if self.away.is_some() => return Err(failure),
            News::Over(failure) => {
                let why = failure.to_string();
                self.feed.reach_again(failure)?;
                self.away = Some(why);
            }
            News::Back(back) => {
                self.away = None;
                self.picture.begin(self.feed.take(*back));
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
