//! One connection: its socket, what it is doing, the bytes on their way in and out. No policy.

mod sending;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;

use super::body::RequestBody;
use super::kind::Kind;
use super::lane::Lane;
use super::parked::Parked;
use super::phases::Waits;
use super::streams::Stream;
use super::upgrade::UpgradePath;
use crate::clock::MonotonicNanos;
use crate::io::body::{Gathering, IntakeError};
use crate::io::close::Then;
use crate::io::pace::{MinRates, Pace};
use crate::io::receive::{Received, has_unread, receive};
use crate::io::temp::TempFiles;
use crate::io::unsent::Unsent;
use crate::io::wait::until_ready;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Bytes to come.
    Read,
    /// Send space.
    Write,
}

/// What a connection is doing. The large part is boxed: nearly all connections are idle nearly always.
pub(super) enum ConnectionPhase {
    /// No byte has come yet.
    New,
    /// Between requests; nothing of the next was looked at.
    Idle,
    /// A part of a head was looked at, and is kept in `input`.
    Head,
    /// The head is here; the body is being gathered.
    Body(Box<Gathering>),
    /// The application has the request.
    Serving,
    /// A request is answered; some of the answer may not be sent yet.
    Flushing(Then),
    /// What comes is read and dropped.
    Lingering,
    /// There is nobody to talk to, or nothing to be said: it is closed as it is.
    Over,
}

/// How a response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseEnd {
    /// The connection stays.
    Keep,
    /// The connection is closed.
    Close,
    /// It did not come to its end, and closing as usual would make it look whole.
    Aborted,
}

/// What came of [`Connection::spool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gathered {
    /// More is to come.
    Part,
    /// The body is whole.
    Whole,
    /// The client went away.
    Gone,
}

/// Reads in a row before other connections get their turn, and how long they may take, ns.
const SPOOLS: usize = 16;
const SPOOL_NANOS: u64 = 1_000_000;

/// What only a link has to remember.
#[derive(Default)]
pub(super) struct LinkEnd {
    /// The router was asked not to send any more.
    pub(super) leave_sent: bool,
    /// Requests that it has brought.
    pub(super) brought: u8,
    /// The other way for bodies.
    pub(super) lane: Option<Box<Lane>>,
    /// How the client's connection can be had, where that is allowed.
    pub(super) upgrade: Option<Box<UpgradePath>>,
    /// The present response has filled large slots of the lane.
    fills_large_slots: bool,
    /// What is to be sent with the end of the response: frames, and words for slots.
    held: Vec<u8>,
}

