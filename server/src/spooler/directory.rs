//! The directories that jobs lie in: before anybody works in them, and open for the process that does.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::stat::Mode;

use crate::identity::Identity;
use crate::owned_file::{Last, Place};
use rustix::fs::{Mode as FileMode, OFlags, open};
use rwsgi_config::Config;

/// Makes the directories that are not there, and has all of them called by their real names, as `spool()` knows them.
///
/// # Errors
/// When one cannot be made or entered.
pub(crate) fn prepare(config: &mut Config) -> anyhow::Result<()> {
    let user = Identity::of(config)?;
    for directory in config.spooler.directories.iter_mut().chain(&mut config.spooler.external) {
        match make(directory, user.as_ref()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("spooler: cannot make '{}'", directory.display()));
            }
            _ => {}
        }
        *directory = std::fs::canonicalize(&*directory)
            .with_context(|| format!("spooler: cannot enter '{}'", directory.display()))?;
    }
    Ok(())
}

/// The user that the server becomes must be able to write there.
fn make(directory: &Path, user: Option<&Identity>) -> io::Result<()> {
    // Root leaves an existing directory as it is.
    if directory.is_dir() {
        return Ok(());
    }
    let place = Place::find(directory, Last::Keep, user)?;
    let mode = Mode::S_IRWXU | Mode::S_IRGRP | Mode::S_IXGRP;
    place.make_directory(mode, user.and_then(|user| user.uid), user.map(|user| user.gid))
}

/// A directory of jobs that is open, so that its files are found without a look at each part of its path.
#[derive(Debug)]
pub(crate) struct JobDirectory {
    path: PathBuf,
    fd: OwnedFd,
}

impl JobDirectory {
    /// Opens it.
    ///
    /// # Errors
    /// When it is not there, or not to be entered.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { path: path.to_owned(), fd: open(path, flags, FileMode::empty())? })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for JobDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
