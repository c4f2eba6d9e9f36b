//! Messages between the master and the other processes: JSON, one message a packet, over a socket pair that
//! keeps packets apart; the [`first`] lies in a memory file. File descriptors are inherited over exec and named by number.

pub(crate) mod calls;
pub(crate) mod first;
pub(crate) mod harakiri;
pub(crate) mod inherit;
mod router;
pub(crate) mod schedule;
pub(crate) mod target;
pub(crate) mod thread_signal;
pub(crate) mod worker_order;

pub(crate) use self::router::{RouterLimits, RouterOrder};

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, getsockopt, recv, send, setsockopt, socketpair, sockopt,
};
use rwsgi_stats::Address;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::inherit::InheritedFd;
use crate::clock::UnixMicros;
use crate::ids::{ChildId, GenerationNumber, SlotId, WorkerId};
use crate::io::temp::TempPlace;
use crate::stats::scoreboard::Layout;
use rwsgi_config::Config;
use rwsgi_protocol::SocketProtocol;

/// A listening socket that a process inherits.
#[derive(Debug, Serialize, Deserialize)]
pub struct InheritedListener {
    /// The address that it is bound to.
    pub address: Address,
    /// What is spoken on it.
    pub protocol: SocketProtocol,
    /// The descriptor.
    pub fd: InheritedFd,
}

/// Where workers find the router: an abstract unix socket, and the secret that makes a link one of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkEndpoint {
    /// Abstract name, without the `@`.
    pub name: String,
    /// Random bytes that only this server's processes know.
    pub token: [u8; 16],
}

/// The descriptors by which a process inherits what the application's processes share.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShareDescriptors {
    /// Locks and metrics.
    pub board: InheritedFd,
    /// In the order of the configuration.
    pub caches: Vec<InheritedFd>,
    /// The mules' queues: their entry and their exit.
    pub queues: Vec<(InheritedFd, InheritedFd)>,
    /// The queue of connections that workers hand over: its entry and its exit.
    pub peers: Option<(InheritedFd, InheritedFd)>,
}

impl ShareDescriptors {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &InheritedFd> {
        let queues = self.queues.iter().chain(&self.peers).flat_map(|(entry, exit)| [entry, exit]);
        std::iter::once(&self.board).chain(&self.caches).chain(queues)
    }
}

/// The first message to a process: everything that it needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The configuration in force.
    pub config: Config,
    /// Shape of the scoreboard.
    pub layout: Layout,
    /// The scoreboard's memory.
    pub scoreboard: InheritedFd,
    /// The memory for stacks ([`crate::stacks`]).
    pub stacks: InheritedFd,
    /// The tables of routes, for workers; `None` when routes are not counted.
    pub routes: Option<InheritedFd>,
    /// The rings of traced requests, for workers; `None` when none are traced.
    pub traces: Option<InheritedFd>,
    /// End-of-file on it means that the master is gone.
    pub liveness: InheritedFd,
    /// The pipe for the access log, when it has loggers of its own.
    pub request_log: Option<InheritedFd>,
    /// The pipe for a worker's [`Notice`]s.
    pub notices: InheritedFd,
    /// What the application's processes share.
    pub share: ShareDescriptors,
    /// The call socket ([`crate::ipc::calls`]).
    pub calls: InheritedFd,
    /// The sockets to accept from.
    pub listeners: Vec<InheritedListener>,
    /// The router's listener, for the router; `None` for a fork server.
    pub link_listener: Option<InheritedFd>,
    /// The memory file with the certificates of `https` follows on the channel, for the router. It is not inherited: from
    /// its exec until it says otherwise, a process is open to others of its user.
    pub has_certificates: bool,
    /// Where the workers find the router, if there is one.
    pub link: Option<LinkEndpoint>,
    /// The generation that a fork server loads; `None` for the http router.
    pub generation: Option<GenerationNumber>,
    /// Where temporary files are, and how much they may hold.
    pub(crate) temp: TempPlace,
    /// When the server started.
    pub started_at: UnixMicros,
    /// A reload, before which the hooks of a start run again.
    pub again: bool,
}

impl Setup {
    /// Every descriptor that is named in it.
    pub fn descriptors(&self) -> impl Iterator<Item = &InheritedFd> {
        let listeners = self.listeners.iter().map(|listener| &listener.fd);
        listeners
            .chain([&self.scoreboard, &self.stacks, &self.liveness, &self.notices, &self.calls])
            .chain(&self.routes)
            .chain(&self.traces)
            .chain(&self.request_log)
            .chain(&self.link_listener)
            .chain(self.share.all())
    }
}

