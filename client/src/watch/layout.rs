//! Who gets which rows of the screen. WatchConfig there is little room, bars and axes go first, then the log, then users
//! and destinations: a table has room for a heading and a row, or is not there.
//! All keys, in a box above everything else.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Block, Clear, Padding, Paragraph, Widget};

/// RowHeights that the charts take with their bars, at least and at most.
const CHART_ROWS: (u16, u16) = (7, 16);
/// Below this height there are none but their names and what they are now.
const BARS_MIN_HEIGHT: u16 = 18;
/// A heading and a row.
const TABLE_MIN_ROWS: u16 = 2;

/// RowHeights from above to below, between header and footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowHeights {
    /// For the charts.
    pub charts: u16,
    /// For users and destinations.
    pub top: u16,
    /// For the connections.
    pub connections: u16,
    /// For the access log.
    pub log: u16,
}

/// Shares so many rows out.
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
                    p           pause, and go on\n\
                    k           cut a connection\n\
                    Up, Down    scroll the connections\n\
                    Ctrl-L      draw everything anew\n\
                    Ctrl-Z      stop; fg goes on\n\
                    ?, h        this help";
/// Columns of the longest line, and rows.
const HELP_SIZE: (u16, u16) = (34, 7);

/// Draws it in the middle of the screen.
pub fn draw_help(area: Rect, buffer: &mut Buffer) {
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
    fn all_of_it_has_room() {
        let (width, height) = HELP_SIZE;
        assert_eq!(HELP_TEXT.lines().map(str::len).max(), Some(width.into()));
        assert_eq!(HELP_TEXT.lines().count(), usize::from(height));
    }
}
