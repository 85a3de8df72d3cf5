//! The live screen: it waits for keys, news, signals and another size, and draws what has changed. However it
//! ends, the terminal is left as it was found.

use std::env;
use std::io::{self, ErrorKind};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::{flag, low_level};

use socks5d::proto::text::Escaped;

use super::feed::{Feed, News};
use super::keyboard::{self, Key};
use super::keys::{Keys, Wish};
use super::model::Model;
use super::view::{View, Where};
use crate::conversation::{Failure, Server};
use crate::render;

/// How long news are waited for before signals have their turn; and how long the screen stays as it is, so
/// that a flood of news is no flood of screens.
const TURN: Duration = Duration::from_millis(50);
/// News that are taken in one turn, so that a flood of them does not keep signals waiting.
const NEWS_PER_TURN: usize = 1024;

/// Shows the server until somebody presses `q`.
///
/// # Errors
/// If the server cannot be watched, when it ends, or if the terminal fails.
pub fn screen(server: &Server, interval: Duration) -> Result<(), Failure> {
    let (feed, records) = Feed::open(server, interval)?;
    let mut model = Model::default();
    for record in records {
        model.log_line(record);
    }
    let place = Where {
        server: render::endpoint(&server.host, server.port),
        user: Escaped(&server.name).to_string(),
        interval,
        colours: colours(),
    };
    let no_screen = |error| Failure::Usage(format!("--watch: no use of the terminal: {error}"));
    let signals = Signals::catch().map_err(no_screen)?;
    let keyboard = keyboard::open().map_err(no_screen)?;
    let mut stage = Stage::enter().map_err(no_screen)?;
    feed.listen(keyboard)?;
    let mut desk = Desk { feed, model, frozen: None, keys: Keys::default() };
    let ended = desk.run(&mut stage.terminal, &signals, &place);
    drop(stage);
    signals.obey();
    ended
}

/// <https://no-color.org>
fn colours() -> bool {
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !plain && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Everything that changes while the screen is on.
struct Desk {
    feed: Feed,
    model: Model,
    /// What is shown while the screen stands still.
    frozen: Option<Box<Model>>,
    keys: Keys,
}

impl Desk {
    fn run(
        &mut self,
        terminal: &mut DefaultTerminal,
        signals: &Signals,
        place: &Where,
    ) -> Result<(), Failure> {
        let mut changed = true;
        let mut drawn = None::<Instant>;
        while !signals.caught() {
            changed |= signals.resized();
            if changed && drawn.is_none_or(|drawn| drawn.elapsed() >= TURN) {
                let model = self.frozen.as_deref().unwrap_or(&self.model);
                let paused = self.frozen.is_some();
                let view = View { place, model, keys: &self.keys, paused };
                terminal.draw(|frame| view.draw(frame)).map_err(Failure::Output)?;
                drawn = Some(Instant::now());
                changed = false;
            }
            match self.take_news()? {
                Turn::Quiet => {}
                Turn::Changed => changed = true,
                Turn::Quit => break,
            }
        }
        Ok(())
    }

    /// Takes a key. Returns whether that is the end.
    fn press(&mut self, key: Key) -> bool {
        let model = self.frozen.as_deref().unwrap_or(&self.model);
        match self.keys.press(key, |id| model.find(id).cloned()) {
            Wish::Nothing => {}
            Wish::Quit => return true,
            Wish::Pause => {
                self.frozen = match self.frozen.take() {
                    None => Some(Box::new(self.model.clone())),
                    Some(_) => None,
                };
            }
            Wish::Kill(id) => {
                self.keys.message = if self.feed.kill(id) {
                    format!("KILL {id} ...")
                } else {
                    "The server has not answered yet".to_owned()
                };
            }
        }
        false
    }

    /// Waits for news for a turn, and takes what there is.
    fn take_news(&mut self) -> Result<Turn, Failure> {
        let first = match self.feed.news.recv_timeout(TURN) {
            Ok(news) => news,
            Err(_) if !self.feed.is_over() => return Ok(Turn::Quiet),
            // Its last words come before its end.
            Err(_) => self.feed.news.try_recv().unwrap_or_else(|_| {
                News::Over(Failure::Broken("The watch has broken off".to_owned()))
            }),
        };
        let mut quit = self.take(first)?;
        for _ in 1..NEWS_PER_TURN {
            let Ok(news) = self.feed.news.try_recv() else { break };
            quit |= self.take(news)?;
        }
        Ok(if quit { Turn::Quit } else { Turn::Changed })
    }

    /// Takes one of the news. Returns whether that is the end.
    fn take(&mut self, news: News) -> Result<bool, Failure> {
        match news {
            News::Look(look) => self.model.look(look),
            News::Event(event) => self.model.event(event, Instant::now()),
            News::Answer(answer) => self.keys.message = answer,
            News::Key(key) => return Ok(self.press(key)),
            News::Unplugged => return Err(Failure::Output(ErrorKind::UnexpectedEof.into())),
            News::Over(failure) => return Err(failure),
        }
        Ok(false)
    }
}

/// What a turn came to.
enum Turn {
    /// Nothing new.
    Quiet,
    /// The screen is to be drawn anew.
    Changed,
    /// Somebody has seen enough.
    Quit,
}

/// The terminal while it shows the screen. Its own destructor is not run: it panics when the terminal is gone
/// and nobody can be told.
struct Stage {
    terminal: ManuallyDrop<DefaultTerminal>,
}

impl Stage {
    fn enter() -> io::Result<Self> {
        let entered = ratatui::try_init();
        if entered.is_err() {
            // It may have got half of the way.
            let _ = ratatui::try_restore();
        }
        Ok(Stage { terminal: ManuallyDrop::new(entered?) })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // There is nobody left to tell if this fails: the terminal may be gone.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// The signals that ask for the end, which act only after the terminal has been restored; and the one that
/// tells of another size.
struct Signals {
    end: Arc<AtomicUsize>,
    resized: Arc<AtomicBool>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let signals = Signals { end: Arc::default(), resized: Arc::default() };
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            let number = usize::try_from(signal).unwrap_or(0);
            flag::register_usize(signal, Arc::clone(&signals.end), number)?;
        }
        flag::register(SIGWINCH, Arc::clone(&signals.resized))?;
        Ok(signals)
    }

    fn caught(&self) -> bool {
        self.end.load(Ordering::Relaxed) != 0
    }

    /// Whether the terminal has got another size since this was asked last.
    fn resized(&self) -> bool {
        self.resized.swap(false, Ordering::Relaxed)
    }

    /// Ends the program by the signal that was caught, as if it had not been.
    fn obey(&self) {
        if let Ok(signal @ 1..) = i32::try_from(self.end.load(Ordering::Relaxed)) {
            // The program ends by itself if this does not end it.
            let _ = low_level::emulate_default_handler(signal);
        }
    }
}
