//! A client's connection: what it is doing, the bytes on their way in and out. No policy.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use super::body::{Body, Store};
use super::output::{Flushed, Gone, Output};
use super::slots::Key;
use crate::protocol::chunked::Decoder;

/// A request whose body is not whole yet.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) head: Vec<u8>,
    pub(super) store: Store,
    pub(super) framing: Framing,
}

/// Where a request's body ends.
#[derive(Debug)]
pub(super) enum Framing {
    /// So many bytes in all.
    Length(u64),
    Chunked(Decoder),
}

/// A whole request that waits for a thread.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) head: Vec<u8>,
    pub(super) body: Body,
    /// When it was complete, monotonic ns.
    pub(super) since: u64,
}

/// What comes when the output is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    NextRequest,
    Close,
    /// Close, but let the client read our answer first: it may still be sending what we will not read, and closing at
    /// once would make its kernel throw the answer away (RFC 9112 section 9.6).
    Linger,
}

/// What a connection is doing. The large parts are boxed: nearly all connections are idle nearly always.
#[derive(Debug)]
pub(super) enum Phase {
    /// Between requests; nothing was read.
    Idle,
    /// A part of a head was read.
    Head,
    Body(Box<Gathering>),
    Queued(Box<Request>),
    /// The thread of this link has the request.
    Serving(Key),
    /// The response is complete; some of it may not be sent yet.
    Flushing(Then),
    /// What comes is read and dropped.
    Lingering,
}

/// What [`Client::receive`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Bytes(usize),
    /// Nothing more for now.
    Nothing,
    /// The client will send no more.
    End,
}

/// One connection. An idle one is this struct, its peer's text, and nothing else.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) fd: OwnedFd,
    /// The text of [`crate::protocol::link::Peer`].
    pub(super) peer: Box<[u8]>,
    pub(super) phase: Phase,
    /// Bytes that were read and belong to a head that is not complete, or to the next request.
    pub(super) input: Vec<u8>,
    /// How many bytes of `input` are known not to hold a whole head.
    pub(super) seen: usize,
    /// Response bytes that the socket would not take yet.
    pub(super) output: Output,
    /// There may be something to read: an edge was reported and the socket was not read empty since.
    pub(super) readable: bool,
    /// The kernel said that the client will send no more; there may be bytes before that.
    pub(super) ended: bool,
    /// The kernel is asked to tell when the socket takes more.
    pub(super) write_armed: bool,
    /// The second at which this has taken too long; 0 for never.
    pub(super) deadline: u32,
}

impl Client {
    pub(super) fn new(fd: OwnedFd, peer: Box<[u8]>, deadline: u32) -> Self {
        Self {
            fd,
            peer,
            phase: Phase::Idle,
            input: Vec::new(),
            seen: 0,
            output: Output::default(),
            readable: true,
            ended: false,
            write_armed: false,
            deadline,
        }
    }

    /// Reads once, if there may be something.
    pub(super) fn receive(&mut self, room: &mut [u8]) -> Received {
        let Self { fd, readable, ended, .. } = self;
        receive(fd, readable, *ended, room)
    }

    /// Reads body bytes right to where they wait, at most `most`. `None` when they cannot be read there.
    pub(super) fn receive_body(&mut self, most: usize) -> Option<Received> {
        let Self { fd, readable, ended, phase, .. } = self;
        let Phase::Body(gathering) = phase else { return None };
        let room = gathering.store.room()?;
        let most = most.min(room.len());
        let received = receive(fd, readable, *ended, &mut room[..most]);
        if let Received::Bytes(count) = received {
            gathering.store.filled(count);
        }
        Some(received)
    }

    /// Sends, in order, whatever the socket takes; keeps the rest.
    pub(super) fn send(&mut self, slices: &[IoSlice<'_>]) -> Result<(), Gone> {
        self.output.send(&self.fd, slices)
    }

    /// Sends more of what is kept.
    pub(super) fn flush(&mut self) -> Result<Flushed, Gone> {
        self.output.flush(&self.fd)
    }

    /// Makes closing an error for the client, so that it does not take half a response for a whole one.
    pub(super) fn reset_on_close(&self) {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        // Where it does not work (unix sockets) the client sees an end, which is the most that can be done.
        let _ = setsockopt(&self.fd, sockopt::Linger, &at_once);
    }
}

/// Reads once. A read that does not fill the room has emptied the socket: the next bytes come with an edge of their own.
/// But the end may have come with the edge before.
fn receive(fd: &OwnedFd, readable: &mut bool, ended: bool, room: &mut [u8]) -> Received {
    if !*readable {
        return Received::Nothing;
    }
    match recv(fd.as_raw_fd(), room, MsgFlags::empty()) {
        Ok(0) => Received::End,
        Ok(count) => {
            *readable = count == room.len() || ended;
            Received::Bytes(count)
        }
        Err(Errno::EAGAIN) => {
            *readable = false;
            Received::Nothing
        }
        Err(_) => Received::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // Thousands of them are kept; the promise is 2 kB for each in all processes together.
        assert!(size_of::<Client>() <= 192, "{}", size_of::<Client>());
    }
}
