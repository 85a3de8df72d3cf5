//! What is seen of what is known: it stands still while somebody has asked for that, or looks for a connection in
//! it. What is known goes on.

use super::model::Model;
use super::news::LogLine;

/// What is known, and what is seen of it.
#[derive(Debug, Default)]
pub struct Freeze {
    /// What is known.
    pub live: Model,
    /// What is seen while it stands still.
    still: Option<Box<Model>>,
    paused: bool,
    held: bool,
}

impl Freeze {
    /// Forgets what is known, but for these lines of the log: the server is another one, or has just been reached.
    pub fn begin(&mut self, log: Vec<LogLine>) {
        self.live = Model::default();
        log.into_iter().for_each(|line| self.live.log_line(line));
    }

    /// What is seen.
    pub fn seen(&self) -> &Model {
        self.still.as_deref().unwrap_or(&self.live)
    }

    /// Whether somebody has asked for a pause.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Begins a pause, or ends it.
    pub fn pause(&mut self) {
        self.paused = !self.paused;
        self.stand();
    }

    /// Has it stand still, or not any more, whether there is a pause or not.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
        self.stand();
    }

    fn stand(&mut self) {
        if !self.paused && !self.held {
            self.still = None;
        } else if self.still.is_none() {
            self.still = Some(Box::new(self.live.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_as_long_as_anything_wants_it_to() {
        let mut freeze = Freeze::default();
        let grow = |freeze: &mut Freeze| {
            freeze.live.log_line(LogLine::default());
            freeze.seen().log().count()
        };
        assert_eq!(grow(&mut freeze), 1);
        freeze.hold(true);
        assert_eq!(grow(&mut freeze), 1);
        freeze.hold(false);
        assert_eq!(grow(&mut freeze), 3);
        freeze.pause();
        assert_eq!(grow(&mut freeze), 3);
        freeze.hold(true);
        assert_eq!(grow(&mut freeze), 3);
        freeze.hold(false);
        assert_eq!((grow(&mut freeze), freeze.is_paused()), (3, true));
        freeze.hold(true);
        freeze.pause();
        assert_eq!(grow(&mut freeze), 3);
        freeze.hold(false);
        assert_eq!((grow(&mut freeze), freeze.is_paused()), (8, false));
    }
}
