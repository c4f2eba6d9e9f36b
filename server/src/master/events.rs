//! What the loop takes one after another, from tasks that only wait.

use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sys::signal::Signal;
use rwsgi_config::hooks::{Function, Hook};
use rwsgi_stats::control::ThreadStack;
use tokio::sync::{mpsc, oneshot};

use super::control::Asked;
use crate::clock::MonotonicNanos;
use crate::ids::{GenerationNumber, SlotId, ThreadIndex};
use crate::ipc::AuxiliaryKind;
use crate::ipc::Notice;
use crate::ipc::calls::CallPacket;
use crate::spooler::Queue;
use crate::stats::server::Readiness;
use crate::stats::snapshot::SnapshotRequest;
use crate::vassal::Heard;

/// Where tasks send what has happened. It has space for [`MOST_WAITING`]: who sends more waits, and leaves what comes
/// meanwhile in its pipe or socket.
pub(super) type Events = mpsc::Sender<Event>;

/// Events that wait for the loop.
pub(super) const MOST_WAITING: usize = 256;

/// What the loop takes one after another.
#[derive(Debug)]
pub(super) enum Event {
    /// A child has ended.
    Child,
    /// Stop: gracefully at first, at once when it comes again.
    Stop(Signal),
    /// Load a new generation.
    Reload(Reload),
    /// An order through the fifo.
    Command(Command),
    /// The fork server of this generation has answered.
    Answers(GenerationNumber),
    /// All auxiliary processes of a kind are to be started again.
    Renew(AuxiliaryKind),
    /// A file has changed that this program beside the server is to learn of; its place among them.
    DaemonTouched(usize),
    /// Somebody connected while no worker ran.
    Wake,
    /// A child says how it stands.
    Notice(Notice),
    /// The application's signals.
    Call(Call),
    /// An alarm: its name, and what has happened.
    Alarm(String, String),
    /// A file has changed that a command or a hook waits for.
    Touched(Touched),
    /// A signal that a hook has given to this function.
    Function(Function),
    /// The emperor that this server is a vassal of says something.
    FromEmperor(Heard),
    /// It wants to know that this server is well.
    Heartbeat,
    /// The stack of a thread whose request, which began then, is slow.
    SlowStack {
        /// The slot of its process.
        slot: SlotId,
        /// The thread.
        thread: ThreadIndex,
        /// When the request began.
        started: MonotonicNanos,
        /// What it was doing.
        stack: ThreadStack,
    },
    /// Somebody wants to know how the server is doing.
    Stats(SnapshotRequest),
    /// Somebody wants to know whether the server lives, or wants requests.
    Probe(oneshot::Sender<Readiness>),
    /// Somebody asks for something through the control socket.
    Control(Box<Asked>),
    /// The spoolers' jobs were counted for that.
    Queues {
        /// In the order of the configuration.
        queues: Vec<Queue>,
        /// Until when they are not counted again.
        good_until: Instant,
        /// Who wants to know.
        asked: SnapshotRequest,
    },
}

/// What a file's change asks for that is no order to the server.
#[derive(Clone, Debug)]
pub(super) enum Touched {
    /// `touch-exec`.
    Command(String),
    /// These hooks, in their order.
    Hooks(Vec<Hook>),
}

/// How a new generation takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// Every worker has a successor started at once.
    Rolling,
    /// One worker after another.
    Chain,
    /// As rolling, and nothing beside the workers is touched: the application's process died, and is there again.
    Again,
    /// As rolling; the old ones are not given time to finish.
    Brutal,
}

/// What a letter in the fifo, or a signal, asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `q` and `Q`: stop, `true` for at once.
    Stop(bool),
    /// `r`, `w`, `c` and their like.
    Reload(Reload),
    /// `l`: open the log again.
    ReopenLog,
    /// Put the log aside and open a new one.
    RotateLog,
    /// `P`: write the pidfiles again.
    WritePidfiles,
    /// `s`, SIGUSR2: log the state of the workers.
    Stats,
    /// SIGUSR1: open the log again, and log the state of the workers.
    ReopenLogAndStats,
    /// SIGTTIN: one worker more.
    OneMore,
    /// SIGTTOU: one worker fewer.
    OneFewer,
    /// `t`: log what all threads execute.
    Stacks,
}

/// What concerns the application's signals.
#[derive(Debug)]
pub(super) enum Call {
    /// A process says something, and may bring a descriptor.
    Packet(CallPacket, Option<OwnedFd>),
    /// A process has handled a signal.
    Handled(u64),
    /// A process does not listen any more.
    Gone(u64),
    /// A file has changed.
    Changed {
        /// The generation that asked for it.
        generation: GenerationNumber,
        /// The signal to raise.
        signal: u8,
    },
}
