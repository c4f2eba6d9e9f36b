//! One client's connection: its socket, what has come and is not used yet, the body of the request that it is in, and
//! what it has still to send.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, setsockopt, shutdown, sockopt};

use super::body::Body;
use super::gather::{Gather, GatherError};
use super::harakiri;
use super::output::Output;
use crate::protocol::link::{DONE_CLOSE, DONE_KEEP, LEAVING, MAX_FRAME, QUICK, SKIPPED};
use crate::wsgi::transport::{Kept, Transport};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// HTTP/1.
    Http,
    /// The uwsgi protocol: one request, then it is over.
    Uwsgi,
    /// With the router, for this thread.
    Link(u32),
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Bytes to come.
    Read,
    /// Room to send.
    Write,
}

/// A request whose body is being gathered: its head, and what there is of the body.
pub(super) struct Pending {
    pub(super) head: Vec<u8>,
    pub(super) gather: Gather,
}

/// What came of [`Connection::spool`].
pub(super) enum Spooled {
    /// More is to come.
    Waits,
    /// The body is complete.
    Complete(Pending),
    /// The client went away.
    Gone,
}

/// A response up to this long goes over a link in one piece with what ends it: a copy costs less than a second call, bytes.
const WORTH_HOLDING: usize = 16 * 1024;
/// Reads in a row before other connections get their turn.
const SPOOLS: usize = 16;

/// See the module.
pub(super) struct Connection {
    pub(super) socket: Arc<OwnedFd>,
    pub(super) kind: Kind,
    /// `remote_addr remote_port server_name server_port`; a link's changes with each request.
    pub(super) peer: String,
    /// Bytes that have come and make no whole request yet.
    pub(super) input: Vec<u8>,
    /// How many of them were looked at in vain.
    pub(super) seen: usize,
    /// They wait for the response before to be sent, not for more to come.
    pub(super) held_back: bool,
    /// A request whose body is on its way.
    pub(super) pending: Option<Pending>,
    pub(super) body: Body,
    pub(super) output: Output,
    /// Payload that the application's side gave for the present request, bytes.
    pub(super) queued: u64,
    /// `harakiri` may answer the present request: nothing was sent yet.
    pub(super) watched: bool,
    /// No request follows: when all is sent the connection is closed.
    pub(super) closing: bool,
    /// The client may still be sending what nobody will read: wait for it to finish, or it loses the answer.
    pub(super) linger: bool,
    /// This end was shut, and the other end's is awaited.
    pub(super) shut: bool,
    /// A link that has told the router not to send any more.
    pub(super) leave_told: bool,
    /// Requests that a link has brought.
    pub(super) brought: u8,
    /// What comes next is the last of the response.
    last: bool,
    /// What a link has to send with the end of the response: one frame, or nothing.
    held: Vec<u8>,
    /// How it stands in the epoll set; `None` when it was never put there.
    pub(super) armed: Option<Wait>,
    /// When it has waited too long, seconds of the threads' clock.
    pub(super) deadline: u32,
    /// The longest wait for the client during a response, ms.
    pub(super) timeout: u32,
    /// No byte has come yet.
    pub(super) fresh: bool,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, kind: Kind, peer: String, timeout: u32) -> Box<Self> {
        Box::new(Self {
            socket: Arc::new(socket),
            kind,
            peer,
            input: Vec::new(),
            seen: 0,
            held_back: false,
            pending: None,
            body: Body::Empty,
            output: Output::default(),
            queued: 0,
            watched: false,
            closing: false,
            linger: false,
            shut: false,
            leave_told: false,
            brought: 0,
            last: false,
            held: Vec::new(),
            armed: None,
            deadline: u32::MAX,
            timeout,
            fresh: true,
        })
    }

    pub(super) fn fd(&self) -> usize {
        self.socket.as_raw_fd().unsigned_abs() as usize
    }

    /// Whether it is between requests, with nothing begun and nothing left to send.
    pub(super) fn is_idle(&self) -> bool {
        self.input.is_empty() && self.pending.is_none() && self.output.is_empty() && !self.closing
    }

    /// Reads what is there: `None` when nothing is, 0 at the end.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(len) => return Ok(Some(len)),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether bytes have come that nobody has read.
    pub(super) fn has_unread(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        matches!(recv(self.socket.as_raw_fd(), &mut [0], flags), Ok(1..))
    }

    /// Tells the client that nothing more comes, while what it still sends can be read away.
    pub(super) fn shut(&mut self) {
        self.shut = true;
        // One that is gone already shows when it is read.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
    }

    /// Sees to it that the client is told of a connection that failed, and not of one that came to its end.
    ///
    /// Only TCP can say so.
    pub(super) fn break_off(&mut self) {
        self.closing = true;
        self.output = Output::default();
        // What is left then is an end that looks like any other.
        let _ = setsockopt(&self.socket, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 });
    }

    /// Reads what is there of a body that goes to a file, without the GIL: disks take their time.
    pub(super) fn spool(&mut self, scratch: &mut [u8]) -> Result<Spooled, GatherError> {
        let Some(mut pending) = self.pending.take() else { return Ok(Spooled::Waits) };
        for _ in 0..SPOOLS {
            let room = usize::try_from(pending.gather.left()).map_or(scratch.len(), |left| left.min(scratch.len()));
            match self.receive(&mut scratch[..room]) {
                Err(_) | Ok(Some(0)) => return Ok(Spooled::Gone),
                Ok(None) => break,
                Ok(Some(len)) => {
                    if let (_, true) = pending.gather.take(&scratch[..len])? {
                        return Ok(Spooled::Complete(pending));
                    }
                }
            }
        }
        self.pending = Some(pending);
        Ok(Spooled::Waits)
    }

    /// Ends a response on a link. Elsewhere the response's own framing does.
    pub(super) fn end_response(&mut self, keep_alive: bool, quick: bool) -> io::Result<()> {
        self.last = false;
        if let Kind::Link(_) = self.kind {
            let word = if keep_alive { DONE_KEEP } else { DONE_CLOSE } + if quick { QUICK } else { 0 };
            self.held.extend_from_slice(&word.to_le_bytes());
            let sent = self.output.send(self.socket.as_fd(), &[&self.held], &mut |_| None);
            self.held.clear();
            sent?;
        } else if !keep_alive {
            self.closing = true;
        }
        Ok(())
    }

    /// Tells the router that a request which it had taken back was passed over.
    pub(super) fn tell_skipped(&mut self) -> io::Result<()> {
        self.output.send(self.socket.as_fd(), &[&SKIPPED.to_le_bytes()], &mut |_| None).map(drop)
    }

    /// Tells the router not to send any more requests on this link.
    pub(super) fn tell_leaving(&mut self) -> io::Result<()> {
        self.leave_told = true;
        self.output.send(self.socket.as_fd(), &[&LEAVING.to_le_bytes()], &mut |_| None).map(drop)
    }

    /// Reads away what the application left of a body that the router is still sending.
    pub(super) fn discard_body(&mut self) -> io::Result<()> {
        if let Body::Link(_) = self.body {
            io::copy(&mut self.body, &mut io::sink())?;
        }
        self.body = Body::Empty;
        Ok(())
    }

    /// Bytes that went to the client since the last call. The router's clients are sent what a link is given.
    pub(super) fn take_sent(&mut self) -> u64 {
        let sent = self.output.take_sent();
        match self.kind {
            Kind::Link(_) => std::mem::take(&mut self.queued),
            _ => sent,
        }
    }
}

