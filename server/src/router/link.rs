//! The router's end of a link to a thread: requests on their way out, responses on their way in. No policy.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use super::keyed::Key;
use super::lane::Lane;
use super::request::{Arrival, Request};
use crate::clock::MonotonicNanos;
use crate::ids::{SlotId, ThreadIndex};
use crate::io::body::StoredBody;
use crate::io::receive::{Received, receive};
use crate::io::segment::{REQUEST_MAX, WORTH_SHARING};
use crate::stats::cell::AheadCells;
use rwsgi_protocol::link::{AHEAD_MAX, Frames, RequestLengths};

/// How much of a request's body the socket is given before others get their turn, bytes.
const SEND_TURN: usize = 1024 * 1024;

/// The longest body that is sent with its head: copied, so that the request can be cancelled, bytes.
const SMALL_BODY: u64 = 16 * 1024;
/// Bytes of answered requests that are kept before what follows them is moved.
const KEPT: usize = 64 * 1024;

/// Who waits for the answer to a dispatched request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    By(Key),
    /// The client is gone; what still comes is dropped.
    Nobody,
    /// The client was handed over to the thread: nothing comes but the end, however late.
    Elsewhere,
    /// It was cancelled: the thread skips it.
    Cancelled,
}

/// A request that was put on the link and is not answered.
#[derive(Debug)]
pub(super) struct Dispatched {
    pub(super) wanted: Wanted,
    pub(super) arrival: Arrival,
    number: u8,
    /// Where in `outgoing` its head is, and how long what is there of its body is.
    head_at: usize,
    head_len: usize,
    body_len: usize,
    /// The rest of the body is sent from elsewhere.
    streams: bool,
    /// That is the lane's memory.
    on_lane: bool,
}

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) fd: OwnedFd,
    /// The worker's number and process id, and the thread's number.
    pub(super) worker: u32,
    pub(super) thread: ThreadIndex,
    pub(super) pid: i32,
    /// The worker's slot on the scoreboard; `None` as long as it has not said who it is.
    pub(super) slot: Option<SlotId>,
    pub(super) frames: Frames,
    /// Requests that are not answered, the oldest first. The thread has the first, or will have it next.
    pub(super) dispatched: VecDeque<Dispatched>,
    /// The number of the next one.
    number: u8,
    /// Requests up to their bodies; or what has come of the hello. Its memory is used again.
    pub(super) outgoing: Vec<u8>,
    sent: usize,
    /// What is sent after `outgoing`: the rest of the last request. It is kept until the thread is known to have begun.
    body: StoredBody,
    body_sent: u64,
    /// A byte of the first dispatched request's response has come.
    pub(super) answered: bool,
    /// The first dispatched's response is complete, but the thread has not taken the whole request off the link yet.
    pub(super) emptying: bool,
    /// When the thread could begin with the first dispatched request.
    pub(super) begun: MonotonicNanos,
    /// The thread has not begun with it for long: see [`super::not_begun`].
    pub(super) is_stalled: bool,
    /// How many requests in a row the thread was soon done with.
    pub(super) streak: usize,
    /// The worker wants no further request.
    pub(super) leaving: bool,
    pub(super) readable: bool,
    /// The kernel said that the worker has closed the link; there may be bytes before that.
    pub(super) ended: bool,
    pub(super) write_armed: bool,
    /// It waits for its next turn: until then, nothing is read of it.
    pub(super) turns_again: bool,
    /// The second from which a hello, or more of a response that nobody wants, is too late; 0 for never.
    pub(super) deadline: u32,
    /// Bytes of the response that were dropped.
    pub(super) dropped: usize,
    /// Its other way for bodies, once it has asked for that.
    pub(super) lane: Option<Lane>,
}

impl Link {
    pub(super) fn new(fd: OwnedFd, pid: i32, deadline: u32) -> Self {
        Self {
            fd,
            worker: 0,
            thread: ThreadIndex::new(0),
            pid,
            slot: None,
            frames: Frames::default(),
            dispatched: VecDeque::new(),
            number: 0,
            outgoing: Vec::new(),
            sent: 0,
            body: StoredBody::Empty,
            body_sent: 0,
            answered: false,
            emptying: false,
            begun: MonotonicNanos::from_nanos(0),
            is_stalled: false,
            streak: 0,
            leaving: false,
            readable: true,
            ended: false,
            write_armed: false,
            turns_again: false,
            deadline,
            dropped: 0,
            lane: None,
        }
    }

    /// Whether a further request may be put behind those that the thread has: it is fast, and will not be kept from it
    /// by a body that is still being sent.
    pub(super) fn has_space(&self) -> bool {
        let most = (1 + self.streak).min(AHEAD_MAX);
        !self.leaving
            && !self.emptying
            // Behind a cancelled one it could be cancelled itself each time before the thread comes to it.
            && self.dispatched.front().is_none_or(|first| first.wanted != Wanted::Cancelled)
            && self.dispatched.len() < most
            && self.dispatched.back().is_none_or(|last| !last.streams)
    }

