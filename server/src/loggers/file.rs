//! A log file: opened again by its name when it was moved away, put aside when it is large.

use std::fs::{File, Metadata, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
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
    /// Its name is that of a descriptor of this process, which by then may be the pipe to the thread that writes here: it is
    /// neither opened again nor put aside.
    is_descriptor: bool,
    /// It is no file on a disk, but a pipe or a terminal, for one: a write can wait for somebody.
    can_hang: bool,
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
        let (is_descriptor, can_hang) = (is_descriptor(&path), !file.metadata()?.is_file());
        let (max_size, rules, is_stuck) = (about.max_size, *rules, false);
        Ok(Self { option, path, file, max_size, backup, rules, is_stuck, is_descriptor, can_hang })
    }

    /// Whether its name is that of a descriptor of this process.
    pub(crate) fn is_descriptor(&self) -> bool {
        self.is_descriptor
    }

    /// Whether a write can wait for somebody: it is no file on a disk.
    pub(crate) fn can_hang(&self) -> bool {
        self.can_hang
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
        if self.max_size == 0 || self.is_stuck || self.can_hang || self.is_descriptor {
            return None;
        }
        let size = self.file.metadata().map_or(0, |file| file.len());
        if size <= self.max_size {
            return None;
        }
        Some(self.rotate(self.option))
    }

    /// Puts the file aside, for this option, and opens a new one. One that somebody has moved already, another logger of
    /// the same file for one, is only opened again: what is there now is new.
    pub(crate) fn rotate(&mut self, option: &str) -> Remark {
        if self.can_hang || self.is_descriptor || !self.is_in_place() {
            let remark = self.reopen();
            self.is_stuck = remark.0 == Level::ERROR;
            return remark;
        }
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

    /// Whether the name still leads to the open file. A link that leads elsewhere is in the way: it is put aside.
    fn is_in_place(&self) -> bool {
        let identity = |file: std::io::Result<Metadata>| file.map(|file| (file.dev(), file.ino())).ok();
        std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.is_symlink())
            || identity(std::fs::metadata(&self.path)) == identity(self.file.metadata())
    }

    fn open_again(&mut self) -> std::io::Result<()> {
        // Privileges are dropped by now, or never.
        self.file = open(&self.path, &self.rules, None)?;
        self.can_hang = !self.file.metadata()?.is_file();
        self.is_stuck = false;
        Ok(())
    }

    /// Opens the file again by its name.
    pub(crate) fn reopen(&mut self) -> Remark {
        if self.is_descriptor {
            let path = self.path.display();
            return (Level::INFO, format!("log: '{path}' is what this process was started with: going on with it"));
        }
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
    let (file, may_give) = open_at_once(path, flags, user)?;
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

/// Opens a file without waiting for somebody who reads it, should it be a named pipe.
fn open_at_once(path: &Path, flags: OFlag, user: Option<&Identity>) -> std::io::Result<(File, bool)> {
    let open = |flags| owned_file::open_to_write(path, flags | OFlag::O_NONBLOCK, user);
    let opened = match open(flags) {
        // Nobody reads it yet. As in uWSGI, it can be read from here, too.
        Err(failure) if failure.raw_os_error() == Some(nix::libc::ENXIO) => {
            open(flags ^ OFlag::O_WRONLY | OFlag::O_RDWR)
        }
        opened => opened,
    };
    let (file, may_give) = opened?;
    fcntl(&file, FcntlArg::F_SETFL(flags & OFlag::O_APPEND))?;
    Ok((file, may_give))
}

/// Whether a path, or a link that it names, is a descriptor of this process: `/dev/stdout`.
fn is_descriptor(path: &Path) -> bool {
    /// More than the kernel follows.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        if path.starts_with("/proc") || path.starts_with("/dev/fd") {
            return true;
        }
        let Ok(to) = std::fs::read_link(&path) else { return false };
        path = path.parent().unwrap_or(Path::new("/")).join(to);
    }
    false
}

fn put_aside(path: &Path, backup: &Path) -> std::io::Result<()> {
    let find = |path| Place::find(path, Last::Keep, None);
    find(path)?.move_to(&find(backup)?)
}

/// The name of a log that was put aside now, as uWSGI gives it; with a number when there is one of this second.
fn dated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", UnixMicros::now().as_secs()));
    let numbered = |number: u32| {
        let mut name = name.clone();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        PathBuf::from(name)
    };
    let is_free = |path: &PathBuf| path.symlink_metadata().is_err();
    (0..u32::MAX).map(numbered).find(is_free).unwrap_or_else(|| numbered(0))
}
