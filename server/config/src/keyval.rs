//! Values of the form `key=value,key=value`, as uWSGI reads them.

/// The items of a list between commas: each key with its value, or `None` where there is no `=`. A backslash takes the
/// meaning from the character after it, so that `\,` is a comma of the value.
pub(crate) fn items(value: &str) -> Vec<(String, Option<String>)> {
    let mut items = vec![String::new()];
    let mut is_escaped = false;
    for character in value.chars() {
        match (character, is_escaped) {
            (',', false) => items.push(String::new()),
            ('\\', false) => is_escaped = true,
            (character, _) => {
                is_escaped = false;
                if let Some(item) = items.last_mut() {
                    item.push(character);
                }
            }
        }
    }
    items.retain(|item| !item.is_empty());
    let pair = |item: String| match item.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (item, None),
    };
    items.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backslash_keeps_a_comma_in_a_value() {
        let found = items(r"cmd=redis --save 1\,2 a=b,freq=3,,x");
        let expected = [("cmd", Some("redis --save 1,2 a=b")), ("freq", Some("3")), ("x", None)];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned))));
    }
}
