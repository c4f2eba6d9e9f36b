//! A log file: opened again by its name when it was moved away, put aside when it is large.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, fchown, geteuid};
use tracing::Level;

use super::Remark;
use crate::clock::UnixMicros;
use crate::identity::Identity;
use crate::owned_file::{self, Last, Place};
use rwsgi_config::Config;

/// How log files are made: `logfile-chmod`, `logfile-chown`, `log-truncate`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FileRules {
    mode: Option<u32>,
    owner: Option<(Option<Uid>, Gid)>,
    truncate: bool,
}

impl FileRules {
    pub(crate) fn new(config: &Config, user: Option<&Identity>) -> Self {
        let logs = &config.logs;
        let owner = user.filter(|_| logs.file_chown).map(|user| (user.uid, user.gid));
        Self { mode: logs.file_mode, owner, truncate: logs.truncate }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LogFile {
    /// The option to name in messages.
    option: &'static str,
    path: PathBuf,
    file: File,
    /// Bytes after which it is put aside; 0 for never.
    max_size: u64,
    backup: Option<PathBuf>,
    rules: FileRules,
    /// Putting it aside failed, and that was logged.
    is_stuck: bool,
}

impl LogFile {
    /// Opens the file to append to it. `user` is who the server becomes.
    ///
    /// # Errors
    /// When it cannot be opened, or is not to be trusted.
    pub(crate) fn open(
        option: &'static str,
        about: &rwsgi_config::LogFile,
        rules: &FileRules,
        user: Option<&Identity>,
    ) -> std::io::Result<Self> {
        let file = open(&about.path, rules, user)?;
        if rules.truncate && file.metadata()?.is_file() {
            file.set_len(0)?;
        }
        let (path, backup) = (about.path.clone(), about.backup.clone());
        Ok(Self { option, path, file, max_size: about.max_size, backup, rules: *rules, is_stuck: false })
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes, and puts the file aside when it is too large.
    ///
    /// # Errors
    /// When the disk is full, for one.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<Option<Remark>> {
        self.file.write_all(bytes)?;
        Ok(self.rotate_if_large())
    }

    fn rotate_if_large(&mut self) -> Option<Remark> {
        if self.max_size == 0 || self.is_stuck {
            return None;
        }
        let size = self.file.metadata().map_or(0, |file| file.len());
        if size <= self.max_size {
            return None;
        }
        Some(self.rotate(self.option))
    }

    /// Puts the file aside, for this option, and opens a new one.
    pub(crate) fn rotate(&mut self, option: &str) -> Remark {
        let backup = self.backup.clone().unwrap_or_else(|| dated(&self.path));
        match put_aside(&self.path, &backup).and_then(|()| self.open_again()) {
            Ok(()) => (Level::INFO, format!("{option}: the log before this one is '{}'", backup.display())),
            Err(failure) => {
                self.is_stuck = true;
                let (from, to) = (self.path.display(), backup.display());
                (Level::ERROR, format!("{option}: cannot move '{from}' to '{to}': {failure}: it goes on growing"))
            }
        }
    }

    fn open_again(&mut self) -> std::io::Result<()> {
        // Privileges are dropped by now, or never.
        self.file = open(&self.path, &self.rules, None)?;
        self.is_stuck = false;
        Ok(())
    }

    /// Opens the file again by its name.
    pub(crate) fn reopen(&mut self) -> Remark {
        match self.open_again() {
            Ok(()) => (Level::INFO, "log file opened".into()),
            Err(failure) => {
                let path = self.path.display();
                (Level::ERROR, format!("log: cannot open '{path}' again: {failure}: going on with the old one"))
            }
        }
    }
}

fn open(path: &Path, rules: &FileRules, user: Option<&Identity>) -> std::io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NOCTTY;
    let (file, may_give) = owned_file::open_to_write(path, flags, user)?;
    // Of another kind, a mode and an owner are none of the server's business: a terminal, /dev/null.
    if !file.metadata()?.is_file() {
        return Ok(file);
    }
    if let Some(mode) = rules.mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    if let Some((uid, gid)) = rules.owner.filter(|_| may_give && geteuid().is_root()) {
        fchown(&file, uid, Some(gid))?;
    }
    Ok(file)
}

fn put_aside(path: &Path, backup: &Path) -> std::io::Result<()> {
    let find = |path| Place::find(path, Last::Keep, None);
    find(path)?.move_to(&find(backup)?)
}

/// The name of a log that was put aside now, as uWSGI gives it.
fn dated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", UnixMicros::now().as_secs()));
    name.into()
}
