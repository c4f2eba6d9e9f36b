//! HTML that is well-formed, and escaped, however it is put together: elements close themselves, and every text and every
//! attribute goes through one place. It is XML as well.

use std::fmt::{self, Display, Write as _};

/// An attribute: its name, and what it is.
pub(super) type Attribute<'a> = (&'static str, &'a dyn Display);

/// A document, or a part of one.
#[derive(Debug, Default)]
pub(super) struct Markup(String);

/// Writes what it is given as text.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' => self.0.push('\n'),
                // What XML cannot hold.
                '\u{fffe}' | '\u{ffff}' => self.0.push('\u{fffd}'),
                _ if character.is_control() => self.0.push('\u{fffd}'),
                _ => self.0.push(character),
            }
        }
        Ok(())
    }
}

impl Markup {
    /// An empty HTML document.
    pub(super) fn document() -> Self {
        Self("<!DOCTYPE html>\n".to_owned())
    }

    /// The finished text.
    pub(super) fn finish(self) -> String {
        self.0
    }

    fn open(&mut self, tag: &'static str, attributes: &[Attribute<'_>]) {
        self.0.push('<');
        self.0.push_str(tag);
        for (name, value) in attributes {
            self.0.push(' ');
            self.0.push_str(name);
            self.0.push_str("=\"");
            self.text(value);
            self.0.push('"');
        }
    }

    /// An element, with what is in it.
    pub(super) fn element(&mut self, tag: &'static str, attributes: &[Attribute<'_>], inside: impl FnOnce(&mut Self)) {
        self.open(tag, attributes);
        self.0.push('>');
        inside(self);
        self.0.push_str("</");
        self.0.push_str(tag);
        self.0.push('>');
    }

    /// An element that never has anything in it: one of SVG's, or one of HTML's that need no end.
    pub(super) fn leaf(&mut self, tag: &'static str, attributes: &[Attribute<'_>]) {
        self.open(tag, attributes);
        self.0.push_str("/>");
    }

    /// A text, escaped.
    pub(super) fn text(&mut self, text: impl Display) {
        // Writing into a String cannot fail.
        let _ = write!(Escaped(&mut self.0), "{text}");
    }

    /// An element with a text in it.
    pub(super) fn line(&mut self, tag: &'static str, class: &'static str, text: impl Display) {
        let class: &[Attribute<'_>] = if class.is_empty() { &[] } else { &[("class", &class)] };
        self.element(tag, class, |markup| markup.text(text));
    }

    /// A style sheet of ours.
    pub(super) fn style(&mut self, sheet: &'static str) {
        self.0.push_str("<style>\n");
        self.0.push_str(sheet);
        self.0.push_str("</style>");
    }

    /// An end of a line, between elements.
    pub(super) fn newline(&mut self) {
        self.0.push('\n');
    }

    /// A table: titles and rows; the first cell of a row is its title. Cells know their column's title, for narrow screens.
    pub(super) fn table(
        &mut self,
        class: &'static str,
        titles: &[String],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) {
        self.element("div", &[("class", &"scroll")], |markup| {
            markup.element("table", &[("class", &class)], |markup| {
                markup.element("thead", &[], |markup| {
                    markup.element("tr", &[], |markup| {
                        for title in titles {
                            markup.element("th", &[("scope", &"col")], |markup| markup.text(title));
                        }
                    });
                });
                markup.element("tbody", &[], |markup| {
                    for row in rows {
                        markup.row(titles, &row);
                    }
                });
            });
        });
        self.newline();
    }

    fn row(&mut self, titles: &[String], row: &[String]) {
        self.newline();
        self.element("tr", &[], |markup| {
            for (place, (cell, title)) in row.iter().zip(titles).enumerate() {
                match place {
                    0 => markup.element("th", &[("scope", &"row")], |markup| markup.text(cell)),
                    _ => markup.element("td", &[("data-title", title)], |markup| markup.text(cell)),
                }
            }
        });
    }
}
