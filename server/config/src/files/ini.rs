//! uWSGI's ini notation. It is simpler than what ini crates read: the first `=` ends the key, the rest of the line is
//! the value with its quotes, colons, backslashes and semicolons, and a comment has its line to itself. Order and
//! repetition carry meaning, and errors need line numbers, which those crates do not keep.

use super::{Pair, SyntaxError, no_section, wanted};

pub(super) fn read(text: &str, asked: Option<&str>) -> Result<Vec<Pair>, SyntaxError> {
    let mut pairs = Vec::new();
    let mut sections: Vec<String> = Vec::new();
    let mut found = false;
    let mut inside = false;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line_number = index + 1;
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let Some(name) = header.strip_suffix(']') else {
                let problem = format!("'{line}' is no section header: it does not end with ']'");
                return Err(SyntaxError { line: line_number, problem });
            };
            inside = wanted(name, asked);
            found |= inside;
            sections.push(format!("[{name}]"));
            continue;
        }
        if !inside {
            continue;
        }
        // A bare key is a flag that is on.
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let key = key.trim_end_matches([' ', '\t']);
        if key.is_empty() {
            return Err(SyntaxError { line: line_number, problem: format!("'{line}' has no key before its '='") });
        }
        let value = value.trim_matches([' ', '\t']);
        pairs.push(Pair { key: key.into(), value: value.into(), line: line_number });
    }
    if found { Ok(pairs) } else { Err(no_section(asked, &sections)) }
}
