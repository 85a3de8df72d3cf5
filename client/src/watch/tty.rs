//! The terminal while it shows the screen: in raw mode, and on its alternate screen. However the watch ends or
//! stops, the terminal is restored. A terminal without an alternate screen, as the console of Linux, ignores
//! the request for it: there the screen is cleared at the start, and later output goes below it.

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

/// The raw mode of the controlling terminal, shared with the panic hook.
#[derive(Clone, Default)]
struct RawMode(Arc<Mutex<Option<RawTerminal<File>>>>);

impl RawMode {
    /// Begins raw mode, unless it has begun, and keeps the mode before it.
    fn begin(&self) -> io::Result<()> {
        let mut raw = self.lock();
        if raw.is_none() {
            let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
            *raw = Some(terminal.into_raw_mode()?);
        }
        Ok(())
    }

    /// Ends raw mode: the terminal gets the mode back that it had before.
    fn end(&self) -> io::Result<()> {
        let mut raw = self.lock();
        if let Some(terminal) = raw.as_ref() {
            terminal.suspend_raw_mode()?;
        }
        *raw = None;
        Ok(())
    }

    /// Ignores poisoning: no critical section leaves the mode half changed.
    fn lock(&self) -> MutexGuard<'_, Option<RawTerminal<File>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A terminal that shows the screen; restored when dropped.
pub struct TerminalGuard {
    /// Draws frames. Its destructor is not run: where the terminal has gone away, it would report that with
    /// `eprintln!`, which panics.
    pub terminal: ManuallyDrop<Terminal<TermionBackend<BufWriter<Inherited>>>>,
    raw: RawMode,
}

impl TerminalGuard {
    /// Begins raw mode and the alternate screen, and clears it.
    ///
    /// # Errors
    /// If there is no controlling terminal, or it has gone away.
    pub fn enter() -> io::Result<Self> {
        let raw = RawMode::default();
        let hook = std::panic::take_hook();
        let raw_of_hook = raw.clone();
        std::panic::set_hook(Box::new(move |panic| {
            // The message of the panic has to be readable.
            let _ = restore(&raw_of_hook);
            hook(panic);
        }));
        let entered = raw
            .begin()
            .and_then(|()| write(&ToAlternateScreen))
            .and_then(|()| Terminal::new(TermionBackend::new(BufWriter::new(stdio::stdout()))));
        if entered.is_err() {
            // The first steps may have succeeded.
            let _ = restore(&raw);
        }
        let mut guard = TerminalGuard { terminal: ManuallyDrop::new(entered?), raw };
        // The first frame draws only what differs from a blank screen.
        guard.invalidate()?;
        Ok(guard)
    }

    /// Restores the terminal, stops until the program is continued, and begins again.
    ///
    /// # Errors
    /// If the terminal has gone away.
    pub fn stop(&mut self, target: StopTarget) -> io::Result<()> {
        self.leave()?;
        terminal::stop(target)?;
        self.enter_again()
    }

    /// Begins raw mode and the alternate screen again, after another program may have left the terminal in any
    /// state.
    ///
    /// # Errors
    /// If the terminal has gone away.
    pub fn enter_again(&mut self) -> io::Result<()> {
        // While it is thought to be raw, [`RawMode::begin`] would do nothing.
        self.raw.end()?;
        self.raw.begin()?;
        write(&ToAlternateScreen)?;
        self.invalidate()
    }

    /// Clears the screen, so that the next frame draws all of it.
    ///
    /// # Errors
    /// If the terminal has gone away.
    pub fn invalidate(&mut self) -> io::Result<()> {
        // As Terminal::clear, which would also ask the terminal for its cursor: keys may come before the
        // answer.
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
        // A failure means that the terminal has gone away: there is nothing to restore.
        let _ = self.terminal.show_cursor();
        let _ = last_line();
        let _ = restore(&self.raw);
    }
}

/// Clears the last line and moves the cursor there, for the output that follows on a terminal without an
/// alternate screen. Leaving an alternate screen restores the cursor's place.
fn last_line() -> io::Result<()> {
    // More lines than a terminal has: the cursor stops at the last.
    write(&format_args!("{}{CurrentLine}", Goto(1, 999)))
}

fn restore(raw: &RawMode) -> io::Result<()> {
    raw.end()?;
    write(&ToMainScreen)
}

/// Writes control sequences without a buffer.
fn write(sequences: &dyn Display) -> io::Result<()> {
    stdio::stdout().write_all(sequences.to_string().as_bytes())
}

/// The ASCII character that replaces a character; `?` for an unknown one.
fn substitute(symbol: &str) -> &'static str {
    match symbol {
        // Bars by eighths: a little, half, and full.
        "▁" | "▂" => ".",
        "▃" | "▄" | "▅" => ":",
        "▆" | "▇" | "█" => "#",
        // What is left of a limit.
        "░" => "-",
        // Axes and edges.
        "─" => "-",
        "│" => "|",
        "┤" | "└" | "┴" | "┌" | "┐" | "┘" => "+",
        // The gap in a text that was cut.
        "…" => "~",
        _ => "?",
    }
}

/// Replaces all characters beyond ASCII by similar ones, for locales that are not UTF-8.
pub fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().is_ascii() {
            let ascii = substitute(cell.symbol());
            cell.set_symbol(ascii);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_has_an_ascii_substitute() {
        let mut buffer = Buffer::with_lines(["┌─┐▁▂▃▄▅▆▇█░", "└┴┘│┤a…z é  "]);
        to_ascii(&mut buffer);
        assert_eq!(buffer, Buffer::with_lines(["+-+..:::###-", "+++|+a~z ?  "]));
    }
}
