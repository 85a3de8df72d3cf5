//! The terminal while it shows the screen: raw, and on its alternate screen. However the watch ends or stops,
//! the terminal is left as it was found. One that has no alternate screen, as the console of Linux, passes over the
//! request for it: there the screen is cleared of what others wrote, and what others write goes below it.

use std::io::{self, BufWriter};
use std::mem::ManuallyDrop;

use common::stdio::{self, Inherited};
use ratatui::Terminal;
use ratatui::backend::{Backend, ClearType, CrosstermBackend};
use ratatui::crossterm::cursor::MoveTo;
use ratatui::crossterm::terminal::{
    Clear, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{self, execute};

use crate::terminal::{self, Stops};

/// Its own destructor is not run: it panics when the terminal is gone and nobody can be told.
pub struct Stage {
    /// Where to draw.
    pub terminal: ManuallyDrop<Terminal<CrosstermBackend<BufWriter<Inherited>>>>,
}

impl Stage {
    /// Takes the terminal.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn enter() -> io::Result<Self> {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // What is said of the panic is to be read.
            let _ = restore();
            hook(panic);
        }));
        let entered = enable_raw_mode()
            .and_then(|()| execute!(stdio::stdout(), EnterAlternateScreen))
            .and_then(|()| Terminal::new(CrosstermBackend::new(BufWriter::new(stdio::stdout()))));
        if entered.is_err() {
            // It may have got half of the way.
            let _ = restore();
        }
        let mut stage = Stage { terminal: ManuallyDrop::new(entered?) };
        // Only what differs from a blank screen would be drawn, over whatever is there.
        stage.forget()?;
        Ok(stage)
    }

    /// Gives the terminal back, stops until the program is continued, and takes it again.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn stop(&mut self, who: Stops) -> io::Result<()> {
        self.leave()?;
        terminal::stop(who)?;
        self.enter_again()
    }

    /// Takes the terminal from whoever had it meanwhile: it may be in any state.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn enter_again(&mut self) -> io::Result<()> {
        // A mode that is believed to be raw already is not set again.
        disable_raw_mode()?;
        enable_raw_mode()?;
        execute!(stdio::stdout(), EnterAlternateScreen)?;
        self.forget()
    }

    /// Has all of the screen be drawn anew the next time.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn forget(&mut self) -> io::Result<()> {
        // What Terminal::clear does, without asking the terminal for its cursor: keys may come before the answer.
        self.terminal.backend_mut().clear_region(ClearType::All)?;
        self.terminal.swap_buffers();
        Ok(())
    }

    fn leave(&mut self) -> io::Result<()> {
        self.terminal.show_cursor()?;
        last_line()?;
        restore()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // There is nobody left to tell if this fails: the terminal may be gone.
        let _ = self.terminal.show_cursor();
        let _ = last_line();
        let _ = restore();
    }
}

/// Goes to the last line, and makes it blank. An alternate screen takes it along, and leaving that restores the
/// place of the cursor.
fn last_line() -> io::Result<()> {
    // More lines than any terminal has: it stops at its last.
    let line = Clear(crossterm::terminal::ClearType::CurrentLine);
    execute!(stdio::stdout(), MoveTo(0, 998), line)
}

fn restore() -> io::Result<()> {
    disable_raw_mode()?;
    execute!(stdio::stdout(), LeaveAlternateScreen)
}