/// What a forked process reports to the master, in eight bytes, through a pipe that all of them share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It serves.
    Ready(ChildId),
    /// It is a worker and has served `max-requests`: it goes on until it is replaced.
    Enough(ChildId),
    /// It is a worker whose application has raised what `reload-on-exception` names: it goes on until it is replaced.
    Raised(ChildId),
    /// It is a worker, and the master is to look at its requests: a slow one has ended, or one has begun while the master
    /// slept.
    Slow(ChildId),
}

impl Notice {
    /// The bytes to write at once.
    #[must_use]
    pub(crate) fn encode(self) -> [u8; 8] {
        let word = match self {
            Self::Ready(child) => child.get() << 2,
            Self::Enough(child) => child.get() << 2 | 1,
            Self::Raised(child) => child.get() << 2 | 2,
            Self::Slow(child) => child.get() << 2 | 3,
        };
        word.to_le_bytes()
    }

    /// Reads what [`Self::encode`] made.
    #[must_use]
    pub(crate) fn decode(bytes: [u8; 8]) -> Self {
        let word = u64::from_le_bytes(bytes);
        let child = ChildId::new(word >> 2);
        match word & 3 {
            0 => Self::Ready(child),
            1 => Self::Enough(child),
            2 => Self::Raised(child),
            _ => Self::Slow(child),
        }
    }
}

/// What a forked process is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// One that serves requests.
    Worker {
        /// Which one.
        worker: WorkerId,
        /// Its slot on the scoreboard.
        slot: SlotId,
    },
    /// One that works beside the workers.
    Auxiliary(Auxiliary),
}

/// A process beside the workers: of each there is one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Auxiliary {
    /// What it does.
    pub kind: AuxiliaryKind,
    /// Its number among those of its kind, from 1.
    pub number: u32,
}

/// What an auxiliary process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum AuxiliaryKind {
    /// Runs the jobs of a directory.
    Spooler,
    /// Does what it is sent, or runs a program of the application's.
    Mule,
}

impl Auxiliary {
    /// The short name that `top` shows (15 bytes at most).
    #[must_use]
    pub(crate) fn short_name(self) -> String {
        match self.kind {
            AuxiliaryKind::Spooler => format!("rwsgi spool{}", self.number),
            AuxiliaryKind::Mule => format!("rwsgi mule{}", self.number),
        }
    }
}

impl std::fmt::Display for Auxiliary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            AuxiliaryKind::Spooler => "spooler",
            AuxiliaryKind::Mule => "mule",
        };
        write!(f, "{kind} {}", self.number)
    }
}

/// What the master orders a fork server to do, after its [`Setup`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Fork a process.
    Fork {
        /// By which number the master knows it.
        child: ChildId,
        /// What it is to be.
        role: Role,
        /// A worker that this generation has had no process of before.
        is_first: bool,
    },
}

/// What a fork server answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The application is loaded (or is left to the workers to load).
    Loaded {
        /// Version of the interpreter.
        python: String,
        /// How long it took, ms.
        took: u64,
    },
    /// The application could not be loaded; the traceback is in the log.
    Failed,
    /// A process was forked. It begins when the fork server has said so.
    Forked {
        /// Which one.
        child: ChildId,
        /// Its process id.
        pid: i32,
    },
    /// A process could not be forked.
    NotForked {
        /// Which one.
        child: ChildId,
        /// Why.
        reason: String,
    },
}

/// The largest message, bytes, of those after the first.
const MESSAGE_MAX: usize = 512 * 1024;

/// The two ends of a channel; both are closed on exec by default.
///
/// # Errors
/// When the system has no descriptors left.
pub(crate) fn channel() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    for end in [&ours, &theirs] {
        // A packet must fit the send buffer whole; the default does for most configurations already.
        if getsockopt(end, sockopt::SndBuf)? < MESSAGE_MAX {
            setsockopt(end, sockopt::SndBuf, &MESSAGE_MAX)?;
        }
    }
    Ok((ours, theirs))
}

