//! Control characters: those that a terminal obeys, that end a line, or that change the direction of writing. And JSON
//! without them.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

/// Whether a character must not reach a terminal or a line of a log as it is: C0, DEL, C1, the ends of lines and of
/// paragraphs, and the marks of direction.
#[must_use]
pub fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes JSON on one line, with control characters as `\u` and four digits.
///
/// # Errors
/// Those of [`serde_json::to_writer`].
pub fn write_json<T: Serialize + ?Sized>(to: impl io::Write, value: &T) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(to, Escaping))
}

/// Escapes what JSON itself does not: DEL, C1 and the control characters beyond.
struct Escaping;

impl Escaping {
    fn write(to: &mut (impl io::Write + ?Sized), fragment: &str) -> io::Result<()> {
        // Nearly always.
        if fragment.bytes().all(|byte| byte < 0x7f) {
            return to.write_all(fragment.as_bytes());
        }
        let mut escaped = String::with_capacity(fragment.len() + 8);
        for character in fragment.chars() {
            // serde_json has escaped C0 within strings. Between the parts of a raw fragment, ends of lines are JSON.
            if character >= '\u{7f}' && is_control(character) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{:04x}", u32::from(character));
            } else {
                escaped.push(character);
            }
        }
        to.write_all(escaped.as_bytes())
    }
}

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, to: &mut W, fragment: &str) -> io::Result<()> {
        Self::write(to, fragment)
    }

    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, to: &mut W, fragment: &str) -> io::Result<()> {
        Self::write(to, fragment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn json_reads_back_and_has_no_control_character(text in "\\PC{0,20}[\u{0}-\u{a0}\u{2000}-\u{2070}]{0,20}") {
            let mut bytes = Vec::new();
            write_json(&mut bytes, &[&text]).unwrap();
            let json = String::from_utf8(bytes).unwrap();
            prop_assert!(!json.chars().any(is_control), "{:?}", json);
            prop_assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [text]);
        }
    }
}
