//! The server at a glance, as JSON: `/status.json`, and what was before: `/history.json`.

use std::fmt::Write;

use super::Context;
use super::body::of_samples;
use crate::state::history::{COLUMNS, MINUTES, Ring, SECONDS};
use crate::state::json;
use crate::state::report;
use crate::state::users::unix_time;

/// Seconds and minutes that `/status.json` has: a page that asks each second misses none, even if it is late.
const RECENT_SECONDS: usize = 30;
const RECENT_MINUTES: usize = 2;

/// `/status.json`: the bodies of METP's `INFO` and `GET_METRICS ALL`, and the newest seconds of the history.
pub fn status(cx: &mut Context<'_>) -> String {
    let bodies = of_samples(cx, |sources| {
        let info = json::body(&report::info(sources), '=');
        let metrics = json::body(&report::all_metrics(sources), ':');
        format!("\"info\":{info},\n\"metrics\":{metrics},\n")
    });
    let history = history_of(cx, RECENT_SECONDS, RECENT_MINUTES);
    format!("{{{}\"history\":{history}}}\n", bodies.unwrap_or_default())
}

/// `/history.json`: all seconds and minutes that are kept.
pub fn history(cx: &Context<'_>) -> String {
    history_of(cx, SECONDS, MINUTES) + "\n"
}

fn history_of(cx: &Context<'_>, seconds: usize, minutes: usize) -> String {
    let history = &cx.shared.history;
    let mut text = format!("{{\"time\":{},\"columns\":[", unix_time());
    for (place, column) in COLUMNS.into_iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        json::string(column, &mut text);
    }
    text.push(']');
    ring(["second", "seconds"], history.seconds(), seconds, &mut text);
    ring(["minute", "minutes"], history.minutes(), minutes, &mut text);
    text.push('}');
    text
}

/// The number of the newest row, and the newest rows.
fn ring([newest, rows]: [&str; 2], ring: &Ring, most: usize, text: &mut String) {
    let written = write!(text, ",\n\"{newest}\":{},\"{rows}\":[", ring.count());
    debug_assert!(written.is_ok(), "a String takes everything");
    for (place, row) in ring.newest(most).enumerate() {
        text.push_str(if place > 0 { ",[" } else { "[" });
        for (place, figure) in row.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            let written = write!(text, "{comma}{figure}");
            debug_assert!(written.is_ok(), "a String takes everything");
        }
        text.push(']');
    }
    text.push(']');
}