/// Sends one message.
///
/// # Errors
/// When the other end is gone, or would block on a non-blocking end, or the message is too long.
pub(crate) fn send_message(fd: BorrowedFd<'_>, message: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    check_length(bytes.len())?;
    let mut was_reset = false;
    loop {
        match send(fd.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL) {
            Err(nix::errno::Errno::EINTR) => {}
            // Told once when the other end was closed with packets unread: the end itself follows.
            Err(nix::errno::Errno::ECONNRESET) if !std::mem::replace(&mut was_reset, true) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

/// Receives one message; `None` when the other end is gone.
///
/// # Errors
/// When nothing is there on a non-blocking end, or what is there is no message of this kind.
pub(crate) fn receive_message<T: DeserializeOwned>(fd: BorrowedFd<'_>) -> io::Result<Option<T>> {
    // Memory is taken when a message is there: who waits for one, as a fork server does, holds none for it.
    let Some(length) = receive(fd, &mut [], MsgFlags::MSG_PEEK)? else { return Ok(None) };
    let mut bytes = vec![0; length.min(MESSAGE_MAX)];
    let Some(length) = receive(fd, &mut bytes, MsgFlags::empty())? else { return Ok(None) };
    check_length(length)?;
    bytes.truncate(length);
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// Receives one packet. Returns the length that it has, also when it is longer than there is space for; `None` when the
/// other end is gone.
fn receive(fd: BorrowedFd<'_>, bytes: &mut [u8], flags: MsgFlags) -> io::Result<Option<usize>> {
    let mut was_reset = false;
    loop {
        match recv(fd.as_raw_fd(), bytes, flags | MsgFlags::MSG_TRUNC) {
            Err(nix::errno::Errno::EINTR) => {}
            // Told once when the other end was closed with packets unread: what it had sent before comes after that.
            Err(nix::errno::Errno::ECONNRESET) if !std::mem::replace(&mut was_reset, true) => {}
            Err(nix::errno::Errno::ECONNRESET) | Ok(0) => return Ok(None),
            received => return Ok(Some(received?)),
        }
    }
}

fn check_length(length: usize) -> io::Result<()> {
    if length <= MESSAGE_MAX {
        return Ok(());
    }
    let problem = format!("a message of {length} bytes, and the longest has {MESSAGE_MAX}");
    Err(io::Error::new(io::ErrorKind::InvalidData, problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn notices_come_back_as_they_were_sent() {
        let [first, late] = [1, 1 << 40].map(ChildId::new);
        for notice in
            [Notice::Ready(first), Notice::Enough(late), Notice::Raised(first), Notice::Slow(first), Notice::Slow(late)]
        {
            assert_eq!(Notice::decode(notice.encode()), notice);
        }
    }

    /// The system tells whoever is left first that the other end was closed with packets unread, and only then gives
    /// what that had sent.
    #[test]
    fn what_was_sent_before_the_end_is_received_though_the_other_had_not_read_everything() {
        let order = Order::Fork {
            child: ChildId::new(2),
            role: Role::Worker { worker: WorkerId::FIRST, slot: SlotId::new(0) },
            is_first: true,
        };
        let (ours, theirs) = channel().unwrap();
        send_message(theirs.as_fd(), &Answer::Forked { child: ChildId::new(1), pid: 7 }).unwrap();
        send_message(ours.as_fd(), &order).unwrap();
        drop(theirs);
        let answer = receive_message::<Answer>(ours.as_fd()).unwrap();
        assert!(matches!(answer, Some(Answer::Forked { pid: 7, .. })), "{answer:?}");
        assert!(receive_message::<Answer>(ours.as_fd()).unwrap().is_none());
        let (ours, theirs) = channel().unwrap();
        send_message(ours.as_fd(), &order).unwrap();
        drop(theirs);
        assert_eq!(send_message(ours.as_fd(), &order).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn messages_keep_their_bounds_and_the_end_is_seen() {
        let (ours, theirs) = channel().unwrap();
        let role = |worker| Role::Worker { worker: WorkerId::new(worker).unwrap(), slot: SlotId::new(worker + 10) };
        for worker in 1..=3 {
            send_message(
                ours.as_fd(),
                &Order::Fork { child: ChildId::new(worker.into()), role: role(worker), is_first: false },
            )
            .unwrap();
        }
        for expected in 1..=3 {
            let Some(Order::Fork { child, role: received, .. }) = receive_message(theirs.as_fd()).unwrap() else {
                panic!("no order")
            };
            assert_eq!(child.get(), u64::from(expected));
            assert_eq!(received, role(expected));
        }
        let too_long = "x".repeat(MESSAGE_MAX);
        assert!(send_message(ours.as_fd(), &too_long).unwrap_err().to_string().contains("524290 bytes"));
        drop(ours);
        assert!(receive_message::<Order>(theirs.as_fd()).unwrap().is_none());
    }
}
