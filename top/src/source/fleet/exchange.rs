//! One question to one server, without waiting: connect, ask if that is needed, read to the end. Whoever drives it calls
//! [`Exchange::advance`] when the socket has something, and from time to time.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::source::SourceError;
use crate::source::fetch::{ASK_FOR_STATS, Head, UNASKED, is_reply};

/// A document of a server that has thousands of busy threads is below this. Hundreds of servers answer at once.
const LARGEST: usize = 8 << 20;
/// What a read makes room for.
const STEP: usize = 16 << 10;

/// How a server is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Sent first; empty where the document comes unasked.
    pub(super) request: Vec<u8>,
    /// It may be a control socket, which is asked when nothing comes.
    pub(super) may_be_control: bool,
    /// It was one the last time.
    pub(super) is_control: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// To be connected, now or when the other end's queue has room.
    Unconnected,
    Connecting,
    Connected,
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Exchange {
    question: Question,
    /// Where to connect; those before `place` did not answer.
    addresses: Vec<SockAddr>,
    place: usize,
    socket: Option<Socket>,
    stage: Stage,
    sent: usize,
    asked: bool,
    bytes: Vec<u8>,
    /// Where an HTTP body ends.
    whole: Option<usize>,
    begun: Instant,
    timeout: Duration,
}

/// How far an exchange is.
#[derive(Debug)]
pub(super) enum Progress {
    /// It waits. `true`: on another socket than before, which has to be watched.
    Waits(bool),
    /// All was read; empty if nothing came.
    Done(Vec<u8>),
    /// It came to nothing.
    Failed(SourceError),
}

impl Exchange {
    /// With whoever answers first of several addresses; `room` is a buffer, whose contents are of no interest.
    pub(super) fn new(
        question: Question,
        addresses: Vec<SockAddr>,
        mut room: Vec<u8>,
        now: Instant,
        timeout: Duration,
    ) -> Self {
        room.clear();
        Self {
            question,
            addresses,
            place: 0,
            socket: None,
            stage: Stage::Unconnected,
            sent: 0,
            asked: false,
            bytes: room,
            whole: None,
            begun: now,
            timeout,
        }
    }

    /// What is to be watched.
    pub(super) fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
    }

    /// Which of the addresses it is with.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// Bytes that it holds.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity()
    }

    /// When it has to be looked at even if nothing comes.
    pub(super) fn look(&self, now: Instant) -> Instant {
        match self.stage {
            Stage::Unconnected => now + UNASKED / 10,
            Stage::Connecting => self.patience(),
            Stage::Connected if self.waits_to_be_asked() => self.begun + UNASKED,
            Stage::Connected => self.begun + self.timeout,
        }
    }

    /// Goes on as far as it can.
    pub(super) fn advance(&mut self, now: Instant) -> Progress {
        if now >= self.begun + self.timeout {
            return Progress::Failed(SourceError::TimedOut(self.timeout));
        }
        let mut changed = false;
        loop {
            let stepped = match self.stage {
                Stage::Unconnected => {
                    changed = true;
                    self.connect()
                }
                Stage::Connecting => self.check(now),
                Stage::Connected => return self.talk(now).unwrap_or(Progress::Waits(changed)),
            };
            match stepped {
                Ok(true) => {}
                Ok(false) => return Progress::Waits(changed),
                // The next address at once; after the last one there is nobody.
                Err(error) => {
                    self.socket = None;
                    self.stage = Stage::Unconnected;
                    self.place += 1;
                    if self.place >= self.addresses.len() {
                        return Progress::Failed(if error.kind() == io::ErrorKind::TimedOut {
                            SourceError::TimedOut(self.timeout)
                        } else {
                            SourceError::Connect(error)
                        });
                    }
                }
            }
        }
    }

    /// The buffer, for the next.
    pub(super) fn into_room(self) -> Vec<u8> {
        self.bytes
    }

    /// Until when this address may be silent: each has its part of the time.
    fn patience(&self) -> Instant {
        let addresses = self.addresses.len().max(1) as u32;
        self.begun + self.timeout / addresses * (self.place as u32 + 1)
    }

    fn connect(&mut self) -> io::Result<bool> {
        let address = self.addresses.get(self.place).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let domain = if address.is_unix() { Domain::UNIX } else { address.domain() };
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
        self.stage = match socket.connect(address) {
            Ok(()) => Stage::Connected,
            // A unix socket's queue is full: nothing tells when it has room.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Stage::Connecting
            }
            Err(error) => return Err(error),
        };
        self.socket = Some(socket);
        Ok(self.stage == Stage::Connected)
    }

    /// Whether the connection is there.
    fn check(&mut self, now: Instant) -> io::Result<bool> {
        let Some(socket) = &self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Ok(_) => {
                self.stage = Stage::Connected;
                Ok(true)
            }
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            Err(_) if now >= self.patience() => Err(io::ErrorKind::TimedOut.into()),
            Err(_) => Ok(false),
        }
    }

    fn waits_to_be_asked(&self) -> bool {
        self.question.may_be_control && !self.asked && self.bytes.is_empty()
    }

    /// Sends what is to be sent, and reads what there is; `None` when more is to come.
    fn talk(&mut self, now: Instant) -> Option<Progress> {
        let mut socket = self.socket.as_ref()?;
        while self.sent < self.question.request.len() {
            match socket.write(&self.question.request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => return Some(Progress::Failed(SourceError::Read(error))),
            }
        }
        if self.waits_to_be_asked() && (self.question.is_control || now >= self.begun + UNASKED) {
            self.asked = true;
            // Whoever does not read it closes the connection, or has gone on to send a document after all.
            let _ = socket.write(ASK_FOR_STATS);
        }
        loop {
            let length = self.bytes.len();
            if length > LARGEST {
                return Some(Progress::Failed(SourceError::TooLarge(LARGEST)));
            }
            self.bytes.reserve(STEP);
            let count = match read_more(&mut socket, &mut self.bytes) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // Some servers close with unread input and the kernel resets; what came before it may be whole.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && length > 0 => 0,
                Err(error) => return Some(Progress::Failed(SourceError::Read(error))),
            };
            if count == 0 || is_whole(&self.bytes, &mut self.whole) {
                return Some(Progress::Done(std::mem::take(&mut self.bytes)));
            }
        }
    }
}

/// Whether more need not be read, though the connection is open. `whole` is where an HTTP body ends, once that is known.
fn is_whole(bytes: &[u8], whole: &mut Option<usize>) -> bool {
    // A control socket stays open: its answer is a line.
    if bytes.ends_with(b"\n") && is_reply(bytes) {
        return true;
    }
    if whole.is_none()
        && let Some(Ok(Head { length: head, body: Some(body), .. })) = Head::of(bytes)
    {
        *whole = Some(head.saturating_add(body));
    }
    whole.is_some_and(|whole| bytes.len() >= whole)
}

/// Reads once into the room that there is.
fn read_more(socket: &mut &Socket, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let length = bytes.len();
    // No larger than what was reserved: filling it up costs less than a system call for each step.
    bytes.resize(bytes.capacity(), 0);
    let count = socket.read(&mut bytes[length..]);
    bytes.truncate(length + count.as_ref().map_or(0, |count| *count));
    count
}
