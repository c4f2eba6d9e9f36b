//! `declare-option`: options that a configuration declares, each of which sets other options.

use super::ConfigError;
use super::setting::Setting;

/// An option that was declared as `NAME=OPTION=VALUE;OPTION=VALUE…`, where `$1`, `$2` … are the words of its value.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) name: String,
    /// Names and values of the options that it sets, with `$1` in them. A part without `=` sets nothing: Debian declares
    /// names in that way.
    options: Vec<(String, String)>,
}

impl Declared {
    /// Reads the value of a `declare-option`.
    ///
    /// # Errors
    /// When it has no `=`.
    pub(super) fn of(setting: &Setting) -> Result<Self, ConfigError> {
        let Some((name, rule)) = setting.value.split_once('=') else {
            let problem = format!("expected NAME=OPTION=VALUE;…, got '{}'", setting.value);
            return Err(ConfigError::BadValue {
                origin: setting.origin.clone(),
                option: setting.name.clone(),
                problem,
            });
        };
        let part = |part: &str| part.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Self { name: name.into(), options: rule.split(';').filter_map(part).collect() })
    }

    /// The names and values of the options that it sets when it has this value.
    pub(super) fn stands_for(&self, value: &str) -> Vec<(String, String)> {
        let words: Vec<&str> = value.split(' ').collect();
        // From the last on, so that $1 does not replace the beginning of $10.
        let fill = |text: &str| {
            (1..=words.len())
                .rev()
                .fold(text.to_owned(), |text, number| text.replace(&format!("${number}"), words[number - 1]))
        };
        self.options.iter().map(|(name, value)| (fill(name), fill(value))).collect()
    }
}
