//! Files that root opens, makes and gives away by names that other users may have prepared.
//!
//! A server that starts as root opens files in directories that belong to the user that it becomes, or to anybody. That
//! user can put a link there, at any moment, and would have root write to whatever the link names. So a path is walked
//! name by name, with descriptors, and what is done to a file is done to the descriptor that was looked at:
//!
//! - A link of root's in a directory of root's is followed, as one that the kernel has made (`/proc/self/fd/1`).
//! - A link of the user that the server becomes is followed with that user's rights: it leads where the user could go
//!   alone. So is one in a directory of its owner's, or one of root's there, with the rights of that owner, who could
//!   put anything there anyway.
//! - A link of anybody else is refused, and one that leads through a link of another user.
//! - In a directory that root alone may write, root has put what is there. Elsewhere a file must belong to root, to the
//!   user that the server becomes or to the directory's owner, and have one name: it may be a hard link otherwise.
//!
//! A process that is not root opens files as always: nobody gains by its rights what the kernel does not guard.

mod walk;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, mkdirat, mode_t};
use nix::unistd::{Gid, Uid, UnlinkatFlags, User, fchownat, geteuid, mkfifoat, unlinkat};

use self::walk::Walk;
use crate::identity::{FileRights, Identity};

/// Times that a file may appear or go between two looks at it.
const TRIES: usize = 8;
/// What a file that is made here may be done to by whom.
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);

/// What to do when the last name of a path is a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// The file that it leads to is meant.
    Follow,
    /// The link itself is meant.
    Keep,
}

/// A name in a directory: where a file is or will be.
#[derive(Debug)]
pub(crate) struct Place {
    directory: OwnedFd,
    directory_stat: FileStat,
    name: OsString,
    /// Who the server becomes.
    user: Option<Identity>,
    /// A link of this user's led here, so that nothing is done with more than that user's rights.
    with_rights_of: Option<Identity>,
    /// The kernel's own link, which only the kernel can follow.
    is_kernels: bool,
}

/// A file as it was found: nothing that happens to its name changes what is meant.
#[derive(Debug)]
pub(crate) struct Found {
    node: OwnedFd,
    stat: FileStat,
}

/// Opens a file to write, and makes it when it is not there. Returns it, and whether root may give it away. Every line of
/// what is refused says why.
///
/// # Errors
/// When it cannot be opened, or is not to be trusted.
pub(crate) fn open_to_write(path: &Path, flags: OFlag, user: Option<&Identity>) -> io::Result<(File, bool)> {
    if !geteuid().is_root() {
        let file = open(path, flags | OFlag::O_CREAT | OFlag::O_CLOEXEC, FILE_MODE)?;
        return Ok((file.into(), false));
    }
    let place = Place::find(path, Last::Follow, user)?;
    let file = place.open_to_write(flags)?;
    let stat = fstat(&file)?;
    let is_file = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    // Root's rights were enough to be trusted with it; another's only to write to it.
    Ok((file, is_file && (place.with_rights_of.is_none() || place.is_made_by(stat.st_uid))))
}

