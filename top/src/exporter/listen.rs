//! Where the exporter listens: `[HOST:]PORT`.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::str::FromStr;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// A name or an address; empty for every address of this machine.
    host: String,
    port: u16,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let port = port.parse().map_err(|_| "expected a port, HOST:PORT, or :PORT for every address".to_owned())?;
        if bare.is_none() && host.contains(':') {
            return Err("an IPv6 address goes in brackets: [::1]:9117".to_owned());
        }
        Ok(Self { host: bare.unwrap_or(host).to_owned(), port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Listen {
    pub(super) fn bind(&self) -> io::Result<TcpListener> {
        if !self.host.is_empty() {
            return TcpListener::bind((self.host.as_str(), self.port));
        }
        // The IPv6 socket takes IPv4 as well; some machines have no IPv6.
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, self.port)).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
            _ => TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_of_this_machine_and_a_colon_means_everybody() {
        for (text, shown) in [
            ("9117", "127.0.0.1:9117"),
            (":9117", ":9117"),
            ("web1:9117", "web1:9117"),
            ("[::1]:9117", "[::1]:9117"),
            ("0.0.0.0:1", "0.0.0.0:1"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), shown);
        }
        for text in ["", ":", "web1", "web1:", "1:2:3", "::1", ":70000"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