    /// Whether a request with this body can be put behind others.
    pub(super) fn can_follow(body: &StoredBody) -> bool {
        matches!(body, StoredBody::Empty) || matches!(body, StoredBody::Memory(_) if body.len() <= SMALL_BODY)
    }

    /// Takes a request to send, which came from `client`.
    pub(super) fn dispatch(
        &mut self,
        cells: &AheadCells,
        client: Key,
        peer: &str,
        head: &[u8],
        body: StoredBody,
        arrival: Arrival,
    ) {
        if self.dispatched.is_empty() {
            self.outgoing.clear();
            self.sent = 0;
        }
        cells.dispatch(self.number);
        let on_lane = self.put_on_lane(&body);
        // Heads are bounded by buffer-size, peers by what addresses look like.
        let lengths = RequestLengths {
            head: head.len() as u32,
            peer: peer.len() as u32,
            body: body.len(),
            since: arrival.since.as_nanos(),
            gathered: arrival.gathered,
            on_lane,
        };
        self.outgoing.extend_from_slice(&lengths.encode());
        self.outgoing.extend_from_slice(peer.as_bytes());
        let head_at = self.outgoing.len();
        self.outgoing.extend_from_slice(head);
        let follows = Self::can_follow(&body);
        let mut body_len = 0;
        match body {
            StoredBody::Memory(bytes) if follows => {
                self.outgoing.extend_from_slice(&bytes);
                body_len = bytes.len();
            }
            body => {
                self.body_sent = if on_lane { body.len() } else { 0 };
                self.body = body;
            }
        }
        let wanted = Wanted::By(client);
        let number = self.number;
        self.dispatched.push_back(Dispatched {
            wanted,
            arrival,
            number,
            head_at,
            head_len: head.len(),
            body_len,
            streams: !follows,
            on_lane,
        });
        self.number = number.wrapping_add(1);
    }

    /// Puts a body in the lane's memory, if that is worth it and the thread is done with the one before. It is kept here too
    /// until the thread is known to have begun.
    fn put_on_lane(&self, body: &StoredBody) -> bool {
        let (StoredBody::Memory(bytes), Some(lane)) = (body, &self.lane) else { return false };
        let fits = (WORTH_SHARING..=REQUEST_MAX).contains(&bytes.len()) && lane.segment.is_mapped();
        fits && !self.dispatched.iter().any(|ahead| ahead.on_lane) && lane.segment.put_request(bytes)
    }

    /// The first dispatched is answered, or was skipped.
    pub(super) fn pop(&mut self, now: MonotonicNanos) -> Option<Dispatched> {
        self.answered = false;
        self.emptying = false;
        self.let_body_go();
        self.begun = now;
        self.dropped = 0;
        self.deadline = 0;
        let popped = self.dispatched.pop_front();
        if let Some(next) = self.dispatched.front()
            && next.head_at > KEPT
        {
            // What comes before belongs to requests that are answered, so that all of it is sent.
            let end = next.head_at.min(self.sent);
            self.outgoing.drain(..end);
            self.sent -= end;
            self.dispatched.iter_mut().for_each(|ahead| ahead.head_at -= end);
        }
        popped
    }

    /// Cancels the request at `index` and returns it, unless the thread has begun it. While the link is not `lost`, a
    /// request whose body is still being sent is not cancelled: the thread must find the end of it.
    pub(super) fn cancel(&mut self, cells: &AheadCells, index: usize, lost: bool) -> Option<(Key, Request)> {
        let is_sent = self.is_sent();
        let ahead = self.dispatched.get_mut(index)?;
        let Wanted::By(client) = ahead.wanted else { return None };
        let has_body = !ahead.streams || (lost || is_sent) && !matches!(self.body, StoredBody::Empty);
        if !has_body || !cells.cancel(ahead.number) {
            return None;
        }
        ahead.wanted = Wanted::Cancelled;
        let arrival = ahead.arrival;
        let (head, rest) = self.outgoing[ahead.head_at..].split_at(ahead.head_len);
        let (head, body) = (head.to_vec(), rest.get(..ahead.body_len).unwrap_or_default());
        let body = match (ahead.streams, body) {
            (true, _) => {
                self.body_sent = 0;
                std::mem::take(&mut self.body)
            }
            (false, []) => StoredBody::Empty,
            (false, body) => StoredBody::Memory(body.to_vec()),
        };
        Some((client, Request { head, body, arrival }))
    }

    /// The request that the thread has, or is to begin with: what was cancelled before it is passed over.
    fn first(&self) -> Option<&Dispatched> {
        self.dispatched.iter().find(|ahead| ahead.wanted != Wanted::Cancelled)
    }

    /// Whether there is a request that the thread is to begin with.
    pub(super) fn has_first(&self) -> bool {
        self.first().is_some()
    }

