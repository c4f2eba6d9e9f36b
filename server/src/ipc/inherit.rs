//! Descriptors that a process inherits over exec: the master lends them, names them in a [`super::Setup`], and the
//! process takes each of them once.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::{Deserialize, Serialize};

/// In the place of a number that was taken: no descriptor has it.
const TAKEN: RawFd = -1;

/// A descriptor that this process inherits, or is about to let another inherit. It is not `Copy`, so that it is taken
/// once.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InheritedFd(RawFd);

impl InheritedFd {
    /// Lets `fd` survive the exec of the next process, which finds it under the same number.
    ///
    /// # Errors
    /// Never on an open descriptor.
    pub fn lend(fd: BorrowedFd<'_>) -> nix::Result<Self> {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(Self(fd.as_raw_fd()))
    }

    /// The one that a command line names; `None` for what is no number.
    #[must_use]
    pub fn from_argument(argument: &str) -> Option<Self> {
        argument.parse().ok().filter(|number| *number > 2).map(Self)
    }

    /// Its number, for messages and lists.
    #[must_use]
    pub fn number(&self) -> RawFd {
        self.0
    }

    /// Keeps it from programs that this process executes.
    ///
    /// # Errors
    /// When the descriptor is not open, or was taken.
    pub fn close_on_exec(&self) -> io::Result<()> {
        if self.0 == TAKEN {
            return Err(io::Error::other("an inherited descriptor was taken already"));
        }
        // SAFETY: the borrow ends with this statement; a closed descriptor gives EBADF, which is reported.
        let borrowed = unsafe { BorrowedFd::borrow_raw(self.0) };
        let set = fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        set.map(drop).map_err(|error| {
            io::Error::new(io::Error::from(error).kind(), format!("descriptor {} was not inherited: {error}", self.0))
        })
    }

    /// A descriptor of its own for the same thing; this value names it still.
    ///
    /// # Errors
    /// When there is no such descriptor, or it was taken already.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        self.close_on_exec()?;
        // SAFETY: it is open, as `fcntl` has just said; the borrow ends with this statement.
        unsafe { BorrowedFd::borrow_raw(self.0) }.try_clone_to_owned()
    }

    /// Names a descriptor of this process's own, for a process that is forked.
    #[must_use]
    pub fn keep(fd: OwnedFd) -> Self {
        Self(fd.into_raw_fd())
    }

    /// Takes it.
    ///
    /// # Errors
    /// When there is no such descriptor, or it was taken already.
    pub fn take(&mut self) -> io::Result<OwnedFd> {
        self.close_on_exec()?;
        let number = std::mem::replace(&mut self.0, TAKEN);
        // SAFETY: it is open, as `fcntl` has just said, and this process's alone: a setup names each descriptor once, and
        // this value, which cannot be copied, does not name it any more.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_lent_descriptor_is_taken_and_one_that_is_closed_is_an_error() {
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        let mut lent = InheritedFd::lend(reader.as_fd()).unwrap();
        let number = reader.into_raw_fd();
        let text = serde_json::to_string(&lent).unwrap();
        assert_eq!(text, number.to_string());
        drop(lent.take().unwrap());
        assert!(lent.take().is_err(), "it is taken once");
        let gone = InheritedFd::from_argument("100000").unwrap().take().unwrap_err();
        assert!(gone.to_string().contains("100000"), "{gone}");
        assert_eq!(InheritedFd::from_argument("2"), None);
    }
}
