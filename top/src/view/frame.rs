//! What is shown and what is drawn, and what has to be written to get from the one to the other. ratatui's own comparison
//! looks at each cell with the care that wide characters need; nearly all of ours are plain, and a frame has thousands of
//! them: its `Terminal` takes 0.2 to 0.3 ms more for one of 160x50, and a quarter of uwsgitop's time leaves 0.1 ms
//! (docs/rtop.md, Cost).

use ratatui::buffer::{Buffer, Cell, CellWidth};
use ratatui::layout::Rect;
use ratatui::style::Color;

/// The frame that is drawn into, blank in between, and a mark of each cell that is shown.
#[derive(Debug)]
pub(crate) struct Frames {
    frame: Buffer,
    shown: Vec<Mark>,
    /// The columns of a line that changed, kept for their room.
    changed: Vec<u16>,
}

/// All of a cell in two words: its symbol, and its style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark(u64, u64);

impl Frames {
    /// An empty screen of this size.
    pub(crate) fn new(width: u16, height: u16) -> Self {
        let frame = Buffer::empty(Rect { x: 0, y: 0, width, height });
        let shown = vec![Mark::BLANK; frame.content.len()];
        Self { frame, shown, changed: Vec::new() }
    }

    /// An empty frame to draw into; afterwards, `write` is given the cells that changed, in the order of lines and columns.
    /// They count as shown from then on.
    pub(crate) fn advance(&mut self, render: impl FnOnce(&mut Buffer), mut write: impl FnMut(u16, u16, &Cell)) {
        render(&mut self.frame);
        let changed = &mut self.changed;
        let width = usize::from(self.frame.area.width).max(1);
        for (y, (cells, marks)) in (0..).zip(self.frame.content.chunks_mut(width).zip(self.shown.chunks_mut(width))) {
            changed.clear();
            let mut wide = false;
            // The cell is the right half of a wide character.
            let mut covered = false;
            for (x, (cell, mark)) in (0..).zip(cells.iter().zip(marks.iter_mut())) {
                let new = Mark::of(cell);
                if new != *mark {
                    wide |= mark.may_be_wide() || (new.may_be_wide() && cell.cell_width() != 1) || covered;
                    // What has no mark of its own never looks as it did.
                    *mark = if new.0 == Mark::LONG { Mark(Mark::LONG - 1, 0) } else { new };
                    changed.push(x);
                }
                covered = new.may_be_wide() && cell.cell_width() > 1;
            }
            if wide {
                // A wide character covers its neighbour, and what it covered is drawn again: the whole line is.
                changed.clear();
                let mut covered = 0;
                for (x, cell) in (0..).zip(cells.iter()) {
                    if covered == 0 {
                        changed.push(x);
                        covered = cell.cell_width();
                    }
                    covered = covered.saturating_sub(1);
                }
            }
            for x in changed.iter() {
                write(*x, y, &cells[usize::from(*x)]);
            }
            // For the next frame, while the line is at hand.
            for (cell, mark) in cells.iter_mut().zip(marks) {
                if *mark != Mark::BLANK {
                    cell.reset();
                }
            }
        }
    }
}

impl Mark {
    /// Of a symbol that has no room: it counts as changed every time.
    const LONG: u64 = u64::MAX;
    /// Of a cell that nothing was drawn into.
    const BLANK: Self = Self(b' ' as u64, 0);

    #[inline]
    fn of(cell: &Cell) -> Self {
        let symbol = match cell.symbol().as_bytes() {
            [byte] => u64::from(*byte),
            // UTF-8 has no NUL in the middle, so that the length need not be kept.
            bytes if bytes.len() < 8 => bytes.iter().fold(0, |symbol, byte| symbol << 8 | u64::from(*byte)),
            _ => Self::LONG,
        };
        let colours = match (cell.fg, cell.bg) {
            (Color::Reset, Color::Reset) => 0,
            (fg, bg) => colour(fg) << 26 | colour(bg),
        };
        Self(symbol, u64::from(cell.modifier.bits()) << 52 | colours)
    }

    /// Wide characters begin at U+1100, which has three bytes, but for some symbols (☕, ⚡). What charts and tables are full
    /// of has three bytes as well, and is narrow: box drawing and blocks (U+2500 to U+259F), and Braille (U+2800 to U+28FF).
    fn may_be_wide(self) -> bool {
        let drawn = matches!(self.0, 0x00e2_9480..=0x00e2_969f | 0x00e2_a080..=0x00e2_a3bf);
        self.0 > 0xffff && !drawn
    }
}

