//! `--watch`: a live view of the server, as a screen, as lines, or as JSON.
//!
//! `feed` is where updates come from: snapshots and events of the server (`news`), keys and signals (`input`).
//! `screen` has the loop: it applies updates to the `model`, with its `history` and `rates`, passes keys to the
//! `dialog`, and draws a `view` on the terminal (`tty`), which consists of a `layout`, a `chart` for each
//! figure, and each `table`. `poll` asks for metrics at regular intervals, and prints them where there is no
//! screen. `limits` are those of accounts.

mod chart;
mod dialog;
mod feed;
mod history;
mod input;
mod layout;
mod limits;
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
