//! The front's end of a link to a core: the request on its way out, the response on its way in. No policy.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, recv, sendmsg};

use super::body::Body;
use super::slots::Key;
use crate::protocol::link::{Frames, RequestHead};

/// What a core is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has not said who it is.
    Greeting,
    Idle,
    /// It has this client's request.
    Busy(Key),
    /// The client that it answers is gone; what it still sends is dropped.
    Unwanted,
    /// Its response is complete, but it has not taken the whole request yet.
    Emptying,
}

/// What [`Link::receive`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Bytes(usize),
    Nothing,
    /// The worker closed the link.
    End {
        /// It had not read everything that we sent.
        unread: bool,
    },
}

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) fd: OwnedFd,
    /// The worker's number and process id, and the core's number.
    pub(super) worker: u32,
    pub(super) core: u32,
    pub(super) pid: i32,
    pub(super) phase: Phase,
    pub(super) frames: Frames,
    /// The request up to its body; or what has come of the greeting. Its memory is used again.
    pub(super) outgoing: Vec<u8>,
    /// Where in `outgoing` the HTTP head begins.
    head_at: usize,
    sent: usize,
    body: Body,
    body_sent: u64,
    /// The request has no body.
    bodyless: bool,
    /// A byte of the response has come.
    pub(super) answered: bool,
    /// The worker wants no further request.
    pub(super) leaving: bool,
    pub(super) readable: bool,
    /// The kernel said that the worker has closed the link; there may be bytes before that.
    pub(super) ended: bool,
    pub(super) write_armed: bool,
    /// The second from which a greeting, or more of a response that nobody wants, is too late; 0 for never.
    pub(super) deadline: u32,
    /// Bytes of the response that were dropped.
    pub(super) dropped: usize,
}

impl Link {
    pub(super) fn new(fd: OwnedFd, pid: i32, deadline: u32) -> Self {
        Self {
            fd,
            worker: 0,
            core: 0,
            pid,
            phase: Phase::Greeting,
            frames: Frames::default(),
            outgoing: Vec::new(),
            head_at: 0,
            sent: 0,
            body: Body::Empty,
            body_sent: 0,
            bodyless: true,
            answered: false,
            leaving: false,
            readable: true,
            ended: false,
            write_armed: false,
            deadline,
            dropped: 0,
        }
    }

    /// Takes a request to send.
    pub(super) fn load(&mut self, client: Key, peer: &[u8], head: &[u8], body: Body) {
        // Heads are bounded by buffer-size, peers by what addresses look like.
        let lengths = RequestHead { head_len: head.len() as u32, peer_len: peer.len() as u32, body_len: body.len() };
        self.outgoing.clear();
        self.outgoing.extend_from_slice(&lengths.encode());
        self.outgoing.extend_from_slice(peer);
        self.head_at = self.outgoing.len();
        self.outgoing.extend_from_slice(head);
        self.sent = 0;
        self.bodyless = body.len() == 0;
        self.body = body;
        self.body_sent = 0;
        self.answered = false;
        self.phase = Phase::Busy(client);
    }

    /// The request's head as the client sent it.
    pub(super) fn head(&self) -> &[u8] {
        &self.outgoing[self.head_at..]
    }

    /// Gives the body of the request back, if the application cannot have begun: the worker has not read the whole
    /// head, or nothing of the request at all. `unread` is what the end of the link said.
    pub(super) fn untouched(&mut self, unread: bool) -> Option<Body> {
        let untouched = !self.answered && (self.sent < self.outgoing.len() || (unread && self.bodyless));
        untouched.then(|| std::mem::replace(&mut self.body, Body::Empty))
    }

    /// Whether all of the request is sent.
    pub(super) fn is_sent(&self) -> bool {
        self.sent == self.outgoing.len() && self.body_sent == self.body.len()
    }

    /// Sends as much of the request as the socket takes.
    pub(super) fn send(&mut self) -> io::Result<()> {
        while !self.is_sent() {
            match self.send_once() {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Given back early: the response may take long.
        self.body = Body::Empty;
        self.body_sent = 0;
        Ok(())
    }

    fn send_once(&mut self) -> nix::Result<usize> {
        let head = &self.outgoing[self.sent..];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let count = match &self.body {
            Body::File(file, len) if head.is_empty() => {
                // The position in the file never passes its length, which the kernel keeps in 63 bits.
                let mut position = self.body_sent as i64;
                let most = usize::try_from(len - self.body_sent).unwrap_or(usize::MAX);
                let count = sendfile64(self.fd.as_fd(), file, Some(&mut position), most)?;
                if count == 0 {
                    // Somebody cut the file off under us.
                    return Err(Errno::EIO);
                }
                self.body_sent += count as u64;
                return Ok(count);
            }
            Body::Memory(bytes) => {
                let body = &bytes[usize::try_from(self.body_sent).unwrap_or(bytes.len())..];
                sendmsg::<()>(self.fd.as_raw_fd(), &[IoSlice::new(head), IoSlice::new(body)], &[], flags, None)?
            }
            _ => sendmsg::<()>(self.fd.as_raw_fd(), &[IoSlice::new(head)], &[], flags, None)?,
        };
        let of_head = count.min(head.len());
        self.sent += of_head;
        self.body_sent += (count - of_head) as u64;
        Ok(count)
    }

    /// Reads once, if there may be something.
    pub(super) fn receive(&mut self, room: &mut [u8]) -> Received {
        if !self.readable {
            return Received::Nothing;
        }
        match recv(self.fd.as_raw_fd(), room, MsgFlags::empty()) {
            Ok(0) => Received::End { unread: false },
            Ok(count) => {
                self.readable = count == room.len() || self.ended;
                Received::Bytes(count)
            }
            Err(Errno::EAGAIN) => {
                self.readable = false;
                Received::Nothing
            }
            // A unix socket says so when it was closed with bytes that were not read.
            Err(error) => Received::End { unread: error == Errno::ECONNRESET },
        }
    }
}
