//! `ssh://` addresses.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use rwsgi_stats::Address;
use thiserror::Error;

/// A socket on another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Far {
    /// As whom; otherwise ssh decides.
    pub(super) user: Option<String>,
    /// The machine, or what ssh's configuration calls it.
    pub(crate) host: String,
    /// Where ssh's server listens; otherwise ssh decides.
    pub(super) port: Option<u16>,
    /// The socket, as that machine sees it.
    pub(super) to: Address,
}

/// What is no [`Far`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "'{input}': {reason}; expected ssh://[user@]host[:port]/path/to.sock or ssh://[user@]host[:port]/127.0.0.1:9191"
)]
pub(crate) struct FarError {
    input: String,
    reason: &'static str,
}

impl FromStr for Far {
    type Err = FarError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        let error = |reason| FarError { input: input.to_owned(), reason };
        let rest = input.strip_prefix("ssh://").ok_or_else(|| error("it does not begin with ssh://"))?;
        let (authority, socket) = rest.split_once('/').ok_or_else(|| error("it names no socket"))?;
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, authority),
        };
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| error("its port is not a number from 0 to 65535"))?))
            }
            _ => (host, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // Neither may be an option of ssh's, or something that a shell on the way would read.
        let plain =
            |word: &str| !word.starts_with('-') && word.chars().all(|c| c.is_alphanumeric() || "._-:%+".contains(c));
        if host.is_empty() || !plain(host) {
            return Err(error("its host is no name and no address"));
        }
        if user.as_deref().is_some_and(|user| user.is_empty() || !plain(user)) {
            return Err(error("its user is no name"));
        }
        let to = match socket.parse() {
            Ok(Address::Tcp { host, port }) => {
                Address::Tcp { host: if host.is_empty() { "localhost".to_owned() } else { host }, port }
            }
            Ok(Address::Abstract(_)) => return Err(error("ssh does not reach abstract sockets")),
            _ if socket.is_empty() => return Err(error("it names no socket")),
            _ => Address::Unix(PathBuf::from(format!("/{socket}"))),
        };
        // ssh would take these apart, or put something in their place.
        let is_special = |c: char| c.is_whitespace() || c.is_control() || "%$\\".contains(c);
        if to.path().is_some_and(|path| path.to_string_lossy().contains(|c| is_special(c) || c == ':'))
            || matches!(&to, Address::Tcp { host, .. } if !plain(host))
        {
            return Err(error("ssh cannot forward to this socket's name"));
        }
        Ok(Self { user, host: host.to_owned(), port, to })
    }
}

impl fmt::Display for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ssh://{}", self.destination())?;
        match &self.to {
            Address::Unix(path) => write!(f, "{}", path.display()),
            address => write!(f, "/{address}"),
        }
    }
}

impl Far {
    /// User, machine and port: what one ssh connects to.
    pub(super) fn destination(&self) -> String {
        let mut text = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        text += &if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if let Some(port) = self.port {
            text += &format!(":{port}");
        }
        text
    }

    /// Whether the socket is a file there.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.to, Address::Unix(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_another_machine_is_a_file_or_an_address() {
        for (input, printed, destination) in [
            ("ssh://web1/run/app.sock", "ssh://web1/run/app.sock", "web1"),
            ("ssh://me@web1:2222/run/app.sock", "ssh://me@web1:2222/run/app.sock", "me@web1:2222"),
            ("ssh://web1/127.0.0.1:9191", "ssh://web1/127.0.0.1:9191", "web1"),
            ("ssh://web1/:9191", "ssh://web1/localhost:9191", "web1"),
            ("ssh://[fe80::1]:22/[::1]:9191", "ssh://[fe80::1]:22/[::1]:9191", "[fe80::1]:22"),
        ] {
            let far: Far = input.parse().unwrap();
            assert_eq!((far.to_string().as_str(), far.destination().as_str()), (printed, destination));
            assert_eq!(far.to_string().parse::<Far>().unwrap(), far);
        }
    }

    #[test]
    fn nothing_of_an_address_is_an_option_of_ssh_or_a_word_of_a_shell() {
        for (input, told) in [
            ("ssh://web1", "names no socket"),
            ("ssh://web1/", "names no socket"),
            ("ssh:///run/app.sock", "no name and no address"),
            ("ssh://-oProxyCommand=x/run/app.sock", "no name and no address"),
            ("ssh://web1;id/run/app.sock", "no name and no address"),
            ("ssh://-l@web1/run/app.sock", "user is no name"),
            ("ssh://web1:x/run/app.sock", "not a number"),
            ("ssh://web1/@abstract", "abstract"),
            ("ssh://web1/run/a:b/app.sock", "cannot forward"),
            ("ssh://web1/run/%h.sock", "cannot forward"),
            ("ssh://web1/-x:1", "cannot forward"),
        ] {
            let error = input.parse::<Far>().unwrap_err().to_string();
            assert!(error.contains(told), "{input}: {error}");
        }
    }
}
