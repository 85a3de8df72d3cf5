//! The chart: one panel for each workload, one bar for each peer, as SVG.

use std::fmt::Write as _;

use crate::report::{Report, Series, digits};

const COLUMNS: usize = 2;
const PANEL: usize = 470;
const MARGIN: usize = 20;
/// Where bars begin, and how long the longest is.
const LABEL: usize = 112;
const LONGEST: f64 = 200.0;
const BAR: usize = 18;
const HEADING: usize = 34;
const TOP: usize = 70;

/// Draws the medians of a report. Each panel has a scale of its own.
pub fn svg(report: &Report) -> String {
    let most = report.series.iter().map(|series| series.rows.len()).max().unwrap_or(0);
    let panel_height = HEADING + most * BAR + MARGIN;
    let height = TOP + report.series.len().div_ceil(COLUMNS) * panel_height + MARGIN;
    let width = COLUMNS * PANEL + MARGIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\" \
         fill=\"#24292f\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(
        &mut out,
        MARGIN,
        28,
        "font-size=\"18\" font-weight=\"bold\"",
        "socks5d and its peers, one core each",
    );
    let about = format!(
        "{}. Medians of {} rounds of {} s.",
        report.machine.line(),
        report.rounds,
        report.seconds
    );
    text(&mut out, MARGIN, 48, "fill=\"#57606a\"", &about);
    for (index, series) in report.series.iter().enumerate() {
        let x = MARGIN + index % COLUMNS * PANEL;
        panel(&mut out, x, TOP + index / COLUMNS * panel_height, series);
    }
    out.push_str("</svg>\n");
    out
}

fn panel(out: &mut String, x: usize, y: usize, series: &Series) {
    let better = if series.workload.rises() { "more is better" } else { "less is better" };
    let title = format!("{}: {}, {better}", series.workload, series.workload.unit());
    text(out, x, y + 20, "font-weight=\"bold\"", &title);
    let medians = series.rows.iter().filter_map(|row| row.median("value"));
    let scale = LONGEST / medians.fold(f64::MIN_POSITIVE, f64::max);
    for (index, row) in series.rows.iter().enumerate() {
        let top = y + HEADING + index * BAR;
        let (value, ratio) = series.figure(row, "value");
        text(out, x, top + 12, "", &row.peer);
        let Some(value) = value else {
            text(out, x + LABEL, top + 12, "fill=\"#8c959f\"", "–");
            continue;
        };
        let length = (value * scale).max(1.0);
        let colour = match row.peer.as_str() {
            "socks5d" => "#d4572a",
            "direct" => "#d0d7de",
            _ => "#7d8fa3",
        };
        let _ = writeln!(
            out,
            "<rect x=\"{}\" y=\"{top}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>",
            x + LABEL,
            BAR - 4
        );
        let times = ratio.map_or(String::new(), |ratio| format!("  ({ratio:.2} ×)"));
        let at = x + LABEL + 6 + length as usize;
        text(out, at, top + 12, "", &format!("{}{times}", digits(value)));
    }
}

fn text(out: &mut String, x: usize, y: usize, attributes: &str, content: &str) {
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" {attributes}>{}</text>", escaped(content));
}

fn escaped(content: &str) -> String {
    content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn the_chart_is_well_formed_and_has_a_bar_for_each_result() {
        let svg = svg(&example());
        let document = roxmltree::Document::parse(&svg).expect("well-formed XML");
        assert_eq!(document.root_element().tag_name().name(), "svg");
        let named = |name| document.descendants().filter(move |node| node.has_tag_name(name));
        let bars: Vec<_> = named("rect").skip(1).collect();
        assert_eq!(bars.len(), 2 * 3, "the peer without a result has none");
        let length = |bar: usize| bars[bar].attribute("width").and_then(|w| w.parse::<f64>().ok());
        assert_eq!(length(0), Some(LONGEST));
        assert_eq!(length(2), Some(LONGEST / 2.0));
        let texts: Vec<&str> = named("text").filter_map(|node| node.text()).collect();
        assert!(texts.contains(&"a<b>&\"c\""));
        assert!(texts.contains(&"15.0  (0.75 ×)"));
        assert!(texts.iter().any(|text| text.contains("A CPU <&>")));
    }

    #[test]
    fn a_report_of_nothing_is_a_chart_too() {
        let mut report = example();
        report.series.clear();
        assert!(roxmltree::Document::parse(&svg(&report)).is_ok());
    }
}
