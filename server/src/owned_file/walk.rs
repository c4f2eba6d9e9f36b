//! The way along a path, name by name.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::Uid;

use super::{Last, Place, named, no_name, open_directory, refusal, with_rights_told};
use crate::identity::{FileRights, Identity};

/// Links that one path may lead through, as the kernel has it.
const LINKS_MAX: usize = 40;

/// The way along a path.
pub(super) struct Walk<'a> {
    user: Option<&'a Identity>,
    /// Where it has come to, and how that is called.
    directory: OwnedFd,
    at: PathBuf,
    /// The names that are left.
    rest: VecDeque<OsString>,
    links: usize,
    /// Those of whoever has made a link that was followed, or could have, if that is not root.
    rights: Option<(Identity, FileRights)>,
}

impl<'a> Walk<'a> {
    pub(super) fn begin(path: &Path, user: Option<&'a Identity>) -> io::Result<Self> {
        let directory = open_directory(Path::new("."))?;
        let mut walk = Self { user, directory, at: PathBuf::new(), rest: VecDeque::new(), links: 0, rights: None };
        walk.insert(path)?;
        Ok(walk)
    }

    /// What is left of the way begins with this path.
    fn insert(&mut self, path: &Path) -> io::Result<()> {
        if path.is_absolute() {
            self.directory = open_directory(Path::new("/"))?;
            self.at = PathBuf::from("/");
        }
        let names: Vec<_> = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
            .map(|part| part.as_os_str().to_owned())
            .collect();
        for name in names.into_iter().rev() {
            self.rest.push_front(name);
        }
        Ok(())
    }

    /// Goes to the directory; returns the last name, and whether it is a link that only the kernel can follow.
    pub(super) fn go(&mut self, last: Last) -> io::Result<(OsString, bool)> {
        loop {
            let name = self.rest.pop_front().ok_or_else(no_name)?;
            let is_last = self.rest.is_empty();
            if is_last && name == ".." {
                return Err(no_name());
            }
            if is_last && last == Last::Keep {
                return Ok((name, false));
            }
            let here = fstat(&self.directory)?;
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let node = match openat(&self.directory, name.as_os_str(), flags, Mode::empty()) {
                Ok(node) => node,
                Err(Errno::ENOENT) if is_last => return Ok((name, false)),
                Err(error) => return Err(error.into()),
            };
            let stat = fstat(&node)?;
            let is_link = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK;
            if is_last && !is_link {
                return Ok((name, false));
            }
            if !is_link {
                self.enter(name, node);
            } else if fstatfs(&self.directory)?.filesystem_type() == PROC_SUPER_MAGIC {
                if is_last {
                    return Ok((name, true));
                }
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                let node = openat(&self.directory, name.as_os_str(), flags, Mode::empty())?;
                self.enter(name, node);
            } else {
                self.follow(&name, &node, &stat, &here)?;
            }
        }
    }

    fn enter(&mut self, name: OsString, directory: OwnedFd) {
        self.at.push(name);
        self.directory = directory;
    }

    fn follow(&mut self, name: &OsStr, node: &OwnedFd, stat: &FileStat, here: &FileStat) -> io::Result<()> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::ELOOP.into());
        }
        // Others may give a link of root's a second name in a directory of theirs.
        let is_roots = stat.st_uid == 0 && here.st_uid == 0 && stat.st_nlink == 1;
        let target = PathBuf::from(readlinkat(node, "")?);
        if !is_roots {
            let refused = |why: &str| {
                let (of, within) = (named(stat.st_uid), named(here.st_uid));
                let (link, target) = (self.at.join(name), target.display());
                let link = link.display();
                refusal(&format!(
                    "'{link}' is a symbolic link of {of} in a directory of {within} and leads to '{target}'{why}"
                ))
            };
            let whose = self.whose(stat, here).ok_or_else(|| refused(""))?;
            match &self.rights {
                None => {
                    let identity = self.identity(whose)?.ok_or_else(|| refused(""))?;
                    let rights = FileRights::of(whose, &identity)?;
                    self.rights = Some((identity, rights));
                }
                // Together they could go where neither can alone.
                Some((other, _)) if other.uid != Some(whose) => {
                    let other = other.uid.map(|uid| named(uid.as_raw())).unwrap_or_default();
                    return Err(refused(&format!(", and one of {other} leads there")));
                }
                Some(_) => {}
            }
        }
        self.insert(&target)
    }

    /// With whose rights a link is followed that is not root's alone: its owner's, if that is who the server becomes or
    /// whose directory it lies in. One of root's may have been moved there by the directory's owner.
    fn whose(&self, link: &FileStat, here: &FileStat) -> Option<Uid> {
        let whose = if link.st_uid == 0 { here.st_uid } else { link.st_uid };
        let is_known = whose == here.st_uid || self.user.is_some_and(|user| user.uid == Some(Uid::from_raw(whose)));
        (whose != 0 && is_known).then(|| Uid::from_raw(whose))
    }

    /// `None` for a user whose groups nobody knows.
    fn identity(&self, uid: Uid) -> io::Result<Option<Identity>> {
        match self.user.filter(|user| user.uid == Some(uid)) {
            Some(user) => Ok(Some(user.clone())),
            None => Identity::of_user(uid),
        }
    }

    /// Says of an error what rights it came of.
    pub(super) fn explain(&self, error: io::Error) -> io::Error {
        with_rights_told(error, self.rights.as_ref().map(|(identity, _)| identity))
    }

    /// There: root's rights come back.
    pub(super) fn arrive(self, name: OsString, is_kernels: bool) -> io::Result<Place> {
        let directory_stat = fstat(&self.directory)?;
        Ok(Place {
            directory: self.directory,
            directory_stat,
            name,
            user: self.user.cloned(),
            with_rights_of: self.rights.map(|(identity, _)| identity),
            is_kernels,
        })
    }
}
