//! Files of assertions.

use rwsgi_assertions::{Assertion, AssertionError};
use serde::Deserialize;
use thiserror::Error;

/// A file of assertions: `assert = ["p99 < 50ms", "error_rate < 0.1%"]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AssertFile {
    assert: Vec<String>,
}

/// What is wrong with a file of assertions.
#[derive(Debug, Error)]
pub(crate) enum AssertFileError {
    /// Not the TOML that is expected.
    #[error("expected assert = [\"p99 < 50ms\", …]: {0}")]
    Toml(#[from] toml::de::Error),
    /// One of its assertions.
    #[error(transparent)]
    Assertion(#[from] AssertionError),
}

/// Reads a file of assertions.
///
/// # Errors
/// When it is not the TOML that is expected, or an assertion in it cannot be read.
pub(crate) fn parse_file(text: &str) -> Result<Vec<Assertion>, AssertFileError> {
    let file: AssertFile = toml::from_str(text)?;
    Ok(file.assert.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_the_same_assertions() {
        assert_eq!(parse_file("assert = ['p99 < 50ms', 'harakiri == 0']").unwrap().len(), 2);
        assert!(parse_file("asert = []").is_err());
        assert!(parse_file("assert = ['p77 < 1s']").unwrap_err().to_string().contains("p77"));
    }
}
