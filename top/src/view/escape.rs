//! Changed cells as the bytes that bring them onto a terminal: ECMA-48's cursor positions and renditions, which every
//! terminal of the last decades understands. Charts move with every second, so there are hundreds of them in a frame.

use std::io::Write as _;

use ratatui::buffer::{Cell, CellWidth};
use ratatui::style::{Color, Modifier};

use super::theme::Theme;
use crate::format;
use crate::report::Part;

/// Modifiers by the numbers of their renditions.
const RENDITIONS: [(Modifier, &str); 6] = [
    (Modifier::BOLD, ";1"),
    (Modifier::DIM, ";2"),
    (Modifier::ITALIC, ";3"),
    (Modifier::UNDERLINED, ";4"),
    (Modifier::REVERSED, ";7"),
    (Modifier::CROSSED_OUT, ";9"),
];

/// Bytes of a symbol: the longest emoji have 35.
const LONGEST: usize = 64;

/// Writes cells, which come in the order of lines and columns.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where the terminal's cursor stands; `None` until it is known.
    cursor: Option<(u16, u16)>,
    style: (Color, Color, Modifier),
}

const PLAIN: (Color, Color, Modifier) = (Color::Reset, Color::Reset, Modifier::empty());

impl<'a> Writer<'a> {
    /// Appends to `out`, for a terminal that writes plainly and whose cursor is anywhere.
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, cursor: None, style: PLAIN }
    }

    /// Shows a cell.
    pub(crate) fn put(&mut self, x: u16, y: u16, cell: &Cell) {
        if self.cursor != Some((x, y)) {
            self.go_to(x, y);
        }
        let style = (cell.fg, cell.bg, cell.modifier);
        if style != self.style {
            rendition(cell, self.out);
            self.style = style;
        }
        let symbol = cell.symbol();
        if let [byte] = symbol.as_bytes() {
            self.out.push(if byte.is_ascii_control() { b' ' } else { *byte });
            self.cursor = Some((x + 1, y));
            return;
        }
        let width = cell.cell_width();
        // The last place before the terminal: whoever drew this may have forgotten what `one_line` is for.
        if symbol.len() > LONGEST || symbol.chars().any(|character| format::shown_as(character) != character) {
            self.out.extend_from_slice("\u{fffd}".as_bytes());
            self.out.resize(self.out.len() + usize::from(width.saturating_sub(1)), b' ');
            self.cursor = Some((x + width.max(1), y));
            return;
        }
        if width > 1 && symbol.chars().nth(1).is_some() {
            // Terminals do not agree how wide a symbol of several characters is: those that draw it narrow have blanks
            // in the rest of its room, and where the cursor stands afterwards is not known.
            self.out.extend_from_slice(" ".repeat(usize::from(width)).as_bytes());
            self.go_to(x, y);
            self.out.extend_from_slice(symbol.as_bytes());
            self.cursor = None;
            return;
        }
        self.out.extend_from_slice(symbol.as_bytes());
        self.cursor = Some((x + width, y));
    }

    fn go_to(&mut self, x: u16, y: u16) {
        self.out.extend_from_slice(b"\x1b[");
        number(y.saturating_add(1), self.out);
        self.out.push(b';');
        number(x.saturating_add(1), self.out);
        self.out.push(b'H');
    }

    /// Leaves the terminal as it was: writing plainly.
    pub(crate) fn finish(self) {
        if self.style != PLAIN {
            self.out.extend_from_slice(b"\x1b[0m");
        }
    }
}

/// A text in a part's looks, for a terminal that is not taken over; as it is where there are no colours.
pub(crate) fn painted(theme: &Theme, part: Part, text: &str) -> String {
    let style = match part {
        _ if !theme.color => return text.to_owned(),
        Part::Head | Part::Own => theme.strong(),
        Part::State(state) => theme.thread(state),
        Part::Library => theme.dim(),
        Part::Problem => theme.warning(),
    };
    let mut cell = Cell::EMPTY;
    cell.set_style(style);
    let mut out = Vec::new();
    rendition(&cell, &mut out);
    String::from_utf8_lossy(&out).into_owned() + text + "\x1b[0m"
}

