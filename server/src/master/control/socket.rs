//! Binds the control socket: where nobody else can take its place, and with mode 600 from its first moment.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::SFlag;
use tracing::{info, warn};

use super::default_path;
use crate::identity::Identity;
use crate::owned_file::{Last, Place, named};
use rwsgi_config::{Config, ControlSocket};

/// How often the lock of a directory is tried, and how long between two times.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The socket's file, which is removed when this is dropped if it is still the same.
#[derive(Debug)]
pub(in crate::master) struct ControlFile {
    path: PathBuf,
    /// Its device and inode.
    made: (u64, u64),
}

impl ControlFile {
    /// Where it is.
    pub(in crate::master) fn path(&self) -> &Path {
        &self.path
    }

    fn remove(&self) -> io::Result<()> {
        // Privileges are dropped by now, or never.
        let place = Place::find(&self.path, Last::Keep, None)?;
        match place.look()? {
            Some(found) if found.identity() == self.made => place.remove(),
            _ => Ok(()),
        }
    }
}

impl Drop for ControlFile {
    fn drop(&mut self) {
        match self.remove() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!("control: cannot remove '{}': {error}: the next server there does", self.path.display());
            }
            _ => {}
        }
    }
}

/// Binds the socket that is configured, or the one that is there without being configured. `user` is who the server
/// becomes.
///
/// # Errors
/// When it cannot be bound where the configuration says.
pub(in crate::master) fn open(
    config: &Config,
    user: Option<&Identity>,
) -> anyhow::Result<Option<(ControlFile, OwnedFd)>> {
    match &config.control {
        ControlSocket::Off => Ok(None),
        ControlSocket::At(path) => {
            let path = std::path::absolute(path).context("control: cannot read the working directory")?;
            let _lock = path.parent().and_then(lock);
            let bound = bind_at(&path, user);
            Ok(Some(bound.with_context(|| format!("control: cannot listen on '{}'", path.display()))?))
        }
        ControlSocket::Default => {
            let directory = match default_path::directory(user) {
                Ok(Some(directory)) => directory,
                Ok(None) => return Ok(None),
                // Nobody has asked for it.
                Err(why) => {
                    info!("control: there is no control socket: {why}; name one by --control PATH, or off for none");
                    return Ok(None);
                }
            };
            let _lock = lock(&directory);
            default_path::remove_stale(&directory, user);
            let path = default_path::own_path(&directory);
            let bound = bind_at(&path, user);
            // Nobody has asked for it.
            let explain = |failure| warn!("control: there is no control socket '{}': {failure:#}", path.display());
            Ok(bound.map_err(explain).ok())
        }
    }
}

/// Whether nobody listens on a socket any more. Not to be found out for certain is to be alive.
pub(super) fn is_dead(path: &Path) -> bool {
    // One that listens and does not accept would keep us waiting.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let ours = socket(AddressFamily::Unix, SockType::Stream, flags, None);
    let connected = ours.and_then(|ours| connect(ours.as_raw_fd(), &UnixAddr::new(path)?));
    connected == Err(Errno::ECONNREFUSED)
}

/// Keeps other servers from taking a socket in this directory for a dead one's while it is bound and does not listen yet.
/// Who may only read the directory can keep the lock: it is not waited for, for long.
pub(super) fn lock(directory: &Path) -> Option<Flock<File>> {
    let mut directory = File::open(directory).ok()?;
    for _ in 0..TRIES {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((kept, _)) => directory = kept,
        }
        std::thread::sleep(PAUSE);
    }
    None
}

/// Replaces a socket that nobody listens on any more, but never a living one, nor another kind of file.
fn bind_at(path: &Path, user: Option<&Identity>) -> anyhow::Result<(ControlFile, OwnedFd)> {
    let place = Place::find(path, Last::Keep, user)?;
    if let Some(found) = place.look()? {
        if found.kind() != SFlag::S_IFSOCK {
            bail!("the file exists and is not a socket: remove it, or choose another path");
        }
        match is_dead(&found.path()) {
            true => place.remove()?,
            false => bail!("another process listens there: stop it, or choose another path"),
        }
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let bound = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Linux gives the file the mode that the socket has before (unix(7)).
    rustix::fs::fchmod(&bound, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    {
        let _rights = place.rights()?;
        bind(bound.as_raw_fd(), &UnixAddr::new(path)?).map_err(|error| place.explain(error.into()))?;
    }
    // `bind` takes a path, which may have led elsewhere by then.
    let found = place.look()?.filter(|found| found.kind() == SFlag::S_IFSOCK && place.is_made_by(found.owner()));
    let found =
        found.context("another program has changed its path while it was bound: name one in a directory of root")?;
    listen(&bound, Backlog::MAXALLOWABLE)?;
    let file = ControlFile { path: path.to_owned(), made: found.identity() };
    if let Some(Identity { uid: Some(uid), gid, .. }) = user
        && found.owner() != uid.as_raw()
    {
        found.give(Some(*uid), Some(*gid)).with_context(|| format!("cannot give it to {}", named(uid.as_raw())))?;
    }
    Ok((file, bound))
}
