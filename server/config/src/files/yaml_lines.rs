//! YAML as uWSGI's own reader takes it, for files that are no YAML: lines of `key: value` under a section, and the value is
//! the rest of the line, whatever is in it. A `#` begins a comment anywhere. Lists, which uWSGI's reader stops at, are
//! read.

use super::{Pair, SyntaxError, no_section, wanted};

pub(super) fn read(text: &str, asked: Option<&str>) -> Result<Vec<Pair>, SyntaxError> {
    let mut pairs: Vec<Pair> = Vec::new();
    // How far the section's name is indented.
    let mut section = None;
    // And its first option: nothing but a list's values stands deeper.
    let mut options = None;
    let mut sections = Vec::new();
    for (index, whole) in text.lines().enumerate() {
        let line = index + 1;
        let content = whole.split('#').next().unwrap_or_default();
        let depth = content.len() - content.trim_start_matches(' ').len();
        let content = content.trim();
        if content.is_empty() || content == "---" {
            continue;
        }
        if section.is_some_and(|section| depth <= section) {
            section = None;
        }
        if section.is_none() {
            if let Some(name) = content.strip_suffix(':') {
                sections.push(name.to_owned());
                section = wanted(name, asked).then_some(depth);
            }
            continue;
        }
        match (content.strip_prefix('-'), content.split_once(':')) {
            // The first of a list takes the place of the empty value before it.
            (Some(item), _) if item.starts_with(' ') => match pairs.last_mut() {
                Some(last) if last.value.is_empty() => last.value = item.trim().into(),
                Some(last) => {
                    let key = last.key.clone();
                    pairs.push(Pair { key, value: item.trim().into(), line });
                }
                None => return Err(SyntaxError { line, problem: "this list belongs to no option".into() }),
            },
            (_, Some((key, value))) if depth <= *options.get_or_insert(depth) => {
                pairs.push(Pair { key: key.trim_end().into(), value: value.trim_start().into(), line });
            }
            _ => return Err(SyntaxError { line, problem: format!("expected 'option: value', got '{content}'") }),
        }
    }
    match sections.iter().any(|name| wanted(name, asked)) {
        true => Ok(pairs),
        false => Err(no_section(asked, &sections)),
    }
}
