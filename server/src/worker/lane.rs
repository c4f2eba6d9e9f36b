//! A thread's end of its lane ([`Purpose::Lane`]): bodies go to memory that the http router has too, and of files only
//! the descriptor is passed.
//!
//! Nothing waits here. The thread asks for the lane when it first has a use for it; until the router has answered, and
//! wherever the lane does not take something, it goes over the link.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Pid, getpid};
use rustix::fs::fstatfs;
use rustix::io::{ReadWriteFlags, preadv2};

use super::upgrade::say_hello;
use crate::io::pass_fd::{receive_fd, send_fd_and};
use crate::io::segment::Segment;
use rwsgi_protocol::link::{Hello, Purpose};

/// A part of a file that is passed rather than copied, bytes.
pub(super) const WORTH_PASSING: u64 = 64 * 1024;
/// For how long a file that is passed was not written to: longer than an application needs from its last write to its answer.
const SETTLED: Duration = Duration::from_secs(5);
/// How far apart the bytes of a file are that must be in memory: the system reads ahead and forgets in such pieces.
const STEP: u64 = 128 * 1024;
/// `f_type` of file systems of other machines and of programs, which may hang: NFS, SMB (two), CIFS, 9P, Ceph, AFS, FUSE.
const MAY_HANG: [u32; 8] =
    [0x6969, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0x0102_1997, 0x00c3_6400, 0x6b41_4653, 0x6573_5546];

/// See the module.
pub(super) struct Lane {
    /// The abstract name of the router's socket.
    router: String,
    hello: Hello,
    /// A child that the application forks has a copy of this, and must not use it.
    owner: Pid,
    state: State,
}

enum State {
    Unasked,
    Asked(UnixStream),
    Open(UnixStream, Arc<Segment>),
    Refused,
}

impl Lane {
    /// `hello` is that of the link.
    pub(super) fn new(router: String, hello: Hello) -> Self {
        let hello = Hello { purpose: Purpose::Lane, ..hello };
        Self { router, hello, owner: getpid(), state: State::Unasked }
    }

    /// The memory, if it is there already. Asks for it otherwise.
    pub(super) fn segment(&mut self) -> Option<&Arc<Segment>> {
        match &self.state {
            // `is_left` says the same, without a system call for each response.
            State::Open(..) => {}
            _ if self.owner != getpid() => return None,
            State::Unasked => {
                let asked = say_hello(&self.router, self.hello).and_then(|stream| {
                    stream.set_nonblocking(true)?;
                    Ok(stream)
                });
                self.state = asked.map_or(State::Refused, State::Asked);
            }
            State::Asked(stream) => match receive_fd(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                answer => self.open(answer.ok().flatten()),
            },
            State::Refused => {}
        }
        match &self.state {
            State::Open(_, segment) if !segment.is_left() => Some(segment),
            _ => None,
        }
    }

    /// The router has answered.
    fn open(&mut self, file: Option<OwnedFd>) {
        let segment = file.and_then(|file| Segment::map(file).ok());
        if let (State::Asked(stream), Some(segment)) = (mem::replace(&mut self.state, State::Refused), segment) {
            self.state = State::Open(stream, segment);
        }
    }

    /// Passes a part of a file to the router. Returns whether it is done: the router never reads from a disk that may be
    /// slow, so that only what is in memory now is passed.
    pub(super) fn pass(&mut self, file: &File, offset: u64, len: u64) -> bool {
        let takes_files = self.segment().is_some_and(|segment| segment.takes_files());
        if !takes_files || !is_settled(file) || !is_at_hand(file, offset, len) {
            return false;
        }
        let State::Open(stream, _) = &self.state else { return false };
        let mut words = [0; 16];
        words[..8].copy_from_slice(&offset.to_le_bytes());
        words[8..].copy_from_slice(&len.to_le_bytes());
        send_fd_and(stream, file, &words).is_ok()
    }
}

/// Whether nobody has written to a file just now. The router reads it when the thread is at other requests: an application
/// that makes the same file anew for each would show a slow client what is another's.
fn is_settled(file: &File) -> bool {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age >= SETTLED))
}

/// Whether a part of a file is in memory, and the file is this machine's.
fn is_at_hand(file: &File, offset: u64, len: u64) -> bool {
    let is_here = fstatfs(file).is_ok_and(|system| !MAY_HANG.contains(&(system.f_type as u32)));
    let is_there = |at: u64| {
        let mut byte = [0];
        preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) == Ok(1)
    };
    is_here && len > 0 && (0..len).step_by(STEP as usize).all(|at| is_there(offset + at)) && is_there(offset + len - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_part_that_is_not_there_is_not_at_hand() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 100_000]).unwrap();
        assert!(!is_at_hand(&file, 0, 100_001) && !is_at_hand(&file, 100_000, 1) && !is_at_hand(&file, 0, 0));
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        assert!(!is_at_hand(&File::from(reader), 0, 1));
    }

    #[test]
    fn a_file_is_settled_when_it_was_not_written_to_for_seconds() {
        let file = tempfile::tempfile().unwrap();
        for (age, is) in [(0, false), (1, false), (60, true)] {
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
            assert_eq!(is_settled(&file), is);
        }
        file.set_modified(std::time::SystemTime::now() + Duration::from_secs(60)).unwrap();
        assert!(!is_settled(&file));
    }
}
