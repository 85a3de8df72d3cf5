//! The rows of the parts of the screen, and the box with all keys. On a small screen bars and axes go first,
//! then the log, then users and destinations: a table has room for its heading and one row, or is left out.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Block, Clear, Padding, Paragraph, Widget};

/// Rows of charts with bars, at least and at most.
const CHART_ROWS: (u16, u16) = (7, 16);
/// The least height between header and footer at which charts have bars; below it they have their title alone.
const BARS_MIN_HEIGHT: u16 = 18;
/// Rows of a table at least: its heading and one row.
const TABLE_MIN_ROWS: u16 = 2;

/// The rows of each part, from top to bottom, between header and footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowHeights {
    pub charts: u16,
    /// Users and destinations.
    pub top: u16,
    pub connections: u16,
    pub log: u16,
}

/// Divides `height` rows.
pub fn row_heights(height: u16) -> RowHeights {
    let (least, most) = CHART_ROWS;
    let charts = match height {
        BARS_MIN_HEIGHT.. => (height.saturating_mul(3) / 8).clamp(least, most),
        TABLE_MIN_ROWS => 0,
        _ => height.min(1),
    };
    let left = height.saturating_sub(charts);
    let share = (left / 10 * 3).saturating_add(left % 10 * 3 / 10).max(TABLE_MIN_ROWS);
    let top = if left >= 2 * TABLE_MIN_ROWS { share } else { 0 };
    let log = if left >= 3 * TABLE_MIN_ROWS { share } else { 0 };
    RowHeights { charts, top, connections: left.saturating_sub(top).saturating_sub(log), log }
}

const HELP_TEXT: &str = "q, Ctrl-C   quit\n\
                    p           pause, or continue\n\
                    k           cut a connection\n\
                    Up, Down    scroll the connections\n\
                    Ctrl-L      draw everything anew\n\
                    Ctrl-Z      stop; fg goes on\n\
                    ?, h        this help";
/// The columns of the longest line, and the number of lines.
const HELP_SIZE: (u16, u16) = (34, 7);

/// Draws the box with all keys in the middle of `area`.
pub fn draw_help(area: Rect, buffer: &mut Buffer) {
    let (width, height) = HELP_SIZE;
    // The border, and a blank on either side.
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
    fn all_rows_are_shared_out() {
        for (height, charts, top, connections, log) in [
            (0, 0, 0, 0, 0),
            (1, 1, 0, 0, 0),
            (2, 0, 0, 2, 0),
            (3, 1, 0, 2, 0),
            (5, 1, 2, 2, 0),
            (8, 1, 2, 3, 2),
            (17, 1, 4, 8, 4),
            (18, 7, 3, 5, 3),
            (22, 8, 4, 6, 4),
            (48, 16, 9, 14, 9),
        ] {
            assert_eq!(
                row_heights(height),
                RowHeights { charts, top, connections, log },
                "{height}"
            );
        }
    }

    #[test]
    fn a_table_has_room_for_a_row() {
        for height in 0..u16::MAX {
            let RowHeights { charts, top, connections, log } = row_heights(height);
            assert_eq!(charts + top + connections + log, height);
            assert!(![top, connections, log].contains(&1), "{height}");
        }
    }

    #[test]
    fn the_help_fits_its_box() {
        let (width, height) = HELP_SIZE;
        assert_eq!(HELP_TEXT.lines().map(str::len).max(), Some(width.into()));
        assert_eq!(HELP_TEXT.lines().count(), usize::from(height));
    }
}
