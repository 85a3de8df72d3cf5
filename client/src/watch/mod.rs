//! `--watch`: a live view of the server, as a screen, as lines, or as JSON.
//!
//! `feed` talks to the server and hands `news` to `screen`, which has `model` remember them and `view` draw
//! them on the `terminal_guard`; `keyboard` reads keys, `keys` knows what they mean. `figures` does without a screen.

mod ascii;
mod feed;
mod figures;
mod gone;
mod help;
mod history;
mod keyboard;
mod keys;
mod model;
mod news;
mod pace;
mod parties;
mod picture;
mod plan;
mod plot;
mod records;
mod scale;
mod screen;
mod signals;
mod speed;
mod stage;
mod table;
mod view;

pub use figures::{json, lines};
pub use screen::{has_screen, screen};

use crate::conversation::{Failure, Session};

/// Makes sure that the server knows the commands of METP/1.1.
fn require_1_1(session: &mut Session) -> Result<(), Failure> {
    session.require("-w", &["INFO", "CONNECTIONS", "KILL", "SUBSCRIBE"])
}
