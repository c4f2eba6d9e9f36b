//! One connection: its socket, what it is doing, the bytes on their way in and out. No policy.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;

use super::body::RequestBody;
use super::harakiri;
use super::kind::Kind;
use super::lane::{Lane, WORTH_PASSING};
use super::parked::Parked;
use super::phases::Waits;
use super::streams::{Stream, Taken};
use super::upgrade::UpgradePath;
use crate::clock::MonotonicNanos;
use crate::io::body::{Gathering, IntakeError};
use crate::io::close::{Then, reset_on_close, shut_sending};
use crate::io::pace::{MinRates, Pace};
use crate::io::receive::{Received, has_unread, receive};
use crate::io::segment::WORTH_SHARING;
use crate::io::temp::TempFiles;
use crate::io::unsent::{TooSlow, Unsent};
use crate::io::wait::until_ready;
use crate::wsgi::transport::{Kept, Transport};
use rwsgi_protocol::link::{ABORTED, DONE_CLOSE, DONE_KEEP, FAST, FILE, LEAVING, MAX_FRAME, Peer, SKIPPED, in_slot};

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

/// A response up to this long goes over a link in one piece with what ends it: a copy costs less than a second call,
/// bytes.
const WORTH_HOLDING: usize = 16 * 1024;
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
    /// The other way for large bodies.
    pub(super) lane: Option<Box<Lane>>,
    /// How the client's connection can be had, where that is allowed.
    pub(super) upgrade: Option<Box<UpgradePath>>,
    /// What is to be sent with the end of the response: one frame, or nothing.
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

    /// Sends what is ours to say, and not the application's.
    ///
    /// # Errors
    /// When the other end is gone.
    pub(super) fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send_on(&[bytes], &mut |_| None).map(drop)
    }

    /// Sends `parts` after what was gathered. See [`Unsent::send`].
    ///
    /// # Errors
    /// When the other end is gone.
    #[inline]
    fn send_on(&mut self, parts: &[&[u8]], own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
        match self.stream.take() {
            None => self.unsent.send(self.socket.as_fd(), parts, own),
            Some(taken) => self.send_gathered(taken, parts, own),
        }
    }

    /// Sends `parts`, as one frame on a link. See [`Unsent::send`].
    ///
    /// # Errors
    /// When the other end is gone.
    #[inline]
    fn send_framed(
        &mut self,
        parts: &[&[u8]],
        len: usize,
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> io::Result<bool> {
        if !self.is_link() && self.last && self.closes {
            return self.send_last(parts, own);
        }
        if !self.is_link() || len == 0 {
            return self.send_on(parts, own);
        }
        if len > MAX_FRAME as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a response of 4 GB in one piece"));
        }
        if parts.iter().any(|part| part.len() >= WORTH_SHARING) {
            return self.send_large(parts, own);
        }
        let frame = (len as u32).to_le_bytes();
        if self.last && len <= WORTH_HOLDING {
            self.link.held.extend_from_slice(&frame);
            parts.iter().for_each(|part| self.link.held.extend_from_slice(part));
            return Ok(self.unsent.is_empty());
        }
        self.send_behind(&frame, parts, own)
    }

    /// Sends `parts` to a client whose connection ends with them: see `announce_last`.
    fn send_last(&mut self, parts: &[&[u8]], own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
        if let Some(taken) = self.stream.take() {
            return self.send_gathered(taken, parts, own);
        }
        let all_sent = self.unsent.send_last(self.socket.as_fd(), parts, own)?;
        if all_sent {
            // Here, for the kernel holds the last packet until then: what the application leaves behind may run its code
            // first. And not by closing: that may come later, when a child has a copy of the socket, and with unread
            // bytes it drops what is not sent.
            shut_sending(&*self.socket);
        }
        Ok(all_sent)
    }

    fn send_gathered(
        &mut self,
        mut taken: Taken,
        parts: &[&[u8]],
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> io::Result<bool> {
        self.unsent.sent_elsewhere(taken.sent);
        if let Some(failure) = taken.failure.take() {
            return Err(failure);
        }
        let sent = match (taken.rest(), parts) {
            // To send nothing is a call, too, and fails when the client has left with all that it wanted.
            ([], []) => Ok(self.unsent.is_empty()),
            ([], parts) => self.unsent.send(self.socket.as_fd(), parts, own),
            (rest, parts) => {
                let all: Vec<&[u8]> = std::iter::once(rest).chain(parts.iter().copied()).collect();
                self.unsent.send(self.socket.as_fd(), &all, &mut |part| own(part.checked_sub(1)?))
            }
        };
        self.stream.give_back(taken);
        sent
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

    /// Waits until the client has been given all.
    ///
    /// # Errors
    /// When it is gone, or takes too little.
    pub(super) fn wait_until_sent(&mut self) -> io::Result<()> {
        self.send_on(&[], &mut |_| None)?;
        let flushed = self.unsent.flush(self.socket.as_fd(), self.patience, self.rates);
        self.too_slow |= flushed.as_ref().is_err_and(TooSlow::is_why);
        flushed
    }

    /// Ends a response. On a link a word does, elsewhere its own framing or the end of the connection.
    ///
    /// # Errors
    /// When the other end is gone.
    pub(super) fn end_response(&mut self, end: ResponseEnd, fast: bool) -> io::Result<()> {
        self.last = false;
        if self.is_link() {
            self.phase = ConnectionPhase::Flushing(Then::NextRequest);
            let word = match end {
                ResponseEnd::Keep => DONE_KEEP + if fast { FAST } else { 0 },
                ResponseEnd::Close => DONE_CLOSE + if fast { FAST } else { 0 },
                ResponseEnd::Aborted => ABORTED,
            };
            let mut held = std::mem::take(&mut self.link.held);
            held.extend_from_slice(&word.to_le_bytes());
            let sent = self.send_on(&[&held], &mut |_| None);
            held.clear();
            self.link.held = held;
            self.stream.end();
            return sent.map(drop);
        }
        // One that breaks off may have pieces there.
        let sent = match self.stream.take() {
            None => Ok(()),
            Some(taken) => self.send_gathered(taken, &[], &mut |_| None).map(drop),
        };
        self.stream.end();
        self.phase = ConnectionPhase::Flushing(if end == ResponseEnd::Keep { Then::NextRequest } else { Then::Close });
        if end == ResponseEnd::Aborted {
            reset_on_close(&*self.socket);
            self.give_up();
        }
        sent
    }

    /// Reports to the router that a cancelled request was skipped.
    ///
    /// # Errors
    /// When the router is gone.
    pub(super) fn tell_skipped(&mut self) -> io::Result<()> {
        self.phase = ConnectionPhase::Flushing(Then::NextRequest);
        self.say(&SKIPPED.to_le_bytes())
    }

    /// Asks the router not to send any more requests on this link.
    ///
    /// # Errors
    /// When the router is gone.
    pub(super) fn tell_leaving(&mut self) -> io::Result<()> {
        self.link.leave_sent = true;
        self.say(&LEAVING.to_le_bytes())
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

    /// Sends parts behind what comes before them on the link.
    fn send_behind(
        &mut self,
        before: &[u8],
        parts: &[&[u8]],
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> io::Result<bool> {
        let framed: Vec<&[u8]> = std::iter::once(before).chain(parts.iter().copied()).collect();
        self.send_on(&framed, &mut |part| own(part.checked_sub(1)?))
    }

    /// Sends parts of which some are long over a link: through the lane's memory as far as that has space.
    fn send_large(&mut self, parts: &[&[u8]], own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
        let Self { link: LinkEnd { lane, .. }, .. } = self;
        let segment = lane.as_mut().and_then(|lane| lane.segment()).cloned();
        let mut words = Vec::new();
        // How many parts are on their way, and how much of the next.
        let (mut whole, mut gone) = (0, 0);
        for part in parts {
            if part.len() < WORTH_HOLDING {
                words.extend_from_slice(&(part.len() as u32).to_le_bytes());
                words.extend_from_slice(part);
            } else {
                let fill = |rest| segment.as_ref().and_then(|segment| segment.fill(rest));
                while gone < part.len()
                    && let Some((slot, len)) = fill(&part[gone..])
                {
                    words.extend_from_slice(&in_slot(slot as u32, len as u32).to_le_bytes());
                    gone += len;
                }
                if gone < part.len() {
                    break;
                }
            }
            (whole, gone) = (whole + 1, 0);
        }
        let Some((first, others)) = parts[whole..].split_first() else {
            if self.last && words.len() <= WORTH_HOLDING {
                self.link.held.append(&mut words);
                return Ok(self.unsent.is_empty());
            }
            return self.send_behind(&words, &[], &mut |_| None);
        };
        let mut rest = vec![&first[gone..]];
        rest.extend_from_slice(others);
        let len: usize = rest.iter().map(|part| part.len()).sum();
        words.extend_from_slice(&(len as u32).to_le_bytes());
        self.send_behind(&words, &rest, &mut |part| {
            let kept = own(whole + part)?;
            Some(if part == 0 && gone > 0 { Box::new(Tail { kept, from: gone }) } else { kept })
        })
    }

    /// Bytes that went to the client since the last call. The router's clients are sent what a link is given.
    pub(super) fn take_sent(&mut self) -> u64 {
        let sent = self.unsent.take_sent();
        match self.kind {
            Kind::Link(_) => std::mem::take(&mut self.queued),
            _ => sent,
        }
    }

    /// Claims the present request's answer, which `harakiri` may have given before.
    ///
    /// # Errors
    /// When it has.
    pub(super) fn claim(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.watched) { harakiri::release() } else { Ok(()) }
    }
}

/// Bytes that are kept, without the first of them.
struct Tail {
    kept: Kept,
    from: usize,
}

impl AsRef<[u8]> for Tail {
    fn as_ref(&self) -> &[u8] {
        &self.kept.as_ref().as_ref()[self.from..]
    }
}

impl Transport for Connection {
    fn send(&mut self, parts: &[&[u8]], own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
        self.claim()?;
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.queued += len as u64;
        if std::mem::take(&mut self.stream.more) {
            if self.unsent.is_empty() && self.stream.gather(&self.socket, self.is_link(), parts, len)? {
                return Ok(true);
            }
            let sent = self.send_framed(parts, len, own);
            self.stream.sent_at_once();
            return sent;
        }
        self.send_framed(parts, len, own)
    }

    fn announce_more(&mut self) {
        self.stream.more = true;
    }

    fn gather_no_more(&mut self) {
        self.stream.alone = true;
    }

    fn announce_last(&mut self) {
        self.last = true;
    }

    fn send_file(&mut self, head: &[u8], file: File, offset: u64, len: u64) -> io::Result<bool> {
        let all_sent = self.send(&[head], &mut |_| None)?;
        if len == 0 {
            return Ok(all_sent);
        }
        self.queued += len;
        if !self.is_link() {
            return self.unsent.send_file(self.socket.as_fd(), file, offset, len);
        }
        // What goes to a client of TLS is encrypted by the router, which must have it.
        if len >= WORTH_PASSING
            && !Peer::parse(self.peer.as_bytes()).is_ok_and(|peer| peer.tls.is_some())
            && self.link.lane.as_mut().is_some_and(|lane| lane.pass(&file, offset, len))
        {
            self.say(&FILE.to_le_bytes())?;
            return Ok(self.unsent.is_empty());
        }
        let (mut offset, mut left) = (offset, len);
        while left > 0 {
            let frame = left.min(u64::from(MAX_FRAME)) as u32;
            self.say(&frame.to_le_bytes())?;
            self.unsent.send_file(self.socket.as_fd(), file.try_clone()?, offset, frame.into())?;
            offset += u64::from(frame);
            left -= u64::from(frame);
        }
        Ok(self.unsent.is_empty())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait_until_sent()
    }

    fn take_client(&mut self) -> io::Result<OwnedFd> {
        self.claim()?;
        match (&self.link.upgrade, self.kind) {
            (Some(path), _) => path.take_client(),
            (None, Kind::Link(_)) => Err(io::Error::other("http-websockets is not set")),
            (None, Kind::Client(_)) if self.input.is_empty() => self.socket.try_clone(),
            (None, Kind::Client(_)) => Err(io::Error::other("the client sent more than its request")),
        }
    }

    fn body(&mut self) -> &mut (dyn BufRead + Send) {
        &mut self.body
    }

    fn body_at_hand(&self) -> &[u8] {
        self.body.at_hand()
    }

    fn body_left(&self) -> u64 {
        self.body.left()
    }
}
