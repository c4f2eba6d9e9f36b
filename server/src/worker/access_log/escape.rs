//! Text from requests in lines of the access log: escaped so that it ends neither the line nor its field.

use std::io::Write;

use crate::log_text::{Foreign, write_json};

/// What stands around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// Nothing.
    Plain,
    /// Nothing, and what is empty stays so.
    Bare,
    /// Double quotes of the format: a quote in the text becomes `%22`.
    Quoted,
    /// Double quotes of the format, in a JSON object.
    Json,
    /// Nothing, and it is to be a JSON string, or `null`.
    JsonString,
    /// Nothing, and it gets double quotes if it needs them.
    Logfmt,
}

/// Printable ASCII that stands for itself in double quotes.
const PLAIN_IN_QUOTES: [bool; 256] = plain(b"\"");
/// The same where no quotes are.
const PLAIN: [bool; 256] = plain(b"");
/// The same in a value of `key=value` without quotes.
const PLAIN_IN_LOGFMT: [bool; 256] = plain(b"\"\\= ");

const fn plain(but: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        table[byte as usize] = true;
        byte += 1;
    }
    let mut at = 0;
    while at < but.len() {
        table[but[at] as usize] = false;
        at += 1;
    }
    table
}

fn is_all(table: &[bool; 256], text: &[u8]) -> bool {
    text.iter().all(|byte| table[usize::from(*byte)])
}

/// Adds a text; what is empty is `-`, as uWSGI has it, or `null`.
pub(super) fn write_text(to: &mut Vec<u8>, text: &[u8], escape: Escape) {
    if text.is_empty() {
        let nothing: &[u8] = match escape {
            Escape::Bare => b"",
            Escape::JsonString => b"null",
            _ => b"-",
        };
        return to.extend_from_slice(nothing);
    }
    match escape {
        Escape::Plain | Escape::Bare if is_all(&PLAIN, text) => to.extend_from_slice(text),
        // Writing to a Vec cannot fail.
        Escape::Plain | Escape::Bare => drop(write!(to, "{}", Foreign(text))),
        Escape::Quoted if is_all(&PLAIN_IN_QUOTES, text) => to.extend_from_slice(text),
        Escape::Quoted => write_quoted(to, text),
        Escape::Json => write_json(to, text),
        Escape::JsonString => {
            to.push(b'"');
            write_json(to, text);
            to.push(b'"');
        }
        Escape::Logfmt if is_all(&PLAIN_IN_LOGFMT, text) => to.extend_from_slice(text),
        Escape::Logfmt => {
            to.push(b'"');
            write_json(to, text);
            to.push(b'"');
        }
    }
}

fn write_quoted(to: &mut Vec<u8>, text: &[u8]) {
    for (place, part) in text.split(|byte| *byte == b'"').enumerate() {
        if place > 0 {
            to.extend_from_slice(b"%22");
        }
        let _ = write!(to, "{}", Foreign(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rwsgi_stats::is_control;

    const ALL: [Escape; 5] = [Escape::Plain, Escape::Quoted, Escape::Json, Escape::JsonString, Escape::Logfmt];

    fn written(text: &[u8], escape: Escape) -> String {
        let mut to = Vec::new();
        write_text(&mut to, text, escape);
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn a_text_fits_what_stands_around_it() {
        let sent = b"a \"b\"\\\n\x9b\xc2\x9b=";
        for (escape, shown) in [
            (Escape::Plain, "a \"b\"\\\\n\\x9b\\u{9b}="),
            (Escape::Quoted, "a %22b%22\\\\n\\x9b\\u{9b}="),
            (Escape::Json, "a \\\"b\\\"\\\\\\n\\\\x9b\\u009b="),
            (Escape::JsonString, "\"a \\\"b\\\"\\\\\\n\\\\x9b\\u009b=\""),
            (Escape::Logfmt, "\"a \\\"b\\\"\\\\\\n\\\\x9b\\u009b=\""),
        ] {
            assert_eq!(written(sent, escape), shown, "{escape:?}");
        }
        assert_eq!(ALL.map(|escape| written(b"", escape)), ["-", "-", "-", "null", "-"]);
        assert_eq!(ALL.map(|escape| written(b"/x", escape)), ["/x", "/x", "/x", "\"/x\"", "/x"]);
    }

    proptest! {
        #[test]
        fn no_text_ends_its_line_or_its_quotes(text in prop::collection::vec(any::<u8>(), 0..40)) {
            for escape in ALL {
                let shown = written(&text, escape);
                prop_assert!(!shown.chars().any(is_control), "{escape:?} {shown:?}");
            }
            prop_assert!(!written(&text, Escape::Quoted).contains('"'));
            let json = written(&text, Escape::JsonString);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
            if let Ok(text) = std::str::from_utf8(&text)
                && !text.is_empty()
            {
                prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            }
        }
    }
}