fn rendition(cell: &Cell, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\x1b[0");
    for (modifier, number) in RENDITIONS {
        if cell.modifier.contains(modifier) {
            out.extend_from_slice(number.as_bytes());
        }
    }
    colour(cell.fg, 30, out);
    colour(cell.bg, 40, out);
    out.push(b'm');
}

/// In decimal digits; of two numbers a place, `write!` would be most of the cost.
fn number(value: u16, out: &mut Vec<u8>) {
    if value >= 10 {
        number(value / 10, out);
    }
    out.push(b'0' + (value % 10) as u8);
}

/// The number of a colour; `base` is black's, of the text or of what is behind it.
fn colour(color: Color, base: u8, out: &mut Vec<u8>) {
    let number = match color {
        Color::Reset => return,
        Color::Indexed(index) => return drop(write!(out, ";{};5;{index}", base + 8)),
        Color::Rgb(red, green, blue) => return drop(write!(out, ";{};2;{red};{green};{blue}", base + 8)),
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 60,
        Color::LightRed => 61,
        Color::LightGreen => 62,
        Color::LightYellow => 63,
        Color::LightBlue => 64,
        Color::LightMagenta => 65,
        Color::LightCyan => 66,
        Color::White => 67,
    };
    let _ = write!(out, ";{}", base + number);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    #[test]
    fn what_stands_after_a_symbol_of_several_characters_is_in_its_place_however_wide_that_is_drawn() {
        // This terminal draws a family as three people, six columns wide.
        let mut terminal = vt100::Parser::new(1.try_into().unwrap(), 8.try_into().unwrap(), 0);
        let mut buffer = Buffer::empty(Rect { x: 0, y: 0, width: 8, height: 1 });
        buffer.set_string(0, 0, "a👨\u{200d}👩\u{200d}👧defgh", Style::new());
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        [0, 1, 3, 4, 5, 6, 7].iter().for_each(|x| writer.put(*x, 0, &buffer[(*x, 0)]));
        writer.finish();
        terminal.process(&bytes);
        assert_eq!(terminal.screen().contents(), "a👨\u{200d}defgh");
    }

    #[test]
    fn no_cell_can_make_the_terminal_obey() {
        for symbol in ["\u{1b}", "\u{9b}", "\u{1b}[2J", "\u{202e}", "a\u{202e}", &format!("a{}", "\u{301}".repeat(90))]
        {
            let mut cell = Cell::EMPTY;
            cell.set_symbol(symbol);
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes);
            writer.put(0, 0, &cell);
            writer.finish();
            let text = String::from_utf8(bytes).unwrap();
            assert!(text == "\u{1b}[1;1H " || text.starts_with("\u{1b}[1;1H\u{fffd}"), "{text:?}");
        }
    }

    #[test]
    fn a_terminal_shows_the_cells_in_their_places_and_colours() {
        let mut buffer = Buffer::empty(Rect { x: 0, y: 0, width: 10, height: 2 });
        let alarm =
            Style::new().fg(Color::Indexed(203)).bg(Color::Blue).add_modifier(Modifier::BOLD | Modifier::REVERSED);
        buffer.set_string(0, 0, "a日b", Style::new());
        buffer.set_string(7, 0, "xyz", alarm);
        buffer.set_string(0, 1, "µ▇⣿", Style::new().fg(Color::Rgb(1, 2, 3)));
        buffer.set_string(3, 1, "l", Style::new().fg(Color::LightRed));
        let cells = |x: &[u16], y| x.iter().map(move |x| (*x, y)).collect::<Vec<_>>();
        let places = [cells(&[0, 1, 3, 7, 8, 9], 0), cells(&[0, 1, 2, 3], 1)].concat();
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        places.iter().for_each(|(x, y)| writer.put(*x, *y, &buffer[(*x, *y)]));
        writer.finish();
        let mut terminal = vt100::Parser::new(2.try_into().unwrap(), 10.try_into().unwrap(), 0);
        terminal.process(&bytes);
        let screen = terminal.screen();
        assert_eq!(screen.contents(), "a日b   xyz\nµ▇⣿l");
        let cell = screen.cell(0, 8).unwrap();
        assert_eq!((cell.fgcolor(), cell.bgcolor()), (vt100::Color::Idx(203), vt100::Color::Idx(4)));
        assert!(cell.bold() && cell.inverse());
        assert_eq!(screen.cell(1, 1).unwrap().fgcolor(), vt100::Color::Rgb(1, 2, 3));
        assert_eq!(screen.cell(1, 3).unwrap().fgcolor(), vt100::Color::Idx(9));
        assert!(bytes.ends_with(b"\x1b[0m"), "what comes after it is plain");
    }
}
