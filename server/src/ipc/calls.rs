//! The call socket: what a process asks of the master or reports to it, as packets of JSON through one socket that
//! all processes share. A packet may bring a descriptor, through which the master answers or goes on to speak.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::schedule::When;
use super::target::Target;
use super::worker_order::OrderNumber;
use super::{Auxiliary, Role, receive_message};
use crate::ids::GenerationNumber;
use rwsgi_stats::control::MemoryReport;

/// A packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CallPacket {
    /// The generation of the process: what it registers goes with it.
    pub generation: GenerationNumber,
    /// What it has to say.
    pub what: CallRequest,
}

/// What a process has to say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum CallRequest {
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
    /// The process is to be ended after N seconds, unless it says otherwise before.
    Harakiri {
        /// The process.
        role: Role,
        /// 0 for never.
        seconds: u32,
    },
    /// An alarm is to be raised.
    Alarm {
        /// Its name.
        name: String,
        /// The message.
        text: String,
    },
    /// The state of all workers is to be sent through the descriptor that comes along.
    Workers,
    /// A worker begins what it was ordered, and says what that costs.
    Begun {
        /// The worker.
        role: Role,
        /// The order.
        order: OrderNumber,
        /// In words.
        cost: String,
    },
    /// A worker has done what it was ordered, or has not.
    Obeyed {
        /// The worker.
        role: Role,
        /// The order.
        order: OrderNumber,
        /// What came of it.
        outcome: OrderOutcome,
    },
    /// A worker has forked a fork server; the master's end of its channel comes along.
    Reforked {
        /// The worker.
        role: Role,
        /// The order.
        order: OrderNumber,
        /// The fork server's process id.
        pid: i32,
    },
}

/// What came of an order to a worker: what was asked for, or why it was not done.
pub(crate) type OrderOutcome = Result<MemoryReport, String>;

/// A worker, as [`CallRequest::Workers`] is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct WorkerState {
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

