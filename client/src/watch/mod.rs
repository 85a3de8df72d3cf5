//! `--watch`: a live view of the server, as a screen, as lines, or as JSON.
//!
//! `feed` talks to the server and hands what it learns to `screen`, which has `model` keep it and `view` draw it
//! with `layout`, `chart` and `table` on the terminal of `tty`; `input` reads keys and signals, `dialog` knows what
//! keys mean. `poll` does without a screen.

mod chart;
mod dialog;
mod feed;
mod history;
mod input;
mod layout;
mod model;
mod news;
mod poll;
mod rates;
mod screen;
mod table;
mod tty;
mod view;

pub use poll::{json, lines};
pub use screen::{has_screen, screen};
