//! What the application's side of a process tells the master, and asks it: packets of JSON through one socket that all
//! processes share. A packet may bring a descriptor, through which the master answers or goes on to speak.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::schedule::When;
use super::target::Target;
use super::{Role, receive_message};

/// A packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// The generation of the process: what it registers goes with it.
    pub generation: u32,
    /// What it has to say.
    pub what: What,
}

/// What a process has to say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum What {
    /// A signal has a handler, in the processes of the target.
    Register {
        /// Its number.
        signal: u8,
        /// Who handles it.
        target: Target,
    },
    /// A signal is to be handled.
    Raise(u8),
    /// A signal is to be raised at times.
    Schedule {
        /// Its number.
        signal: u8,
        /// When.
        when: When,
    },
    /// A signal is to be raised when a file changes.
    Watch {
        /// Its number.
        signal: u8,
        /// The file or directory.
        path: String,
    },
    /// The process handles signals: their numbers are to be sent through the descriptor that comes along, a packet of
    /// one byte each. It sends a byte back for each that it has handled.
    Listen(Role),
    /// The process is to be ended after so many seconds, unless it says otherwise before.
    Harakiri {
        /// The process.
        role: Role,
        /// 0 for never.
        seconds: u32,
    },
    /// The state of all workers is to be sent through the descriptor that comes along.
    Workers,
}

/// A worker, as [`What::Workers`] is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the stats document's workers")]
pub struct WorkerState {
    pub id: u32,
    pub pid: i32,
    pub requests: u64,
    pub delta_requests: u64,
    pub signals: u64,
    pub exceptions: u64,
    pub status: String,
    pub rss: u64,
    pub vsz: u64,
    pub running_time: u64,
    pub last_spawn: u64,
    pub respawn_count: u64,
    pub tx: u64,
    pub avg_rt: u64,
}

/// How long the master may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest packet to the master, bytes: a path is the longest thing in it.
const LARGEST: usize = 16 * 1024;

/// The shared socket: the master's end, and the others'. Packets wait in it for the master.
///
/// # Errors
/// When the system has no descriptors left.
pub fn socket() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Sends a packet.
///
/// # Errors
/// When the master is gone.
pub fn tell(socket: BorrowedFd<'_>, told: &Told, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = serde_json::to_vec(told)?;
    let fds = descriptor.map(|fd| [fd.as_raw_fd()]);
    let message = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
    loop {
        let parts = [IoSlice::new(&bytes)];
        match sendmsg::<()>(socket.as_raw_fd(), &parts, message.as_slice(), MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

/// Tells the master something and waits for its answer.
///
/// # Errors
/// When the master is gone, or does not answer in time.
pub fn ask<T: DeserializeOwned>(socket: BorrowedFd<'_>, question: &Told) -> io::Result<T> {
    let (ours, theirs) = crate::ipc::channel()?;
    tell(socket, question, Some(theirs.as_fd()))?;
    drop(theirs);
    let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the master does not answer")),
            Ok(_) => break,
        }
    }
    receive_message(ours.as_fd())?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Takes a packet, on the master's end; `None` when nobody is left who could send one.
///
/// # Errors
/// When nothing is there, or what is there is no packet of this kind.
pub fn hear(socket: BorrowedFd<'_>) -> io::Result<Option<(Told, Option<OwnedFd>)>> {
    let mut bytes = vec![0; LARGEST];
    let mut space = cmsg_space!([std::os::fd::RawFd; 1]);
    let (len, fd) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let mut fds = received.cmsgs()?.filter_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        (received.bytes, fds.next())
    };
    #[allow(unsafe_code)]
    // SAFETY: the kernel has just made this descriptor for this process, and nobody else was told of it.
    let descriptor = fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    if len == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes[..len])?, descriptor)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::send_message;

    #[test]
    fn a_question_brings_its_way_back() {
        let (master, ours) = socket().unwrap();
        let asking = std::thread::spawn(move || {
            let question = Told { generation: 3, what: What::Workers };
            ask::<Vec<WorkerState>>(ours.as_fd(), &question)
        });
        let (told, descriptor) = hear(master.as_fd()).unwrap().unwrap();
        assert_eq!(told.generation, 3);
        let workers = vec![WorkerState { id: 7, ..WorkerState::default() }];
        send_message(descriptor.unwrap().as_fd(), &workers).unwrap();
        assert_eq!(asking.join().unwrap().unwrap()[0].id, 7);
    }
}