/// A colour in 26 bits.
#[inline]
fn colour(color: Color) -> u64 {
    match color {
        Color::Reset => 0,
        Color::Black => 1,
        Color::Red => 2,
        Color::Green => 3,
        Color::Yellow => 4,
        Color::Blue => 5,
        Color::Magenta => 6,
        Color::Cyan => 7,
        Color::Gray => 8,
        Color::DarkGray => 9,
        Color::LightRed => 10,
        Color::LightGreen => 11,
        Color::LightYellow => 12,
        Color::LightBlue => 13,
        Color::LightMagenta => 14,
        Color::LightCyan => 15,
        Color::White => 16,
        Color::Indexed(index) => 1 << 24 | u64::from(index),
        Color::Rgb(red, green, blue) => 2 << 24 | u64::from(red) << 16 | u64::from(green) << 8 | u64::from(blue),
    }
}

#[cfg(test)]
mod tests {
    use super::super::escape::Writer;
    use super::*;
    use proptest::prelude::*;
    use ratatui::style::{Color, Style};

    fn draw(buf: &mut Buffer, text: &str, style: Style) {
        buf.set_string(0, 0, text, style);
    }

    fn told(frames: &mut Frames, text: &str, style: Style) -> Vec<(u16, String)> {
        let mut changed = Vec::new();
        frames.advance(|buf| draw(buf, text, style), |x, _, cell| changed.push((x, cell.symbol().to_owned())));
        changed
    }

    #[test]
    fn only_what_changed_is_written() {
        let mut frames = Frames::new(8, 2);
        let plain = Style::new();
        assert_eq!(told(&mut frames, "ab", plain).len(), 2);
        assert_eq!(told(&mut frames, "ab", plain), []);
        assert_eq!(told(&mut frames, "aé", plain), [(1, "é".to_owned())]);
        assert_eq!(told(&mut frames, "aé", plain.fg(Color::Red)).len(), 2, "a colour is a change");
        assert_eq!(told(&mut frames, "", plain), [(0, " ".to_owned()), (1, " ".to_owned())]);
    }

    #[test]
    fn what_a_wide_character_covered_is_written_again() {
        let mut frames = Frames::new(4, 1);
        told(&mut frames, "日b", Style::new());
        let written = told(&mut frames, "ab", Style::new());
        assert_eq!(written.iter().map(|(x, _)| *x).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(told(&mut frames, "日b", Style::new()).iter().map(|(x, _)| *x).collect::<Vec<_>>(), [0, 2, 3]);
    }

    #[test]
    fn every_wide_character_is_known_to_be_one() {
        let mut cell = Cell::EMPTY;
        for character in '\u{20}'..=char::MAX {
            let symbol = character.encode_utf8(&mut [0; 4]).to_owned();
            if symbol.len() > 1 && symbol.cell_width() > 1 {
                cell.set_symbol(&symbol);
                assert!(Mark::of(&cell).may_be_wide(), "{character} U+{:X}", u32::from(character));
            }
        }
    }

    #[test]
    fn what_changes_under_a_wide_character_does_not_cut_it() {
        let mut frames = Frames::new(4, 1);
        told(&mut frames, "⚡b", Style::new());
        let mut written = Vec::new();
        let style = |buf: &mut Buffer| {
            draw(buf, "⚡b", Style::new());
            buf.set_style(Rect { x: 1, y: 0, width: 2, height: 1 }, Style::new().fg(Color::Red));
        };
        frames.advance(style, |x, _, _| written.push(x));
        assert_eq!(written, [0, 2, 3], "the right half is the character's own");
    }

    proptest! {
        /// A terminal that is written to only what changed shows what was drawn.
        #[test]
        fn writing_what_changed_is_as_good_as_writing_all(
            texts in prop::collection::vec("[a-c日é⚡🎉▼█ ]{0,8}", 1..6),
        ) {
            let mut frames = Frames::new(8, 1);
            let mut terminal = vt100::Parser::new(1.try_into().unwrap(), 8.try_into().unwrap(), 0);
            for text in texts {
                let mut fresh = vt100::Parser::new(1.try_into().unwrap(), 8.try_into().unwrap(), 0);
                for (frames, terminal) in [(&mut frames, &mut terminal), (&mut Frames::new(8, 1), &mut fresh)] {
                    let mut bytes = Vec::new();
                    let mut writer = Writer::new(&mut bytes);
                    frames.advance(|buf| draw(buf, &text, Style::new()), |x, y, cell| writer.put(x, y, cell));
                    writer.finish();
                    terminal.process(&bytes);
                }
                let (shown, wanted) = (terminal.screen().contents(), fresh.screen().contents());
                prop_assert_eq!(shown.trim_end(), wanted.trim_end());
            }
        }
    }
}
