//! All keys, in a box above everything else.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Block, Clear, Padding, Paragraph, Widget};

const HELP_TEXT: &str = "q, Ctrl-C   quit\n\
                    p           pause, and go on\n\
                    k           cut a connection\n\
                    Up, Down    scroll the connections\n\
                    Ctrl-L      draw everything anew\n\
                    Ctrl-Z      stop; fg goes on\n\
                    ?, h        this help";
/// Columns of the longest line, and rows.
const HELP_SIZE: (u16, u16) = (34, 7);

/// Draws it in the middle of the screen.
pub fn draw(area: Rect, buffer: &mut Buffer) {
    let (width, height) = HELP_SIZE;
    // Edges, and a blank at either side.
    let (width, height) = (width.saturating_add(4), height.saturating_add(2));
    let place = Rect {
        x: area.x.saturating_add(area.width.saturating_sub(width) / 2),
        y: area.y.saturating_add(area.height.saturating_sub(height) / 2),
        width,
        height,
    };
    let place = place.intersection(area);
    Clear.render(place, buffer);
    let block = Block::bordered()
        .padding(Padding::horizontal(1))
        .title(" Keys ")
        .title_bottom(" any key closes ");
    Paragraph::new(HELP_TEXT).block(block).render(place, buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_has_room() {
        let (width, height) = HELP_SIZE;
        assert_eq!(HELP_TEXT.lines().map(str::len).max(), Some(width.into()));
        assert_eq!(HELP_TEXT.lines().count(), usize::from(height));
    }
}