    /// Whether a body is being sent that does not follow its head at once.
    pub(super) fn is_streaming(&self) -> bool {
        !self.is_sent() && self.dispatched.back().is_some_and(|last| last.streams)
    }

    /// The request that the thread has, by its place: the last that it has begun. Responses to those before it may not
    /// have been read yet.
    pub(super) fn served(&self, cells: &AheadCells) -> Option<usize> {
        let is_begun = |ahead: &Dispatched| ahead.wanted != Wanted::Cancelled && cells.is_taken(ahead.number);
        self.dispatched.iter().rposition(is_begun)
    }

    /// Whether the thread has begun with the first request. Then nobody else will be sent its body, which need not be
    /// kept.
    pub(super) fn has_begun(&mut self, cells: &AheadCells) -> bool {
        let has_begun = self.first().is_some_and(|first| cells.is_taken(first.number));
        if has_begun {
            self.let_body_go();
        }
        has_begun
    }

    /// A byte of the first request's response has come.
    pub(super) fn begin_answer(&mut self) {
        if !std::mem::replace(&mut self.answered, true) {
            self.let_body_go();
        }
    }

    /// Gives a body back that is sent: the response may take long.
    #[inline]
    fn let_body_go(&mut self) {
        if !matches!(self.body, StoredBody::Empty) && self.is_sent() {
            self.body = StoredBody::Empty;
            self.body_sent = 0;
        }
    }

    /// Cancels the request at `index`, unless the thread has begun it.
    pub(super) fn cancel_ahead(&mut self, cells: &AheadCells, index: usize) -> bool {
        let Some(ahead) = self.dispatched.get_mut(index) else { return false };
        let cancelled = !ahead.streams && cells.cancel(ahead.number);
        if cancelled {
            ahead.wanted = Wanted::Cancelled;
        }
        cancelled
    }

    /// Where the request of a client is.
    pub(super) fn position(&self, client: Key) -> Option<usize> {
        self.dispatched.iter().position(|ahead| ahead.wanted == Wanted::By(client))
    }

    /// Requests that wait behind the first one.
    pub(super) fn waiting(&self) -> usize {
        self.dispatched.iter().skip(1).filter(|ahead| ahead.wanted != Wanted::Cancelled).count()
    }

    /// Whether anybody waits for an answer.
    pub(super) fn is_wanted(&self) -> bool {
        self.dispatched.iter().any(|ahead| matches!(ahead.wanted, Wanted::By(_)))
    }

    /// a dispatched request's head as the client sent it.
    pub(super) fn head(&self, index: usize) -> &[u8] {
        let ahead = self.dispatched.get(index);
        ahead.map_or(&[], |ahead| &self.outgoing[ahead.head_at..ahead.head_at + ahead.head_len])
    }

    /// Whether everything is sent.
    pub(super) fn is_sent(&self) -> bool {
        self.sent == self.outgoing.len() && self.body_sent == self.body.len()
    }

    /// Sends as much as the socket takes, but no more than a turn's worth. Returns whether it might take more at once.
    pub(super) fn send(&mut self) -> io::Result<bool> {
        let mut left = SEND_TURN;
        while !self.is_sent() {
            match self.send_once() {
                Ok(0) | Err(Errno::AGAIN) => return Ok(false),
                Ok(count) if count >= left => return Ok(!self.is_sent()),
                Ok(count) => left -= count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    fn send_once(&mut self) -> Result<usize, Errno> {
        let head = &self.outgoing[self.sent..];
        let count = match &self.body {
            StoredBody::File(file) if head.is_empty() => {
                // A worker that reads as fast would have it go on and on.
                let most = usize::try_from(file.len() - self.body_sent).unwrap_or(usize::MAX).min(SEND_TURN);
                // It moves the position on by what it sends.
                let count = sendfile(&self.fd, file, Some(&mut self.body_sent), most)?;
                // Somebody cut the file off under us.
                return if count == 0 { Err(Errno::IO) } else { Ok(count) };
            }
            StoredBody::Memory(bytes) => {
                let body = &bytes[usize::try_from(self.body_sent).unwrap_or(bytes.len())..];
                let mut none = SendAncillaryBuffer::default();
                sendmsg(&self.fd, &[IoSlice::new(head), IoSlice::new(body)], &mut none, SendFlags::NOSIGNAL)?
            }
            _ => send(&self.fd, head, SendFlags::NOSIGNAL)?,
        };
        let of_head = count.min(head.len());
        self.sent += of_head;
        self.body_sent += (count - of_head) as u64;
        Ok(count)
    }

    /// Reads once, if there may be something. Like a client's, but for the end: a unix socket that was closed with
    /// bytes that nobody read says so with an error.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        if !self.readable {
            return Received::Nothing;
        }
        let received = receive(&self.fd, buffer);
        self.readable = match received {
            Received::Bytes(count) => count == buffer.len() || self.ended,
            Received::Nothing => false,
            Received::End => self.readable,
        };
        received
    }
}