impl Place {
    /// Walks to the directory of `path`. `user` is who the server becomes.
    ///
    /// # Errors
    /// When there is no such directory, or the way leads over a link that is not to be trusted.
    pub(crate) fn find(path: &Path, last: Last, user: Option<&Identity>) -> io::Result<Self> {
        if geteuid().is_root() {
            let mut walk = Walk::begin(path, user)?;
            return match walk.go(last) {
                Ok((name, is_kernels)) => walk.arrive(name, is_kernels),
                Err(error) => Err(walk.explain(error)),
            };
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = open_directory(parent)?;
        let name = path.file_name().ok_or_else(no_name)?.to_owned();
        let directory_stat = fstat(&directory)?;
        Ok(Self { directory, directory_stat, name, user: None, with_rights_of: None, is_kernels: false })
    }

    /// What is there under the name; `None` when nothing is.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(crate) fn look(&self) -> io::Result<Option<Found>> {
        let _rights = self.rights()?;
        let follow = if self.is_kernels { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | follow;
        match openat(&self.directory, self.name.as_os_str(), flags, Mode::empty()) {
            Ok(node) => Ok(Some(Found { stat: fstat(&node)?, node })),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open_to_write(&self, flags: OFlag) -> io::Result<File> {
        self.try_open(flags).map_err(|error| self.explain(error))
    }

    fn try_open(&self, flags: OFlag) -> io::Result<File> {
        for _ in 0..TRIES {
            if let Some(found) = self.look()? {
                self.trust(&found)?;
                let _rights = self.rights()?;
                return found.open(flags);
            }
            let new = flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let _rights = self.rights()?;
            match openat(&self.directory, self.name.as_os_str(), new, FILE_MODE) {
                Ok(file) => return Ok(file.into()),
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other("somebody removes it and makes it again all the time"))
    }

    /// Whether root may write to what was found here.
    ///
    /// # Errors
    /// Why not.
    fn trust(&self, found: &Found) -> io::Result<()> {
        if self.is_kernels || is_roots_alone(&self.directory_stat) {
            return Ok(());
        }
        let stat = &found.stat;
        let is_ours = self.is_ours(stat.st_uid) || self.is_made_by(stat.st_uid);
        match found.kind() {
            SFlag::S_IFREG if !is_ours && stat.st_uid != self.directory_stat.st_uid => {
                Err(refusal(&format!("it belongs to {}", named(stat.st_uid))))
            }
            SFlag::S_IFREG if found.has_other_names() => Err(refusal(&format!(
                "it belongs to {} and has {} names, so that it may be another file that somebody linked to",
                named(stat.st_uid),
                stat.st_nlink
            ))),
            SFlag::S_IFIFO if stat.st_uid != 0 => {
                Err(refusal(&format!("it is a named pipe of {}", named(stat.st_uid))))
            }
            SFlag::S_IFLNK => Err(refusal(&format!("it is a symbolic link of {}", named(stat.st_uid)))),
            _ => Ok(()),
        }
    }

    /// Whether this is root, this process, or who the server becomes.
    pub(crate) fn is_ours(&self, uid: u32) -> bool {
        uid == 0 || uid == geteuid().as_raw() || self.user_id().is_some_and(|user| user.as_raw() == uid)
    }

    /// Whether a file of this owner may be one that was made here.
    pub(crate) fn is_made_by(&self, uid: u32) -> bool {
        match &self.with_rights_of {
            Some(identity) => identity.uid == Some(Uid::from_raw(uid)),
            None => self.is_ours(uid),
        }
    }

    /// Says of an error that it came of the rights that things are done with here.
    pub(crate) fn explain(&self, error: io::Error) -> io::Error {
        with_rights_told(error, self.with_rights_of.as_ref())
    }

    /// Makes a directory, and gives it away.
    ///
    /// # Errors
    /// When there is something already, or it cannot be made.
    pub(crate) fn make_directory(&self, mode: Mode, uid: Option<Uid>, gid: Option<Gid>) -> io::Result<()> {
        {
            let _rights = self.rights()?;
            mkdirat(&self.directory, self.name.as_os_str(), mode).map_err(|error| self.explain(error.into()))?;
        }
        let is_the_users_now = self.with_rights_of.as_ref().is_some_and(|maker| maker.uid == uid);
        if is_the_users_now || (uid.is_none() && gid.is_none()) {
            return Ok(());
        }
        let found = self.look()?.ok_or(Errno::ENOENT)?;
        // Where others may write, it may be another directory by now: one of root's, for it was moved here. What is empty
        // gives nothing away.
        let maker = self.with_rights_of.as_ref().and_then(|maker| maker.uid).unwrap_or_else(geteuid);
        let is_new = found.kind() == SFlag::S_IFDIR && found.owner() == maker.as_raw() && found.is_empty()?;
        if !is_new {
            return Err(refusal("somebody has put another in the place of the one that was just made"));
        }
        found.give(uid, gid)
    }

    /// Makes a named pipe that only its owner may use.
    ///
    /// # Errors
    /// When there is something already, or it cannot be made.
    pub(crate) fn make_pipe(&self) -> io::Result<()> {
        let _rights = self.rights()?;
        mkfifoat(&self.directory, self.name.as_os_str(), Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|error| self.explain(error.into()))
    }

    /// Takes the name away; the file itself is whoever has it open.
    ///
    /// # Errors
    /// When that is not allowed.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let _rights = self.rights()?;
        Ok(unlinkat(&self.directory, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir)?)
    }

    /// Moves the file to another place, over what is there.
    ///
    /// # Errors
    /// When that is not allowed.
    pub(crate) fn move_to(&self, to: &Self) -> io::Result<()> {
        let maker = |place: &Self| place.with_rights_of.as_ref().and_then(|maker| maker.uid);
        let _rights = match (maker(self), maker(to)) {
            (Some(from), Some(to)) if from != to => {
                return Err(refusal(&format!(
                    "links of {} and of {} lead there",
                    named(from.as_raw()),
                    named(to.as_raw())
                )));
            }
            (Some(_), _) => self.rights()?,
            (None, _) => to.rights()?,
        };
        let moved = renameat(&self.directory, self.name.as_os_str(), &to.directory, to.name.as_os_str());
        moved.map_err(|error| to.explain(self.explain(error.into())))
    }

    /// To be held while files are made or opened here.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn rights(&self) -> io::Result<Option<FileRights>> {
        match &self.with_rights_of {
            Some(identity @ Identity { uid: Some(uid), .. }) => FileRights::of(*uid, identity).map(Some),
            _ => Ok(None),
        }
    }

    fn user_id(&self) -> Option<Uid> {
        self.user.as_ref().and_then(|user| user.uid)
    }
}

impl Found {
    /// What kind of file it is.
    pub(crate) fn kind(&self) -> SFlag {
        SFlag::from_bits_truncate(self.stat.st_mode) & SFlag::S_IFMT
    }

    /// Whose it is.
    pub(crate) fn owner(&self) -> u32 {
        self.stat.st_uid
    }

    /// Its device and number.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }

    /// Whether it has another name somewhere.
    pub(crate) fn has_other_names(&self) -> bool {
        self.stat.st_nlink > 1
    }

    /// A path that leads to this file and no other, as long as this lives.
    pub(crate) fn path(&self) -> PathBuf {
        descriptor_path(&self.node)
    }

    /// Opens it.
    ///
    /// # Errors
    /// When that is not allowed.
    pub(crate) fn open(&self, flags: OFlag) -> io::Result<File> {
        Ok(open(&self.path(), flags | OFlag::O_CLOEXEC, Mode::empty())?.into())
    }

    /// Gives it away.
    ///
    /// # Errors
    /// When that is not allowed.
    pub(crate) fn give(&self, uid: Option<Uid>, gid: Option<Gid>) -> io::Result<()> {
        Ok(fchownat(&self.node, "", uid, gid, AtFlags::AT_EMPTY_PATH)?)
    }

    /// Changes its mode.
    ///
    /// # Errors
    /// When that is not allowed.
    pub(crate) fn set_mode(&self, mode: mode_t) -> io::Result<()> {
        // A descriptor that stands for a path alone is none that `fchmod` takes.
        let mode = Mode::from_bits_truncate(mode);
        Ok(fchmodat(AT_FDCWD, &self.path(), mode, FchmodatFlags::FollowSymlink)?)
    }

    fn is_empty(&self) -> io::Result<bool> {
        Ok(std::fs::read_dir(self.path())?.next().is_none())
    }
}

fn open_directory(path: &Path) -> nix::Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Whether root alone may put files into this directory.
fn is_roots_alone(directory: &FileStat) -> bool {
    directory.st_uid == 0 && directory.st_mode & 0o022 == 0
}

fn descriptor_path(fd: &impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

fn no_name() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the path names no file")
}

/// Where a link of a user's led, root says what it had not the rights for.
fn with_rights_told(error: io::Error, user: Option<&Identity>) -> io::Error {
    let is_denied = matches!(error.raw_os_error(), Some(nix::libc::EACCES | nix::libc::EPERM));
    match user.and_then(|user| user.uid).filter(|_| is_denied) {
        Some(user) => io::Error::new(
            error.kind(),
            format!(
                "{error}: a symbolic link of {} leads there, and is followed with that user's rights: name the file that it \
                 leads to, or have root own the link and its directory",
                named(user.as_raw())
            ),
        ),
        None => error,
    }
}

fn refusal(why: &str) -> io::Error {
    let advice = "root does not use it for this: remove it, name another file, or have root own it";
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{why}: {advice}"))
}

/// A user, for people.
pub(crate) fn named(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("user {uid} ({})", user.name),
        _ => format!("user {uid}"),
    }
}
