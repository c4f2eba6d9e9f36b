//! Socket addresses as people write them in options: parsed, printed, never resolved or opened here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a socket is bound or connected, in uWSGI's notation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Address {
    /// `host:port`, `[::1]:port`, or `:port`, whose host is empty: every interface to bind, this machine to connect.
    Tcp {
        /// Host name or IP address without brackets; empty when only a port was given.
        host: String,
        /// TCP port, 0 to let the system choose.
        port: u16,
    },
    /// A socket file: anything with a slash, or without a colon.
    Unix(PathBuf),
    /// `@name`: Linux's abstract namespace, without the `@`.
    Abstract(String),
}

/// An address that is none of the forms in [`Address`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("'{input}' is not an address ({reason}): expected host:port, :port, [ipv6]:port, /path/to.sock or @abstract")]
pub struct AddressError {
    input: String,
    reason: &'static str,
}

/// `sockaddr_un.sun_path` holds 108 bytes, with a NUL at one end for either kind.
const UNIX_NAME_MAX: usize = 107;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        let error = |reason| AddressError { input: input.to_owned(), reason };
        if input.is_empty() {
            return Err(error("empty"));
        }
        if input.contains('\0') {
            return Err(error("contains a NUL byte"));
        }
        if let Some(name) = input.strip_prefix('@') {
            return match name.len() {
                0 => Err(error("the abstract name is empty")),
                len if len > UNIX_NAME_MAX => Err(error("longer than 107 bytes")),
                _ => Ok(Self::Abstract(name.to_owned())),
            };
        }
        match input.rsplit_once(':') {
            Some((host, port)) if !host.contains('/') => {
                let port = port.parse().map_err(|_| error("the port is not a number from 0 to 65535"))?;
                let host = match host.strip_prefix('[') {
                    Some(bracketed) => bracketed.strip_suffix(']').ok_or_else(|| error("unclosed bracket"))?,
                    None if host.contains(':') => return Err(error("an IPv6 address needs brackets")),
                    None => host,
                };
                // `*:port` is how Apache's and nginx's users write "every interface".
                let host = if host == "*" { "" } else { host };
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            _ if input.len() > UNIX_NAME_MAX => Err(error("a socket path holds at most 107 bytes")),
            _ if input.bytes().all(|b| b.is_ascii_digit()) => Err(error("a port alone needs a colon before it")),
            _ => Ok(Self::Unix(PathBuf::from(input))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

impl Address {
    /// The socket file, for the one kind that has a file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            _ => None,
        }
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(input: String) -> Result<Self, Self::Error> {
        input.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.into(), port }
    }

    #[test]
    fn every_form_that_uwsgi_takes_is_read() {
        for (input, expected) in [
            ("127.0.0.1:9191", tcp("127.0.0.1", 9191)),
            ("localhost:80", tcp("localhost", 80)),
            (":9090", tcp("", 9090)),
            ("*:9090", tcp("", 9090)),
            ("[::1]:8000", tcp("::1", 8000)),
            ("/run/app.sock", Address::Unix("/run/app.sock".into())),
            ("./a:1/app.sock", Address::Unix("./a:1/app.sock".into())),
            ("app.sock", Address::Unix("app.sock".into())),
            ("@pool", Address::Abstract("pool".into())),
        ] {
            assert_eq!(input.parse::<Address>().unwrap(), expected, "{input}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (input, reason) in [
            ("", "empty"),
            ("@", "abstract name is empty"),
            ("localhost:http", "not a number"),
            (":70000", "not a number"),
            ("::1:8000", "needs brackets"),
            ("[::1:8000", "unclosed bracket"),
            ("9090", "needs a colon"),
        ] {
            let message = input.parse::<Address>().unwrap_err().to_string();
            assert!(message.contains(reason), "{input}: {message}");
        }
        assert!(format!("/{}", "x".repeat(107)).parse::<Address>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(input in "\\PC{1,40}") {
            if let Ok(address) = input.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }
    }
}
