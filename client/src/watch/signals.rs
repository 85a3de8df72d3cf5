//! Signals as flags. Those that ask for the end act only after the terminal has been restored, and so does the
//! one that stops the program; the others tell that the screen is to be drawn anew.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::{flag, low_level};

/// What has been caught.
pub struct Signals {
    end: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    continued: Arc<AtomicBool>,
    resized: Arc<AtomicBool>,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn catch() -> io::Result<Self> {
        let signals = Signals {
            end: Arc::default(),
            stop: Arc::default(),
            continued: Arc::default(),
            resized: Arc::default(),
        };
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            // WatchConfig nobody reads the terminal, drawing waits for ever: who asks twice is not kept waiting.
            flag::register_conditional_default(signal, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
            let number = usize::try_from(signal).unwrap_or(0);
            flag::register_usize(signal, Arc::clone(&signals.end), number)?;
        }
        flag::register(SIGTSTP, Arc::clone(&signals.stop))?;
        flag::register(SIGCONT, Arc::clone(&signals.continued))?;
        flag::register(SIGWINCH, Arc::clone(&signals.resized))?;
        Ok(signals)
    }

    /// Whether the end is asked for.
    pub fn end(&self) -> bool {
        self.end.load(Ordering::Relaxed) != 0
    }

    /// Whether the program has been asked to stop since this was asked last.
    pub fn stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }

    /// Whether the program has been stopped and continued since this was asked last.
    pub fn continued(&self) -> bool {
        self.continued.swap(false, Ordering::Relaxed)
    }

    /// Whether the terminal has got another size since this was asked last.
    pub fn resized(&self) -> bool {
        self.resized.swap(false, Ordering::Relaxed)
    }

    /// Ends the program by the signal that was caught, as if it had not been.
    pub fn obey(&self) {
        if let Ok(signal @ 1..) = i32::try_from(self.end.load(Ordering::Relaxed)) {
            // The program ends by itself if this does not end it.
            let _ = low_level::emulate_default_handler(signal);
        }
    }
}
