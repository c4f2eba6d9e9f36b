//! Where the application comes from.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;

/// Where the application is. uWSGI loads all that it is given and serves the first of these, whatever their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppSource {
    /// `--module`: an importable module; empty when nothing has been given.
    Module(String),
    /// `--wsgi-file`: a Python file, relative to `chdir`.
    File(PathBuf),
    /// `--pecan`: a configuration file of Pecan's.
    Pecan(String),
    /// `--paste`: what PasteDeploy loads, as `config:/etc/app.ini#name`.
    Paste(String),
    /// `--eval`: Python code that defines it.
    Eval(String),
}

impl AppSource {
    /// Has no option named one?
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Module(module) if module.is_empty())
    }

    /// The option that names it, and its place among them: the lowest is served.
    fn kind(&self) -> (u8, &'static str) {
        match self {
            Self::Module(_) => (0, "module"),
            Self::File(_) => (1, "wsgi-file"),
            Self::Pecan(_) => (2, "pecan"),
            Self::Paste(_) => (3, "paste"),
            Self::Eval(_) => (4, "eval"),
        }
    }

    /// Takes `self` as the application, or leaves the one that is served before it, and warns if there are two.
    pub(super) fn choose(self, config: &mut Config) {
        let (rank, kind) = self.kind();
        if config.app.is_none() {
            config.app = self;
            return;
        }
        let (other_rank, other) = config.app.kind();
        if rank != other_rank {
            let (served, not) = if rank < other_rank { (&self, &config.app) } else { (&config.app, &self) };
            let (first, second) = if rank < other_rank { (kind, other) } else { (other, kind) };
            let warning = format!("a {first} and a {second} are both given: '{served}' is served, and not {not}");
            config.warnings.push(warning);
        }
        if rank <= other_rank {
            config.app = self;
        }
    }
}

impl fmt::Display for AppSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Module(text) | Self::Pecan(text) | Self::Paste(text) | Self::Eval(text) => f.write_str(text),
        }
    }
}

/// `--mount`: an application under a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Begins with a slash, and may end in one, which then belongs to `SCRIPT_NAME`; empty for the root.
    pub prefix: String,
    /// Where the application is.
    pub app: AppSource,
    /// Its name there; `None` for [`Config::callable`].
    pub callable: Option<String>,
}