impl Connection {
    /// Claims the present request's answer, which `harakiri` may have given before.
    pub(super) fn claim(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.watched) { harakiri::release() } else { Ok(()) }
    }
}

impl Transport for Connection {
    fn send(&mut self, parts: &[&[u8]], own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
        self.claim()?;
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.queued += len as u64;
        if !matches!(self.kind, Kind::Link(_)) {
            return self.output.send(self.socket.as_fd(), parts, own);
        }
        if len == 0 {
            return Ok(self.output.is_empty());
        }
        if len > MAX_FRAME as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a response of 4 GB in one piece"));
        }
        let frame = (len as u32).to_le_bytes();
        if self.last && len <= WORTH_HOLDING {
            self.held.extend_from_slice(&frame);
            parts.iter().for_each(|part| self.held.extend_from_slice(part));
            return Ok(self.output.is_empty());
        }
        let framed: Vec<&[u8]> = std::iter::once(frame.as_slice()).chain(parts.iter().copied()).collect();
        self.output.send(self.socket.as_fd(), &framed, &mut |part| own(part.checked_sub(1)?))
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
        let socket = self.socket.as_fd();
        if !matches!(self.kind, Kind::Link(_)) {
            return self.output.send_file(socket, file, offset, len);
        }
        let (mut offset, mut left) = (offset, len);
        while left > 0 {
            let frame = left.min(u64::from(MAX_FRAME)) as u32;
            self.output.send(socket, &[&frame.to_le_bytes()], &mut |_| None)?;
            self.output.send_file(socket, file.try_clone()?, offset, frame.into())?;
            offset += u64::from(frame);
            left -= u64::from(frame);
        }
        Ok(self.output.is_empty())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush(self.socket.as_fd(), self.timeout)
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
