//! A request's variables, as the application finds them in its environ: names and values as bytes, the latest first.

/// A request's variables. The memory is used again for the next request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// How many entries came with the request; those behind them were set by rules.
    came: usize,
}

/// Where a name and its value are: the value follows the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    start: usize,
    name: usize,
    value: usize,
}

impl Variables {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.came = 0;
    }

    /// Adds a variable that the request came with.
    pub fn came_with(&mut self, name: &[u8], value: &[u8]) {
        self.set(name, value);
        self.came = self.entries.len();
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.entries.push(Entry { start: self.bytes.len(), name: name.len(), value: value.len() });
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
    }

    /// The value of a variable: the one that was set last.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let entry = self.entries.iter().rev().find(|entry| self.name(entry) == name)?;
        Some(self.value(entry))
    }

    /// How many there are, for [`Self::set_since`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What rules have set, in order.
    pub fn set_by_rules(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.set_since(self.came)
    }

    /// What was set after there were `count`, in order.
    pub fn set_since(&self, count: usize) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().skip(count).map(|entry| (self.name(entry), self.value(entry)))
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.start..entry.start + entry.name]
    }

    fn value(&self, entry: &Entry) -> &[u8] {
        let start = entry.start + entry.name;
        &self.bytes[start..start + entry.value]
    }

    /// An argument of the query string, still encoded.
    pub(crate) fn argument(&self, name: &[u8]) -> Option<&[u8]> {
        value_of(self.get(b"QUERY_STRING")?.split(|byte| *byte == b'&'), name)
    }

    /// A cookie.
    pub(crate) fn cookie(&self, name: &[u8]) -> Option<&[u8]> {
        let cookies = self.get(b"HTTP_COOKIE")?.split(|byte| *byte == b';');
        value_of(cookies.map(<[u8]>::trim_ascii), name)
    }
}

/// The first value of that name that is not empty.
fn value_of<'a>(pairs: impl Iterator<Item = &'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    pairs
        .filter_map(|pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            (pair[..equals] == *name && pair.len() > equals + 1).then(|| &pair[equals + 1..])
        })
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_that_was_set_last_counts() {
        let mut variables = Variables::default();
        variables.came_with(b"A", b"1");
        variables.came_with(b"B", b"2");
        variables.set(b"A", b"3");
        assert_eq!(variables.get(b"A"), Some(&b"3"[..]));
        assert_eq!(variables.get(b"B"), Some(&b"2"[..]));
        assert_eq!(variables.get(b"C"), None);
        assert_eq!(variables.set_by_rules().collect::<Vec<_>>(), [(&b"A"[..], &b"3"[..])]);
        variables.clear();
        assert!(variables.is_empty());
        assert_eq!(variables.get(b"A"), None);
    }

    #[test]
    fn arguments_and_cookies_are_found_by_name() {
        let mut variables = Variables::default();
        variables.came_with(b"QUERY_STRING", b"a=&b=1&a=2=3&bb");
        variables.came_with(b"HTTP_COOKIE", b"session=x y ; b=2;c");
        assert_eq!(variables.argument(b"a"), Some(&b"2=3"[..]));
        assert_eq!(variables.argument(b"b"), Some(&b"1"[..]));
        assert_eq!(variables.argument(b"bb"), None);
        assert_eq!(variables.cookie(b"session"), Some(&b"x y"[..]));
        assert_eq!(variables.cookie(b"b"), Some(&b"2"[..]));
        assert_eq!(variables.cookie(b"c"), None);
    }
}
