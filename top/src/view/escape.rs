//! Changed cells as the bytes that bring them onto a terminal: ECMA-48's cursor positions and renditions, which every
//! terminal of the last decades understands. Charts move with every second, so there are hundreds of them in a frame.

use std::io::Write as _;

use ratatui::buffer::{Cell, CellWidth};
use ratatui::style::{Color, Modifier};

/// Modifiers by the numbers of their renditions.
const RENDITIONS: [(Modifier, &str); 6] = [
    (Modifier::BOLD, ";1"),
    (Modifier::DIM, ";2"),
    (Modifier::ITALIC, ";3"),
    (Modifier::UNDERLINED, ";4"),
    (Modifier::REVERSED, ";7"),
    (Modifier::CROSSED_OUT, ";9"),
];

/// Appends what shows the cells, which come in the order of lines and columns.
pub(crate) fn write(cells: &[(u16, u16, &Cell)], out: &mut Vec<u8>) {
    let (mut cursor, mut style) = (None, (Color::Reset, Color::Reset, Modifier::empty()));
    for &(x, y, cell) in cells {
        if cursor != Some((x, y)) {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "\x1b[{};{}H", y + 1, x + 1);
        }
        let wanted = (cell.fg, cell.bg, cell.modifier);
        if wanted != style {
            rendition(cell, out);
            style = wanted;
        }
        let symbol = cell.symbol();
        out.extend_from_slice(symbol.as_bytes());
        cursor = Some((x + if symbol.len() == 1 { 1 } else { cell.cell_width() }, y));
    }
    if style != (Color::Reset, Color::Reset, Modifier::empty()) {
        out.extend_from_slice(b"\x1b[0m");
    }
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
        let cells: Vec<_> = places.iter().map(|(x, y)| (*x, *y, &buffer[(*x, *y)])).collect();
        let mut bytes = Vec::new();
        write(&cells, &mut bytes);
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
