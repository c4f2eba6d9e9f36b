//! What names a fleet's servers: files that list them, names with several addresses. Each is read again and again, by a thread
//! of its own.

mod list;

use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use rwsgi_stats::Address;

use super::names::{Resolved, resolve};
use crate::source::{Spot, Target};

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often a name is resolved.
const RESOLVE: Duration = Duration::from_secs(30);
/// A file that is longer lists no servers.
const LONGEST: u64 = 16 << 20;

/// A server that is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Where it is.
    pub(super) spot: Spot,
    /// What it is called; its address when empty.
    pub(super) name: String,
    /// What is said of it besides.
    pub(super) labels: Vec<(String, String)>,
}

impl Named {
    /// One of which only the address is known.
    pub(super) fn by_address(spot: Spot) -> Self {
        Self { spot, name: String::new(), labels: Vec::new() }
    }
}

/// What was read: the servers, or what is wrong.
pub(super) type Read = Result<Vec<Named>, String>;

/// Watches a file: tells what it lists when that changes, until `end` is closed.
pub(super) fn watch_file(path: &Path, end: &Receiver<()>, tell: impl Fn(Read)) {
    let mut last = None;
    loop {
        let now = stamp(path);
        if last.as_ref() != Some(&now) {
            tell(now.as_ref().map_err(Clone::clone).and_then(|_| read_file(path)));
            last = Some(now);
        }
        if !matches!(end.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

/// What changes when a file does.
fn stamp(path: &Path) -> Result<(u64, Option<SystemTime>), String> {
    let data = fs::metadata(path).map_err(|error| error.to_string())?;
    Ok((data.len(), data.modified().ok()))
}

fn read_file(path: &Path) -> Read {
    let text = read_text(path).map_err(|error| error.to_string())?;
    let is_json = path.extension().is_some_and(|kind| kind == "json");
    if is_json { list::parse_json(&text) } else { list::parse(&text) }
}

fn read_text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > LONGEST {
        return Err(io::Error::other(format!("it is longer than {} MiB", LONGEST >> 20)));
    }
    fs::read_to_string(path)
}

/// Resolves a name again and again: tells each time what it stands for, until `end` is closed.
pub(super) fn watch_name(target: &Target, end: &Receiver<()>, tell: impl Fn(Read)) {
    let Address::Tcp { host, .. } = target.address() else { return };
    loop {
        tell(servers_of(target, resolve(host)));
        if !matches!(end.recv_timeout(RESOLVE), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

fn servers_of(target: &Target, resolved: Resolved) -> Read {
    let named = |ip: IpAddr| Named::by_address(Spot::Near(target.at(ip)));
    resolved.map(|addresses| addresses.into_iter().map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_a_name_is_a_server() {
        let target: Target = "http://web:9191/stats".parse().unwrap();
        let servers =
            servers_of(&target, Ok(vec![IpAddr::from([192, 0, 2, 7]), "2001:db8::1".parse().unwrap()])).unwrap();
        let spots: Vec<String> = servers.iter().map(|named| named.spot.to_string()).collect();
        assert_eq!(spots, ["http://192.0.2.7:9191/stats", "http://[2001:db8::1]:9191/stats"]);
        assert_eq!(servers_of(&target, Err("no".to_owned())), Err("no".to_owned()));
    }
}
