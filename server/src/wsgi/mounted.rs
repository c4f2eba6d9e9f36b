//! Prefixes of mounted applications that are no part of `PATH_INFO` (`--manage-script-name`), for whoever looks at a path
//! before the application is chosen ([`super::application`] does that).

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::strings::from_latin1;
use rwsgi_config::Config;

/// Says in the environ that SCRIPT_NAME and PATH_INFO are the application's already. `mounts.py` takes it out.
const IS_MOVED: &str = "rwsgi.script_name_is_moved";

/// The prefixes, the longest first; none when `PATH_INFO` keeps them.
#[derive(Debug)]
pub(super) struct Mounted(Vec<String>);

impl Mounted {
    pub(super) fn new(config: &Config) -> Self {
        let mut prefixes = Vec::new();
        if config.manage_script_name {
            prefixes.extend(config.mounts.iter().map(|mount| mount.prefix.clone()).filter(|prefix| !prefix.is_empty()));
            prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        }
        Self(prefixes)
    }

    fn prefix_of(&self, path: &[u8]) -> Option<&str> {
        let mounted = self.0.iter().find(|prefix| {
            let rest = path.strip_prefix(prefix.trim_end_matches('/').as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        });
        mounted.map(String::as_str)
    }

    /// What follows the prefix of `path`, `PATH_INFO` of this environ.
    ///
    /// # Errors
    /// When Python fails.
    pub(super) fn without_prefix<'a>(&self, environ: &Bound<'_, PyDict>, path: &'a [u8]) -> PyResult<&'a [u8]> {
        match self.prefix_of(path) {
            Some(prefix) if !environ.contains(IS_MOVED)? => Ok(path.get(prefix.len()..).unwrap_or_default()),
            _ => Ok(path),
        }
    }

    /// Moves the prefix of `path`, `PATH_INFO` of this environ, to its SCRIPT_NAME.
    ///
    /// # Errors
    /// When Python has no memory left.
    pub(super) fn move_prefix(&self, py: Python<'_>, environ: &Bound<'_, PyDict>, path: &[u8]) -> PyResult<()> {
        let Some(prefix) = self.prefix_of(path) else { return Ok(()) };
        environ.set_item("SCRIPT_NAME", prefix)?;
        environ.set_item("PATH_INFO", from_latin1(py, path.get(prefix.len()..).unwrap_or_default())?)?;
        environ.set_item(IS_MOVED, true)
    }
}
