//! Servers whose sockets are on other machines, reached through the system's ssh program.
//!
//! For each machine one ssh runs for as long as rtop does, and listens at a socket file here for each socket there. So whatever
//! reads a server, or asks its control socket, connects to a file, and all of it goes through one connection of ssh's.

mod far;
mod host;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rwsgi_stats::Address;
use tempfile::TempDir;

use self::host::{Forward, Health, Host};
use super::SourceError;
use super::connect::Deadline;

pub(crate) use self::far::{Far, FarError};

/// How often whoever waits for a tunnel looks for it.
const LOOK: Duration = Duration::from_millis(20);

/// The near end of a way to a socket on another machine.
#[derive(Clone)]
pub(crate) struct Tunnel {
    far: Far,
    near: Address,
    health: Arc<Health>,
}

/// Whether a tunnel can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TunnelState {
    /// ssh has not connected yet.
    Starting,
    /// ssh listens.
    Open,
    /// ssh ended, for this reason; it is started again after a while.
    Failed(String),
}

impl Tunnel {
    /// Where it leads.
    pub(crate) fn far(&self) -> &Far {
        &self.far
    }

    /// Where to connect to.
    pub(crate) fn near(&self) -> &Address {
        &self.near
    }

    /// Whether it can be used now.
    pub(crate) fn state(&self) -> TunnelState {
        match self.health.ended() {
            Some(why) => TunnelState::Failed(why),
            None if self.near.path().is_some_and(std::path::Path::exists) => TunnelState::Open,
            None => TunnelState::Starting,
        }
    }

    /// Waits until it can be used.
    pub(super) fn wait(&self, deadline: &Deadline) -> Result<(), SourceError> {
        loop {
            match self.state() {
                TunnelState::Open => return Ok(()),
                TunnelState::Failed(why) => return Err(SourceError::Tunnel(why)),
                TunnelState::Starting => {
                    deadline.left()?;
                    thread::sleep(LOOK);
                }
            }
        }
    }

    /// What ssh says of an error that its socket here made of something there.
    pub(super) fn explain(&self, error: SourceError) -> SourceError {
        let said = match error {
            SourceError::Empty | SourceError::Connect(_) | SourceError::Read(_) => self.health.said(),
            _ => None,
        };
        said.map_or(error, SourceError::Tunnel)
    }
}

impl PartialEq for Tunnel {
    fn eq(&self, other: &Self) -> bool {
        (&self.far, &self.near) == (&other.far, &other.near)
    }
}

impl Eq for Tunnel {}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel({} -> {})", self.near, self.far)
    }
}

/// All ssh programs that rtop has started. They end when this is dropped, and when rtop is gone in any way.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    config: Option<PathBuf>,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    /// Made when the first tunnel is.
    directory: Option<TempDir>,
    hosts: HashMap<String, Host>,
    tunnels: Vec<Tunnel>,
}

impl Tunnels {
    /// None yet; `config` takes the place of ssh's own configuration.
    pub(crate) fn new(config: Option<PathBuf>) -> Self {
        Self { config, all: Mutex::default() }
    }

    /// A tunnel to a socket: a new one, or the one that is there. ssh is started in the background.
    ///
    /// # Errors
    /// When there is no directory for the socket, or its name would be too long.
    pub(crate) fn open(&self, far: &Far) -> io::Result<Tunnel> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.tunnels.iter().find(|tunnel| tunnel.far == *far) {
            return Ok(known.clone());
        }
        let base = match &all.directory {
            Some(directory) => directory.path().to_owned(),
            None => {
                // Only its owner may enter it.
                let made = tempfile::Builder::new().prefix("rtop-").tempdir_in(runtime_directory())?;
                all.directory.insert(made).path().to_owned()
            }
        };
        let destination = far.destination();
        let number = all.tunnels.len();
        if !all.hosts.contains_key(&destination) {
            let directory = base.join(all.hosts.len().to_string());
            let host = Host::start(far, directory, self.config.clone())?;
            all.hosts.insert(destination.clone(), host);
        }
        // It was put there just now.
        let host = all.hosts.get(&destination).ok_or(io::ErrorKind::NotFound)?;
        let near = host.directory.join(format!("{number}.sock"));
        let address = near.display().to_string().parse().map_err(io::Error::other)?;
        host.add(Forward { near, to: far.to.clone() });
        let tunnel = Tunnel { far: far.clone(), near: address, health: Arc::clone(&host.health) };
        all.tunnels.push(tunnel.clone());
        Ok(tunnel)
    }
}

/// Where sockets of one user go.
fn runtime_directory() -> PathBuf {
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    named.filter(|path| path.is_dir()).unwrap_or_else(|| PathBuf::from("/tmp"))
}
