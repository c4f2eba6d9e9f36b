//! Types of files by the ends of their names, from `/etc/mime.types`, as uWSGI has them.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Read when it is first asked for.
static TYPES: LazyLock<HashMap<String, String>> =
    LazyLock::new(|| read(&std::fs::read_to_string("/etc/mime.types").unwrap_or_default()));

fn read(text: &str) -> HashMap<String, String> {
    let mut types = HashMap::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut words = line.split_whitespace();
        if let Some(kind) = words.next() {
            types.extend(words.map(|end| (end.to_owned(), kind.to_owned())));
        }
    }
    types
}

/// The type of a file of that name, if it has one.
#[must_use]
pub fn of(name: &[u8]) -> Option<&'static str> {
    let end = name.iter().rposition(|byte| *byte == b'.')?;
    TYPES.get(std::str::from_utf8(&name[end + 1..]).ok()?).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_types_has_comments_and_several_ends_to_a_type() {
        let types = read("# text/x c\ntext/css\tcss\nimage/jpeg jpeg jpg\napplication/x\n");
        assert_eq!(types.len(), 3);
        assert_eq!(types["jpg"], "image/jpeg");
    }
}