/// See the module.
pub(super) struct Connection {
    pub(super) socket: Arc<OwnedFd>,
    pub(super) kind: Kind,
    /// Which of the worker's listeners a client has come by.
    pub(super) listener: usize,
    pub(super) phase: ConnectionPhase,
    /// `remote_addr remote_port server_name server_port`; a link's changes with each request.
    pub(super) peer: String,
    /// Bytes that have come and make no whole request yet, or wait for the response before to be sent.
    pub(super) input: Vec<u8>,
    /// How many of them were looked at in vain.
    pub(super) seen: usize,
    pub(super) body: RequestBody,
    pub(super) unsent: Unsent,
    /// What it has of a response that comes in many pieces.
    pub(super) stream: Stream,
    /// The memory that it takes while no thread waits for it.
    pub(super) parked: Option<Parked>,
    /// It is closed after the present response, whatever the application says.
    pub(super) closes: bool,
    /// What the application sends next is the last of the response.
    last: bool,
    /// Payload that the application's side gave for the present request, bytes.
    pub(super) queued: u64,
    /// What the present request has waited before a thread took it.
    pub(super) waits: Waits,
    /// `harakiri` may answer the present request: nothing was sent yet.
    pub(super) watched: bool,
    pub(super) link: LinkEnd,
    /// How it stands in the epoll set; `None` when it was never put there.
    pub(super) armed: Option<Wait>,
    /// When it has waited too long, seconds of the threads' clock.
    pub(super) deadline: u32,
    /// The longest wait for the client during a response.
    pub(super) patience: Duration,
    /// How slow the client may be.
    pub(super) rates: MinRates,
    /// How its body comes, or how it takes a response.
    pub(super) pace: Pace,
    /// A thread has waited for it in vain: it takes its response too slowly.
    pub(super) too_slow: bool,
    /// A proxy may say who its client is, before anything else.
    pub(super) awaits_proxy: bool,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, kind: Kind, peer: String, patience: Duration, rates: MinRates) -> Box<Self> {
        Box::new(Self {
            socket: Arc::new(socket),
            kind,
            listener: 0,
            phase: ConnectionPhase::New,
            peer,
            input: Vec::new(),
            seen: 0,
            body: RequestBody::Empty,
            unsent: Unsent::default(),
            stream: Stream::default(),
            parked: None,
            closes: false,
            last: false,
            queued: 0,
            waits: Waits::default(),
            watched: false,
            link: LinkEnd::default(),
            armed: None,
            deadline: u32::MAX,
            patience,
            rates,
            pace: Pace::Any,
            too_slow: false,
            awaits_proxy: false,
        })
    }

    pub(super) fn fd(&self) -> usize {
        self.socket.as_raw_fd().unsigned_abs() as usize
    }

    pub(super) fn is_link(&self) -> bool {
        matches!(self.kind, Kind::Link(_))
    }

    /// Whether it is between requests, with nothing begun and nothing left to send.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, ConnectionPhase::New | ConnectionPhase::Idle)
            && self.input.is_empty()
            && self.unsent.is_empty()
    }

    /// Whether a part of a request is here that is to be answered.
    pub(super) fn is_begun(&self) -> bool {
        matches!(self.phase, ConnectionPhase::Head | ConnectionPhase::Body(_)) && !self.is_link()
    }

    /// Whether there are bytes in `input` that nobody has looked at.
    pub(super) fn has_input(&self) -> bool {
        self.input.len() > self.seen
    }

    /// Whether it is the threads that are late, and not its client: what it waits for is there.
    pub(super) fn waits_for_thread(&self) -> bool {
        match (self.armed, &self.phase) {
            (Some(Wait::Write), _) => until_ready(&*self.socket, PollFlags::OUT, Duration::ZERO).is_ok(),
            (_, ConnectionPhase::New | ConnectionPhase::Idle | ConnectionPhase::Head | ConnectionPhase::Body(_)) => {
                has_unread(&*self.socket)
            }
            _ => false,
        }
    }

    /// Reads once.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Received {
        receive(&*self.socket, buffer)
    }

    /// Nothing more is to be said: what waits to be sent is dropped.
    pub(super) fn give_up(&mut self) {
        self.phase = ConnectionPhase::Over;
        self.unsent = Unsent::default();
        self.stream = Stream::default();
        self.parked = None;
    }

    /// Reads what is there of a body that goes to a file, without the GIL: disks take their time.
    ///
    /// # Errors
    /// When the body cannot be taken.
    pub(super) fn spool(&mut self, scratch: &mut [u8], temp: &TempFiles) -> Result<Gathered, IntakeError> {
        let Self { socket, phase: ConnectionPhase::Body(gathering), input, seen, .. } = self else {
            return Ok(Gathered::Part);
        };
        let intake = &mut gathering.intake;
        let began = MonotonicNanos::now();
        for _ in 0..SPOOLS {
            let left = intake.left().and_then(|left| usize::try_from(left).ok());
            let buffer = left.map_or(scratch.len(), |left| left.min(scratch.len()));
            match receive(&**socket, &mut scratch[..buffer]) {
                Received::End => return Ok(Gathered::Gone),
                Received::Nothing => break,
                Received::Bytes(len) => {
                    let (used, is_whole) = intake.take(&mut scratch[..len], temp)?;
                    if is_whole {
                        // The end of chunks shows only when it is there: the next request may have come with it.
                        *input = scratch[used..len].to_vec();
                        *seen = 0;
                        return Ok(Gathered::Whole);
                    }
                    if MonotonicNanos::now().nanos_since(began) >= SPOOL_NANOS {
                        break;
                    }
                }
            }
        }
        Ok(Gathered::Part)
    }

    /// Reads away what the application left of a body that the router is still sending.
    ///
    /// # Errors
    /// When the router is gone, or sends nothing for too long.
    pub(super) fn discard_body(&mut self) -> io::Result<()> {
        if let RequestBody::Link(_) = self.body {
            io::copy(&mut self.body, &mut io::sink())?;
        }
        self.body = RequestBody::Empty;
        Ok(())
    }
}
