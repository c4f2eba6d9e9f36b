//! Addresses of stats servers as they are typed: a socket in uWSGI's notation, or an `http://` URL.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rwsgi_stats::{Address, AddressError};
use thiserror::Error;

use super::ssh::Tunnel;

/// Where a stats server listens, and what it speaks there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// It sends its document as soon as somebody connects.
    Socket(Address),
    /// It answers a GET.
    Http {
        /// Host and port.
        address: Address,
        /// Path and query, with the leading slash.
        path: String,
    },
    /// Its socket is on another machine, and ssh leads there.
    Tunnel(Tunnel),
}

/// A target that is none of the forms of [`Target`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum TargetError {
    /// Neither an address nor a URL.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Stats servers speak plain text.
    #[error("'{0}': https is not spoken by stats servers; use http://, or a tunnel such as ssh -L")]
    Https(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        if input.starts_with("https://") {
            return Err(TargetError::Https(input.to_owned()));
        }
        let Some(url) = input.strip_prefix("http://") else {
            // uWSGI's own option takes unix:/path as well as /path.
            return Ok(Self::Socket(input.strip_prefix("unix:").unwrap_or(input).parse()?));
        };
        let (authority, path) = match url.find(['/', '?']) {
            Some(end) => url.split_at(end),
            None => (url, "/"),
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let address = if has_port { authority.parse()? } else { format!("{authority}:80").parse()? };
        Ok(Self::Http { address, path })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "{address}"),
            Self::Http { address, path } => write!(f, "http://{address}{path}"),
            Self::Tunnel(tunnel) => tunnel.far().fmt(f),
        }
    }
}

impl Target {
    /// The socket to connect to.
    pub(crate) fn address(&self) -> &Address {
        match self {
            Self::Socket(address) | Self::Http { address, .. } => address,
            Self::Tunnel(tunnel) => tunnel.near(),
        }
    }

    /// The same at this address of its host.
    pub(super) fn at(&self, ip: IpAddr) -> Self {
        let mut target = self.clone();
        if let Self::Socket(Address::Tcp { host, .. }) | Self::Http { address: Address::Tcp { host, .. }, .. } =
            &mut target
        {
            *host = ip.to_string();
        }
        target
    }

    /// What has to be sent before a document comes; `None` where it comes unasked.
    pub(super) fn request(&self) -> Option<String> {
        let Self::Http { address, path } = self else { return None };
        // HTTP/1.0: the answer is not chunked, and ends with the connection.
        let host = match address {
            Address::Tcp { host, .. } if host.is_empty() => format!("localhost{address}"),
            Address::Tcp { .. } => address.to_string(),
            Address::Unix(_) | Address::Abstract(_) => "localhost".to_owned(),
        };
        Some(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"))
    }

    /// Whether it may be a control socket, which waits to be asked.
    pub(super) fn may_be_control(&self) -> bool {
        match self {
            Self::Socket(address) => !matches!(address, Address::Tcp { .. }),
            Self::Http { .. } => false,
            Self::Tunnel(tunnel) => tunnel.far().is_unix(),
        }
    }

    /// Whether the address says that the server is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Socket(Address::Tcp { host, .. }) | Self::Http { address: Address::Tcp { host, .. }, .. } => {
                host.is_empty()
                    || host == "localhost"
                    || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback() || ip.is_unspecified())
            }
            Self::Tunnel(_) => false,
            _ => true,
        }
    }

    /// The machine's name: what the address says of it, or this one's for a socket that has no host.
    pub(crate) fn node(&self) -> Option<String> {
        match self {
            Self::Socket(Address::Tcp { host, .. }) | Self::Http { address: Address::Tcp { host, .. }, .. } => {
                Some(if host.is_empty() { "localhost".to_owned() } else { host.clone() })
            }
            Self::Tunnel(tunnel) => Some(tunnel.far().host.clone()),
            _ => {
                let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
                Some(name.trim().to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_uwsgitop_takes_is_read() {
        for (input, printed) in [
            ("127.0.0.1:9191", "127.0.0.1:9191"),
            (":9191", ":9191"),
            ("[::1]:9191", "[::1]:9191"),
            ("/run/stats.sock", "/run/stats.sock"),
            ("unix:/run/stats.sock", "/run/stats.sock"),
            ("@stats", "@stats"),
            ("http://web1:9191", "http://web1:9191/"),
            ("http://web1/stats?x=1", "http://web1:80/stats?x=1"),
            ("http://[::1]:9191/s", "http://[::1]:9191/s"),
            ("http://[::1]", "http://[::1]:80/"),
        ] {
            assert_eq!(input.parse::<Target>().unwrap().to_string(), printed, "{input}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_what_to_type() {
        assert!("https://web1".parse::<Target>().unwrap_err().to_string().contains("http://"));
        assert!("9191".parse::<Target>().unwrap_err().to_string().contains("needs a colon"));
        assert!("http://web1:x".parse::<Target>().unwrap_err().to_string().contains("not a number"));
    }
}
