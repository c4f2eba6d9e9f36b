//! uWSGI's magic variables: a percent sign and one character stand for something about the file or the machine.

use std::collections::BTreeMap;
use std::path::Path;

use super::surroundings::Surroundings;

/// What each character stands for at one point of the reading.
#[derive(Clone, Debug)]
pub(super) struct Magic {
    values: BTreeMap<char, String>,
    /// The first file has been seen: the capital letters are its own for good.
    first_seen: bool,
}

impl Magic {
    pub(super) fn new(around: &Surroundings) -> Self {
        let values = [
            ('v', around.directory.to_string_lossy().into_owned()),
            ('b', around.program.to_string_lossy().into_owned()),
            ('h', around.hostname.clone()),
            ('t', around.time.as_secs().to_string()),
            ('T', around.time.as_micros().to_string()),
            ('V', env!("CARGO_PKG_VERSION").into()),
            ('k', around.cores.to_string()),
            ('[', "\x1b".into()),
            ('u', around.uid.to_string()),
            ('U', around.user.clone()),
            ('g', around.gid.to_string()),
            ('G', around.group.clone()),
        ];
        Self { values: values.into(), first_seen: false }
    }

    /// From now on, about this file. `named` is how it was asked for, `section` the one that was asked for.
    pub(super) fn enter(&mut self, path: &Path, named: &str, section: Option<&str>, around: &Surroundings) {
        let is_link = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        let absolute = around.directory.join(path);
        // A symbolic link gives its own name: one file can be linked under many names, each of which is to be another
        // site.
        let full = if is_link { absolute } else { std::fs::canonicalize(path).unwrap_or(absolute) };
        let full = full.to_string_lossy().into_owned();
        let (directory, name) = full.rsplit_once('/').unwrap_or(("", &full));
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let inode = std::fs::symlink_metadata(path).map(|metadata| std::os::unix::fs::MetadataExt::ino(&metadata));
        let mut set = |key, value: &str| self.values.insert(key, value.to_owned());
        set('o', named);
        set('p', &full);
        set('s', name);
        set('d', &format!("{directory}/"));
        set('c', directory.rsplit('/').next().unwrap_or_default());
        set('e', extension);
        set('n', stem);
        set('x', section.unwrap_or_default());
        set('i', &inode.map(|inode| inode.to_string()).unwrap_or_default());
        set('j', &name_hash(&full));
        let mut parts = directory.split('/').filter(|part| !part.is_empty());
        for digit in '0'..='9' {
            set(digit, parts.next().unwrap_or_default());
        }
        if !self.first_seen {
            self.first_seen = true;
            for key in ['o', 'p', 's', 'd', 'c', 'e', 'n', 'x', 'i', 'j'] {
                let value = self.values[&key].clone();
                self.values.insert(key.to_ascii_uppercase(), value);
            }
        }
    }

    /// Each character and what it stands for now.
    pub(super) fn all(&self) -> Vec<(char, String)> {
        let set = self.values.iter().filter(|(_, value)| !value.is_empty());
        std::iter::once(('%', "%".to_owned())).chain(set.map(|(key, value)| (*key, value.clone()))).collect()
    }

    /// The text with every magic variable replaced, and the characters that are none: uWSGI drops those, percent sign
    /// and all, which the author of `%Y` did not expect. `%(` is left for references.
    pub(super) fn apply(&self, text: &str) -> (String, Vec<char>) {
        let mut result = String::with_capacity(text.len());
        let mut unknown = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                result.push(character);
                continue;
            }
            match characters.clone().next() {
                Some('%') => result.push('%'),
                Some(key) if self.values.contains_key(&key) => result.push_str(&self.values[&key]),
                Some(key) if key.is_ascii_alphanumeric() => unknown.push(key),
                _ => {
                    result.push('%');
                    continue;
                }
            }
            characters.next();
        }
        (result, unknown)
    }
}

/// `%j`: Bernstein's hash of the path as uWSGI prints it, its bytes from the lowest.
fn name_hash(path: &str) -> String {
    let hash = path.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    hash.to_le_bytes().iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_that_uwsgi_prints() {
        assert_eq!(name_hash("/tmp/cfgt/a.ini"), "74CD3333");
    }
}
