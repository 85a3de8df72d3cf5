//! The terminal while it shows the screen: raw, and on its alternate screen. However the watch ends or stops,
//! the terminal is left as it was found. One that has no alternate screen, as the console of Linux, passes over the
//! request for it: there the screen is cleared of what others wrote, and what others write goes below it.
//! The screen where characters beyond ASCII are not welcome: each of them becomes one that says nearly as much.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::stdio::{self, Inherited};
use ratatui::Terminal;
use ratatui::backend::{Backend, ClearType, TermionBackend};
use ratatui::buffer::Buffer;
use ratatui::termion::clear::CurrentLine;
use ratatui::termion::cursor::Goto;
use ratatui::termion::raw::{IntoRawMode, RawTerminal};
use ratatui::termion::screen::{ToAlternateScreen, ToMainScreen};

use crate::terminal::{self, StopTarget};

/// The raw mode of the controlling terminal. A panic ends it, too, in whatever thread that is.
#[derive(Clone, Default)]
struct RawMode(Arc<Mutex<Option<RawTerminal<File>>>>);

impl RawMode {
    /// Begins the raw mode, unless it has begun. The mode before it is kept.
    fn begin(&self) -> io::Result<()> {
        let mut raw = self.lock();
        if raw.is_none() {
            let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
            *raw = Some(terminal.into_raw_mode()?);
        }
        Ok(())
    }

    /// Ends the raw mode: the terminal gets back the mode that it had before.
    fn end(&self) -> io::Result<()> {
        let mut raw = self.lock();
        if let Some(terminal) = raw.as_ref() {
            terminal.suspend_raw_mode()?;
        }
        *raw = None;
        Ok(())
    }

    /// No code that holds the lock leaves it half done.
    fn lock(&self) -> MutexGuard<'_, Option<RawTerminal<File>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Its own destructor is not run: it panics when the terminal is gone and nobody can be told.
pub struct TerminalGuard {
    /// WatchConfig to draw.
    pub terminal: ManuallyDrop<Terminal<TermionBackend<BufWriter<Inherited>>>>,
    raw: RawMode,
}

impl TerminalGuard {
    /// Takes the terminal.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn enter() -> io::Result<Self> {
        let raw = RawMode::default();
        let hook = std::panic::take_hook();
        let raw_of_hook = raw.clone();
        std::panic::set_hook(Box::new(move |panic| {
            // What is said of the panic is to be read.
            let _ = restore(&raw_of_hook);
            hook(panic);
        }));
        let entered = raw
            .begin()
            .and_then(|()| write(&ToAlternateScreen))
            .and_then(|()| Terminal::new(TermionBackend::new(BufWriter::new(stdio::stdout()))));
        if entered.is_err() {
            // It may have got half of the way.
            let _ = restore(&raw);
        }
        let mut guard = TerminalGuard { terminal: ManuallyDrop::new(entered?), raw };
        // Only what differs from a blank screen would be drawn, over whatever is there.
        guard.invalidate()?;
        Ok(guard)
    }

    /// Gives the terminal back, stops until the program is continued, and takes it again.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn stop(&mut self, who: StopTarget) -> io::Result<()> {
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
        self.raw.end()?;
        self.raw.begin()?;
        write(&ToAlternateScreen)?;
        self.invalidate()
    }

    /// Has all of the screen be drawn anew the next time.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn invalidate(&mut self) -> io::Result<()> {
        // What Terminal::clear does, without asking the terminal for its cursor: keys may come before the answer.
        self.terminal.backend_mut().clear_region(ClearType::All)?;
        self.terminal.swap_buffers();
        Ok(())
    }

    fn leave(&mut self) -> io::Result<()> {
        self.terminal.show_cursor()?;
        last_line()?;
        restore(&self.raw)
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        // There is nobody left to tell if this fails: the terminal may be gone.
        let _ = self.terminal.show_cursor();
        let _ = last_line();
        let _ = restore(&self.raw);
    }
}

/// Goes to the last line, and makes it blank. An alternate screen takes it along, and leaving that restores the
/// place of the cursor.
fn last_line() -> io::Result<()> {
    // More lines than any terminal has: it stops at its last.
    write(&format_args!("{}{CurrentLine}", Goto(1, 999)))
}

fn restore(raw: &RawMode) -> io::Result<()> {
    raw.end()?;
    write(&ToMainScreen)
}

/// Writes control sequences at once.
fn write(sequences: &dyn Display) -> io::Result<()> {
    stdio::stdout().write_all(sequences.to_string().as_bytes())
}

/// What stands for a character; `?` for one that is not known here.
fn instead(symbol: &str) -> &'static str {
    match symbol {
        // Bars by eighths: a little, half, and full.
        "▁" | "▂" => ".",
        "▃" | "▄" | "▅" => ":",
        "▆" | "▇" | "█" => "#",
        // Axes and edges.
        "─" => "-",
        "│" => "|",
        "┤" | "└" | "┴" | "┌" | "┐" | "┘" => "+",
        // What has been left out of a long text.
        "…" => "~",
        _ => "?",
    }
}

/// Replaces all that is not ASCII.
pub fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().is_ascii() {
            let ascii = instead(cell.symbol());
            cell.set_symbol(ascii);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_something_in_its_place() {
        let mut buffer = Buffer::with_lines(["┌─┐▁▂▃▄▅▆▇█", "└┴┘│┤a…z é "]);
        to_ascii(&mut buffer);
        assert_eq!(buffer, Buffer::with_lines(["+-+..:::###", "+++|+a~z ? "]));
    }
}
