//! One option as it was given, and where.

use std::fmt;
use std::path::PathBuf;

/// One option or file as given.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Argument {
    /// An option by the name that was used.
    Option(String, String),
    /// A configuration file.
    File(String),
}

/// One option as it was given somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// As an argument.
    CommandLine,
    /// In a file, on a line counted from 1.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// In this environment variable.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}
