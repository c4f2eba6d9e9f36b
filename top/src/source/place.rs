//! What is named on the command line: a server, or something that knows of servers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rwsgi_stats::{Address, AddressError};
use thiserror::Error;

use super::Target;
use super::prometheus::{Prometheus, PrometheusError};
use super::ssh::{Far, FarError};
use super::target::TargetError;

/// Where rtop looks for stats when a name is given without a port.
const USUAL_PORT: u16 = 9191;

/// One word of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A server.
    Server(Spot),
    /// A file that lists servers; it is read again when it changes.
    File(PathBuf),
    /// All addresses of a name, which is resolved again and again.
    Dns(Target),
    /// All servers that a Prometheus has scraped.
    Prometheus(Prometheus),
}

/// Where one server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// It can be connected to.
    Near(Target),
    /// It can be connected to from another machine, which ssh reaches.
    Far(Far),
}

/// What is no [`Place`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum PlaceError {
    /// Neither an address nor a URL.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// It begins with `ssh://`.
    #[error(transparent)]
    Far(#[from] FarError),
    /// It begins with `prometheus://`.
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
    /// It begins with `dns:`.
    #[error("'{0}': expected dns:name, dns:name:port or dns:http://name:port/path")]
    Dns(String),
    /// It begins with `@`, and has the name of a file.
    #[error("'@{}': there is no such file (the abstract socket of this name is unix:@{})", .0.display(), .0.display())]
    NoFile(PathBuf),
}

impl FromStr for Spot {
    type Err = PlaceError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        if input.starts_with("ssh://") { Ok(Self::Far(input.parse()?)) } else { Ok(Self::Near(input.parse()?)) }
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        if let Some(name) = input.strip_prefix("dns:") {
            return dns(name).ok_or_else(|| PlaceError::Dns(input.to_owned()));
        }
        if input.starts_with("prometheus://") {
            return Ok(Self::Prometheus(input.parse()?));
        }
        // An abstract socket begins with @ as well; the file system tells which is meant.
        if let Some(path) = input.strip_prefix('@').map(Path::new) {
            if path.exists() {
                return Ok(Self::File(path.to_owned()));
            }
            let named_as_a_list = path.extension().is_some_and(|kind| kind == "txt" || kind == "json");
            if named_as_a_list || path.is_absolute() {
                return Err(PlaceError::NoFile(path.to_owned()));
            }
        }
        Ok(Self::Server(input.parse()?))
    }
}

/// A target whose host is a name, with the usual port where none is given.
fn dns(name: &str) -> Option<Place> {
    let with_port = || format!("{name}:{USUAL_PORT}");
    let target: Target = if name.starts_with("http://") || name.contains(':') {
        name.parse().ok()?
    } else {
        with_port().parse().ok()?
    };
    match target.address() {
        Address::Tcp { host, port } if !host.is_empty() && *port > 0 => Some(Place::Dns(target)),
        _ => None,
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Near(target) => target.fmt(f),
            Self::Far(far) => far.fmt(f),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(spot) => spot.fmt(f),
            Self::File(path) => write!(f, "@{}", path.display()),
            Self::Dns(target) => write!(f, "dns:{target}"),
            Self::Prometheus(prometheus) => prometheus.fmt(f),
        }
    }
}

impl From<AddressError> for PlaceError {
    fn from(error: AddressError) -> Self {
        Self::Target(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_says_what_it_stands_for() {
        let list = tempfile::Builder::new().suffix(".txt").tempfile().unwrap();
        let file = format!("@{}", list.path().display());
        for (input, printed) in [
            (":9191", ":9191"),
            ("http://web1", "http://web1:80/"),
            ("@stats", "@stats"),
            ("dns:web", "dns:web:9191"),
            ("dns:web:1717", "dns:web:1717"),
            ("dns:http://web:9191/stats", "dns:http://web:9191/stats"),
            ("ssh://web1/run/app.sock", "ssh://web1/run/app.sock"),
            (&file, &file),
            ("prometheus://mon:9090/?job=app", "prometheus://mon:9090/?job=app"),
        ] {
            assert_eq!(input.parse::<Place>().unwrap().to_string(), printed, "{input}");
        }
        assert!(matches!(file.parse(), Ok(Place::File(_))));
        assert!(matches!("@stats".parse(), Ok(Place::Server(Spot::Near(Target::Socket(Address::Abstract(_)))))));
        let named = format!("unix:{file}");
        assert!(matches!(named.parse(), Ok(Place::Server(Spot::Near(Target::Socket(Address::Abstract(_)))))));
    }

    #[test]
    fn what_stands_for_nothing_says_what_to_type() {
        for (input, told) in [
            ("@none.txt", "no such file"),
            ("@/none/there", "unix:@/none/there"),
            ("dns:", "expected dns:name"),
            ("dns::9191", "expected dns:name"),
            ("dns:web:x", "expected dns:name"),
            ("9191", "needs a colon"),
        ] {
            let error = input.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains(told), "{input}: {error}");
        }
    }
}
