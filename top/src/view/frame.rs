//! Two frames, the one that is shown and the one that is drawn, and what has to be written to get from the one to the
//! other. ratatui's own comparison looks at each cell with the care that wide characters need; nearly all of ours are
//! plain, and a frame has thousands of them.

use ratatui::buffer::{Buffer, Cell, CellWidth};
use ratatui::layout::Rect;

/// The frame that is shown, and the one before it, whose room the next will take.
#[derive(Debug)]
pub(crate) struct Frames {
    shown: Buffer,
    before: Buffer,
}

impl Frames {
    /// An empty screen of this size.
    pub(crate) fn new(width: u16, height: u16) -> Self {
        let empty = Buffer::empty(Rect { x: 0, y: 0, width, height });
        Self { shown: empty.clone(), before: empty }
    }

    /// An empty frame to draw into; afterwards, the cells that changed, in the order of lines and columns. They count as
    /// shown from then on.
    pub(crate) fn advance(&mut self, render: impl FnOnce(&mut Buffer)) -> Vec<(u16, u16, &Cell)> {
        std::mem::swap(&mut self.shown, &mut self.before);
        self.shown.reset();
        render(&mut self.shown);
        changes(&self.before, &self.shown)
    }
}

/// The cells of `new` that differ from those of `old`, which is of the same size.
fn changes<'a>(old: &Buffer, new: &'a Buffer) -> Vec<(u16, u16, &'a Cell)> {
    let mut changed = Vec::new();
    let width = usize::from(new.area.width).max(1);
    for (y, (was, is)) in (0..).zip(old.content.chunks(width).zip(new.content.chunks(width))) {
        let before = changed.len();
        let mut wide = false;
        for (x, (was, is)) in (0..).zip(was.iter().zip(is)) {
            if !same(was, is) {
                wide |= is_wide(was) || is_wide(is);
                changed.push((x, y, is));
            }
        }
        if wide {
            // A wide character covers its neighbour, and what it covered is drawn again: the whole line is.
            changed.truncate(before);
            let mut covered = 0;
            for (x, cell) in (0..).zip(is) {
                if covered == 0 {
                    changed.push((x, y, cell));
                    covered = cell.cell_width();
                }
                covered = covered.saturating_sub(1);
            }
        }
    }
    changed
}

fn same(a: &Cell, b: &Cell) -> bool {
    let (x, y) = (a.symbol().as_bytes(), b.symbol().as_bytes());
    let symbols = if let ([x], [y]) = (x, y) { x == y } else { x == y };
    symbols && a.modifier == b.modifier && a.fg == b.fg && a.bg == b.bg
}

fn is_wide(cell: &Cell) -> bool {
    cell.symbol().len() > 1 && cell.cell_width() != 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ratatui::style::{Color, Style};

    fn draw(buf: &mut Buffer, text: &str, style: Style) {
        buf.set_string(0, 0, text, style);
    }

    fn told(frames: &mut Frames, text: &str, style: Style) -> Vec<(u16, String)> {
        let changed = frames.advance(|buf| draw(buf, text, style));
        changed.into_iter().map(|(x, _, cell)| (x, cell.symbol().to_owned())).collect()
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

    proptest! {
        /// A terminal that is written to only what changed shows what was drawn.
        #[test]
        fn writing_what_changed_is_as_good_as_writing_all(texts in prop::collection::vec("[a-c日é ]{0,8}", 1..6)) {
            let mut frames = Frames::new(8, 1);
            let mut terminal = vt100::Parser::new(1.try_into().unwrap(), 8.try_into().unwrap(), 0);
            for text in texts {
                for (x, y, cell) in frames.advance(|buf| draw(buf, &text, Style::new())) {
                    terminal.process(format!("\x1b[{};{}H{}", y + 1, x + 1, cell.symbol()).as_bytes());
                }
                let mut fresh = vt100::Parser::new(1.try_into().unwrap(), 8.try_into().unwrap(), 0);
                for (x, y, cell) in Frames::new(8, 1).advance(|buf| draw(buf, &text, Style::new())) {
                    fresh.process(format!("\x1b[{};{}H{}", y + 1, x + 1, cell.symbol()).as_bytes());
                }
                let (shown, wanted) = (terminal.screen().contents(), fresh.screen().contents());
                prop_assert_eq!(shown.trim_end(), wanted.trim_end());
            }
        }
    }
}
