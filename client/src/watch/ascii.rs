//! The screen where characters beyond ASCII are not welcome: each of them becomes one that says nearly as much.

use ratatui::buffer::Buffer;

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
pub fn replace(buffer: &mut Buffer) {
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
        replace(&mut buffer);
        assert_eq!(buffer, Buffer::with_lines(["+-+..:::###", "+++|+a~z ? "]));
    }
}
