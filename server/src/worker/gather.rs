//! Gathering a request's body before the application is called, so that a slow client never holds a thread: in memory up
//! to `post-buffering`, beyond that in a file that has no name.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::body::Body;
use super::receive::receive_onto;
use crate::protocol::chunked;
use crate::protocol::http::Refusal;

/// Why a body is not taken.
pub(super) enum GatherError {
    /// The client is to be told.
    Refused(Refusal),
    /// The temporary file failed.
    Disk(io::Error),
}

impl From<io::Error> for GatherError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// How the end is known.
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Box<chunked::Decoder>),
}

/// A body on its way in.
pub(super) struct Gather {
    framing: Framing,
    memory: Vec<u8>,
    file: Option<File>,
    len: u64,
    /// The largest body that waits in memory.
    in_memory: u64,
    /// The largest body of all.
    most: u64,
}

impl Gather {
    /// A body of a length that is known. `memory` is empty, and its room is used again.
    pub(super) fn of_length(len: u64, in_memory: u64, most: u64, mut memory: Vec<u8>) -> Result<Self, GatherError> {
        if len > most {
            return Err(GatherError::Refused(crate::protocol::http::BODY_TOO_LARGE));
        }
        let mut file = None;
        if len > in_memory {
            file = Some(unnamed_file()?);
        } else {
            // The kernel gives pages only when they are written to, so that announcing a body alone takes no memory.
            memory.reserve_exact(usize::try_from(len).unwrap_or(0));
        }
        Ok(Self { framing: Framing::Length(len), memory, file, len: 0, in_memory, most })
    }

    /// A body in chunks.
    pub(super) fn of_chunks(in_memory: u64, most: u64) -> Self {
        let framing = Framing::Chunked(Box::default());
        Self { framing, memory: Vec::new(), file: None, len: 0, in_memory, most }
    }

    /// Whether the rest of it, which is of a known length, goes to a file.
    pub(super) fn is_spooling(&self) -> bool {
        self.file.is_some() && matches!(self.framing, Framing::Length(_))
    }

    /// Whether the rest of it, which is of a known length, goes to memory that is there for it.
    pub(super) fn has_room(&self) -> bool {
        self.file.is_none() && matches!(self.framing, Framing::Length(_))
    }

    /// Receives to where the body stays, as much as is there: whether the body is complete, and `None` when the client is
    /// gone. Only where there is room ([`Gather::has_room`]).
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> Option<bool> {
        let Framing::Length(left) = &mut self.framing else { return Some(false) };
        let most = usize::try_from(*left).unwrap_or(usize::MAX);
        match receive_onto(socket, &mut self.memory, most) {
            Err(_) | Ok(Some(0)) => None,
            Ok(None) => Some(false),
            Ok(Some(count)) => {
                *left -= count as u64;
                self.len += count as u64;
                Some(*left == 0)
            }
        }
    }

    /// Bytes that are still to come, when that is known.
    pub(super) fn left(&self) -> u64 {
        match self.framing {
            Framing::Length(left) => left,
            Framing::Chunked(_) => u64::MAX,
        }
    }

    /// Takes what has come; returns how much of it belongs to the body, and whether the body is complete.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<(usize, bool), GatherError> {
        let mut at = 0;
        loop {
            let (consumed, data, done) = match &mut self.framing {
                Framing::Length(left) => {
                    let len = (*left).min((input.len() - at) as u64) as usize;
                    *left -= len as u64;
                    (len, &input[at..at + len], *left == 0)
                }
                Framing::Chunked(decoder) => {
                    let (consumed, step) = decoder.decode(&input[at..]).map_err(GatherError::Refused)?;
                    match step {
                        chunked::Step::Data(data) => (consumed, data, false),
                        chunked::Step::More => return Ok((at + consumed, false)),
                        chunked::Step::Done => return Ok((at + consumed, true)),
                    }
                }
            };
            at += consumed;
            self.len += data.len() as u64;
            if self.len > self.most {
                return Err(GatherError::Refused(crate::protocol::http::BODY_TOO_LARGE));
            }
            if self.file.is_none() && self.len > self.in_memory {
                let mut file = unnamed_file()?;
                file.write_all(&std::mem::take(&mut self.memory))?;
                self.file = Some(file);
            }
            match &mut self.file {
                Some(file) => file.write_all(data)?,
                None => self.memory.extend_from_slice(data),
            }
            if done || (matches!(self.framing, Framing::Length(_)) && at == input.len()) {
                return Ok((at, done));
            }
        }
    }

    /// The body, when it is complete.
    pub(super) fn finish(self) -> io::Result<Body> {
        match self.file {
            Some(file) => Body::in_file(file, self.len),
            None => Ok(Body::Memory(self.memory, 0)),
        }
    }
}

/// A file in the system's temporary directory that nobody else can open and that is gone with its descriptor.
fn unnamed_file() -> io::Result<File> {
    let directory = std::env::temp_dir();
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let made = match open(&directory, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(fd) => Ok(File::from(fd)),
        // Some file systems (overlayfs of older kernels, NFS) know no files without a name.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => unlinked_file(&directory),
        Err(error) => Err(error.into()),
    };
    made.map_err(|error| {
        let what = format!("cannot make a temporary file in '{}' (TMPDIR): {error}", directory.display());
        io::Error::new(error.kind(), what)
    })
}

/// A file that had a name for a moment.
fn unlinked_file(directory: &Path) -> io::Result<File> {
    loop {
        let number = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        let path = directory.join(format!("rwsgi-body-{number:016x}"));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn a_file_system_without_unnamed_files_does() {
        let directory = std::env::temp_dir().join(format!("rwsgi-gather-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let mut file = unlinked_file(&directory).unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir(&directory).unwrap();
        file.write_all(b"body").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "body");
        assert!(unlinked_file(&directory).is_err());
    }
}
