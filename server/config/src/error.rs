//! What can be wrong with a configuration, each as one line for the person who wrote it.

use std::path::PathBuf;

use thiserror::Error;

use super::setting::Origin;

/// Why the server cannot be started as asked. The message is one line.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// No option goes by this name.
    #[error("{origin}: there is no option '{name}'{}", nearest_hint(.nearest.as_deref()))]
    UnknownOption {
        /// Where it was used.
        origin: Origin,
        /// The name as it was written, without dashes.
        name: String,
        /// The option whose name is nearest, if one is near.
        nearest: Option<String>,
    },
    /// An option of uWSGI's that is not available.
    #[error("{origin}: uWSGI's option {name} is not available here: {advice}")]
    NotHere {
        /// Where it was used.
        origin: Origin,
        /// Its name.
        name: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// The value is not what the option takes.
    #[error("{origin}: {option}: {problem}")]
    BadValue {
        /// Where it was given.
        origin: Origin,
        /// The option's name as it was written.
        option: String,
        /// What was expected, and what it got.
        problem: String,
    },
    /// The arguments do not form a command line.
    #[error("command line: {0}")]
    CommandLine(String),
    /// A file could not be read.
    #[error("{origin}: cannot read {}: {failure}", .path.display())]
    Read {
        /// Who asked for the file.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// What the system said.
        failure: std::io::Error,
    },
    /// A file was read and is not what its notation asks for, or an option in it is out of place.
    #[error("{origin}: {problem}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// Nothing that requests could come in by.
    #[error(
        "no address to serve on: give --http ADDRESS (as in --http :9090), --http-socket ADDRESS behind a proxy, \
         or --socket ADDRESS for uwsgi_pass"
    )]
    NoSocket,
    /// Nothing to serve.
    #[error("no application to serve: give --module MODULE[:CALLABLE] or --wsgi-file FILE")]
    NoApplication,
    /// Options that do not go together.
    #[error("{0}")]
    Conflict(String),
}

fn nearest_hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default()
}