/// What is wrong with a packet. The sender may be broken: the master trusts nothing in it.
#[derive(Debug, Error)]
enum InvalidMessage {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It was cut off.
    #[error("it is longer than {LARGEST} bytes")]
    TooLong,
    /// It is no packet of this kind.
    #[error("it is none of the messages that there are: {0}")]
    Unknown(#[from] serde_json::Error),
    /// It names an auxiliary process by a number from 1, and the number is 0.
    #[error("it names auxiliary process 0, and they count from 1")]
    Zero,
    /// It wants a timer that never rests.
    #[error("it wants signal {0} every 0 seconds")]
    NoPause(u8),
    /// It wants a path watched that is none, or longer than paths are.
    #[error("it wants signal {signal} for a path of {length} bytes, and paths have 1 to {PATH_LONGEST}")]
    Path {
        /// The signal.
        signal: u8,
        /// How long the path is.
        length: usize,
    },
    /// It needs a descriptor to be answered, and brings none.
    #[error("it brings no descriptor for the answer")]
    NoDescriptor,
}

/// How long the master may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest packet to the master, bytes: a path or a report is the longest thing in it.
pub(crate) const LARGEST: usize = 16 * 1024;
/// The longest path that the system takes (`PATH_MAX`), bytes.
const PATH_LONGEST: usize = 4096;

/// The shared socket: the master's end, and the others'. Packets wait in it for the master.
///
/// # Errors
/// When the system has no descriptors left.
pub(crate) fn socket() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Sends a packet.
///
/// # Errors
/// When the master is gone.
pub(crate) fn send(socket: BorrowedFd<'_>, packet: &CallPacket, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_packet(socket, &serde_json::to_vec(packet)?, descriptor)
}

fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let fds = descriptor.map(|fd| [fd.as_raw_fd()]);
    let message = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
    loop {
        let parts = [IoSlice::new(bytes)];
        match sendmsg::<()>(socket.as_raw_fd(), &parts, message.as_slice(), MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

/// Sends the master a question and waits for its answer.
///
/// # Errors
/// When the master is gone, or does not answer in time.
pub(crate) fn ask<T: DeserializeOwned>(socket: BorrowedFd<'_>, question: &CallPacket) -> io::Result<T> {
    let (ours, theirs) = crate::ipc::channel()?;
    send(socket, question, Some(theirs.as_fd()))?;
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

/// Takes a packet, on the master's end; `None` when nobody is left who could send one. The numbers in it are within the
/// bounds of their kinds; whether there is such a process or generation only the master knows.
///
/// # Errors
/// `InvalidData` for a packet that is refused, with why: it is to be logged, and the next one may be good. Otherwise
/// when nothing is there on a non-blocking end, or the socket fails.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(CallPacket, Option<OwnedFd>)>> {
    let mut bytes = vec![0; LARGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let (len, is_cut) = (received.bytes, received.flags.contains(ReturnFlags::TRUNC));
    // There may be space for one more than was asked for. What is not taken here is closed.
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let descriptor = descriptors.next().and_then(|mut fds| fds.next());
    drop(descriptors);
    let message = match len {
        // An empty packet and the end of all senders look the same.
        0 if is_at_end(socket)? => return Ok(None),
        0 => Err(InvalidMessage::Empty),
        _ if is_cut => Err(InvalidMessage::TooLong),
        len => read(&bytes[..len], descriptor.is_some()),
    };
    let message = message.map_err(|invalid| io::Error::new(io::ErrorKind::InvalidData, invalid))?;
    Ok(Some((message, descriptor)))
}

/// Whether nobody has the other end any more.
fn is_at_end(socket: BorrowedFd<'_>) -> nix::Result<bool> {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

fn read(bytes: &[u8], has_descriptor: bool) -> Result<CallPacket, InvalidMessage> {
    let message: CallPacket = serde_json::from_slice(bytes)?;
    match &message.what {
        CallRequest::Schedule { signal, when: When::Every { seconds: 0, .. } } => {
            return Err(InvalidMessage::NoPause(*signal));
        }
        CallRequest::Watch { signal, path } if !(1..=PATH_LONGEST).contains(&path.len()) => {
            return Err(InvalidMessage::Path { signal: *signal, length: path.len() });
        }
        CallRequest::Listen(_) | CallRequest::Workers | CallRequest::Reforked { .. } if !has_descriptor => {
            return Err(InvalidMessage::NoDescriptor);
        }
        CallRequest::Listen(Role::Auxiliary(Auxiliary { number: 0, .. }))
        | CallRequest::Harakiri { role: Role::Auxiliary(Auxiliary { number: 0, .. }), .. } => {
            return Err(InvalidMessage::Zero);
        }
        CallRequest::Register { .. }
        | CallRequest::Listen(_)
        | CallRequest::Harakiri { .. }
        | CallRequest::Raise(_)
        | CallRequest::Schedule { .. }
        | CallRequest::Watch { .. }
        | CallRequest::Alarm { .. }
        | CallRequest::Begun { .. }
        | CallRequest::Obeyed { .. }
        | CallRequest::Reforked { .. }
        | CallRequest::Workers => {}
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{SlotId, WorkerId};
    use crate::ipc::{Auxiliary, AuxiliaryKind, send_message};

    #[test]
    fn a_question_brings_its_way_back() {
        let (master, ours) = socket().unwrap();
        let asking = std::thread::spawn(move || {
            let question = CallPacket { generation: GenerationNumber::FIRST, what: CallRequest::Workers };
            ask::<Vec<WorkerState>>(ours.as_fd(), &question)
        });
        let (message, descriptor) = receive(master.as_fd()).unwrap().unwrap();
        assert_eq!(message.generation, GenerationNumber::FIRST);
        let workers = vec![WorkerState { id: 7, ..WorkerState::default() }];
        send_message(descriptor.unwrap().as_fd(), &workers).unwrap();
        assert_eq!(asking.join().unwrap().unwrap()[0].id, 7);
    }

    /// What the master makes of these bytes.
    fn received(bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<CallPacket> {
        let (master, ours) = socket().unwrap();
        send_packet(ours.as_fd(), bytes, descriptor).unwrap();
        receive(master.as_fd()).map(|message| message.unwrap().0)
    }

    /// Why these bytes are refused.
    fn refused(bytes: &[u8]) -> String {
        let error = received(bytes, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        error.to_string()
    }

    fn packet(what: CallRequest) -> Vec<u8> {
        serde_json::to_vec(&CallPacket { generation: GenerationNumber::FIRST, what }).unwrap()
    }

    #[test]
    fn a_packet_that_nobody_of_ours_sends_is_refused_in_words() {
        let worker = Role::Worker { worker: WorkerId::FIRST, slot: SlotId::new(0) };
        let spooler = Role::Auxiliary(Auxiliary { kind: AuxiliaryKind::Spooler, number: 0 });
        let every = |seconds| CallRequest::Schedule { signal: 7, when: When::Every { seconds, times: 0, rb: false } };
        let watch = |length| CallRequest::Watch { signal: 7, path: "p".repeat(length) };
        for (what, why) in [
            (every(0), "every 0 seconds"),
            (watch(0), "a path of 0 bytes"),
            (watch(5000), "a path of 5000 bytes"),
            (watch(20_000), "longer than 16384 bytes"),
            (CallRequest::Harakiri { role: spooler, seconds: 1 }, "auxiliary process 0"),
            (CallRequest::Listen(worker), "no descriptor"),
            (CallRequest::Workers, "no descriptor"),
        ] {
            let said = refused(&packet(what));
            assert!(said.contains(why), "{said}");
        }
        assert!(refused(b"").contains("empty"));
        for unknown in [
            &b"{\"generation\":1,"[..],
            br#"{"generation":1,"what":{"Raise":300}}"#,
            br#"{"generation":0,"what":{"Raise":1}}"#,
            br#"{"generation":1,"what":{"Harakiri":{"role":{"Worker":{"worker":0,"slot":0}},"seconds":1}}}"#,
            &[0xff; 100],
        ] {
            assert!(refused(unknown).contains("none of the messages"));
        }
        assert_eq!(received(&packet(every(1)), None).unwrap().generation, GenerationNumber::FIRST);
    }

    #[test]
    fn a_descriptor_that_comes_with_what_is_refused_is_closed() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        assert!(received(b"?", Some(writer.as_fd())).is_err());
        drop(writer);
        assert_eq!(nix::unistd::read(&reader, &mut [0; 1]), Ok(0), "nobody has it open");
    }

    #[test]
    fn descriptors_beyond_the_one_that_a_packet_may_bring_are_closed() {
        for more in 1..4 {
            let (master, ours) = socket().unwrap();
            let (reader, writer) = nix::unistd::pipe().unwrap();
            let fds = vec![writer.as_raw_fd(); 1 + more];
            let bytes = packet(CallRequest::Workers);
            let (parts, message) = ([IoSlice::new(&bytes)], [ControlMessage::ScmRights(&fds)]);
            sendmsg::<()>(ours.as_raw_fd(), &parts, &message, MsgFlags::empty(), None).unwrap();
            let (_, descriptor) = receive(master.as_fd()).unwrap().unwrap();
            assert!(descriptor.is_some());
            drop((descriptor, writer));
            let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(1), "nobody has it open");
        }
    }

    #[test]
    fn the_end_of_all_senders_is_reported() {
        let (master, ours) = socket().unwrap();
        drop(ours);
        assert!(receive(master.as_fd()).unwrap().is_none());
    }
}
