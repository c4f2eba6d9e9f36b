//! A client's connection: what it is doing, the bytes on their way in and out. No policy.

use std::io;
use std::os::fd::OwnedFd;

use tracing::error;

use super::keyed::Key;
use super::request::Request;
use super::tls::{Decrypted, Tls};
use crate::io::body::{Gathering, IntakeError};
use crate::io::close::{Then, reset_on_close};
use crate::io::pace::Pace;
use crate::io::receive::{Received, receive};
use crate::io::temp::TempFiles;
use crate::io::unsent::{Sent, Unsent};

/// What a connection is doing. The large parts are boxed: nearly all connections are idle nearly always.
#[derive(Debug)]
pub(super) enum ClientPhase {
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

/// One connection. An idle one is this struct, its peer's text, and nothing else.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) fd: OwnedFd,
    /// The text of [`rwsgi_protocol::link::Peer`].
    pub(super) peer: Box<str>,
    pub(super) phase: ClientPhase,
    /// Bytes that were read and belong to a head that is not complete, or to the next request.
    pub(super) input: Vec<u8>,
    /// How many bytes of `input` are known not to hold a whole head.
    pub(super) seen: usize,
    /// Response bytes that the socket would not take yet.
    pub(super) unsent: Unsent,
    /// There may be something to read: an edge was reported and the socket was not read empty since.
    pub(super) readable: bool,
    /// The kernel said that the client will send no more; there may be bytes before that.
    pub(super) ended: bool,
    /// The epoll set watches for the socket to take more.
    pub(super) write_armed: bool,
    /// It waits for its next turn: until then, nothing is read of it.
    pub(super) turns_again: bool,
    /// The second at which this has taken too long; 0 for never.
    pub(super) deadline: u32,
    /// The least that it must send of its body, or read of its response, and by when.
    pub(super) pace: Pace,
    /// It has connected itself, not through a proxy: the default of the minimum rates holds.
    pub(super) is_direct: bool,
    /// The socket that it has connected to: a place in the router's `listen_options`.
    pub(super) socket: u16,
    /// A PROXY header may come first.
    pub(super) expects_proxy_header: bool,
    /// The host that a request is for decides whether it is served: it is redirected there, or demands a certificate.
    pub(super) is_served_by_host: bool,
    /// `None` for most: what is received and sent goes through it.
    pub(super) tls: Option<Box<Tls>>,
}

impl Client {
    pub(super) fn new(fd: OwnedFd, peer: Box<str>, deadline: u32, is_direct: bool) -> Self {
        Self {
            fd,
            peer,
            phase: ClientPhase::Idle,
            input: Vec::new(),
            seen: 0,
            unsent: Unsent::default(),
            readable: true,
            ended: false,
            write_armed: false,
            turns_again: false,
            deadline,
            pace: Pace::Any,
            is_direct,
            socket: 0,
            expects_proxy_header: false,
            is_served_by_host: false,
            tls: None,
        }
    }

    /// Reads once, if there may be something.
    ///
    /// A read that does not fill the buffer has emptied the socket: the next bytes come with an edge of their own. But
    /// the end may have come with the edge before.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        if !self.readable {
            return Received::Nothing;
        }
        if self.tls.is_some() {
            return self.receive_tls(buffer);
        }
        let received = receive(&self.fd, buffer);
        self.readable = match received {
            Received::Bytes(count) => count == buffer.len() || self.ended,
            Received::Nothing => false,
            Received::End => self.readable,
        };
        received
    }

    /// The same through TLS.
    fn receive_tls(&mut self, buffer: &mut [u8]) -> Received {
        let Some(tls) = &mut self.tls else { return Received::Nothing };
        let Decrypted { received, readable } = tls.receive(&self.fd, buffer, &mut self.unsent, self.ended);
        if let Some(established) = tls.take_established() {
            self.peer = format!("{}{established}", self.peer).into();
        }
        self.readable = readable || self.ended && received != Received::Nothing;
        received
    }

    /// Tells a client of TLS that nothing more comes.
    pub(super) fn say_goodbye(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.say_goodbye(&self.fd, &mut self.unsent);
        }
    }

    /// The same right to where a body waits, for one that is received in place.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn receive_body(&mut self) -> Result<Received, IntakeError> {
        let Self { fd, readable: readable @ true, ended, phase: ClientPhase::Body(gathering), .. } = self else {
            return Ok(Received::Nothing);
        };
        let received = gathering.intake.receive(&*fd)?;
        *readable = match received {
            Received::Bytes(_) => gathering.intake.is_full() || *ended,
            Received::Nothing => false,
            Received::End => true,
        };
        Ok(received)
    }

    /// Sends, in order, whatever the socket takes; keeps the rest.
    ///
    /// # Errors
    /// When the client is gone.
    pub(super) fn send(&mut self, parts: &[&[u8]], temp: &TempFiles) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            return tls.send(&self.fd, parts, &mut self.unsent, temp);
        }
        self.unsent.send_or_spill(&self.fd, parts, temp)
    }

    /// Sends more of what is kept.
    ///
    /// # Errors
    /// When the client is gone, or what was kept for it is not available.
    pub(super) fn flush(&mut self) -> io::Result<Sent> {
        let sent = self.unsent.send_some(&self.fd);
        if let Err(problem) = &sent
            && problem.kind() == io::ErrorKind::UnexpectedEof
        {
            error!("a file became shorter while it was sent to a client, whose connection is reset");
            self.reset_on_close();
        }
        sent
    }

    /// Makes closing an error for the client, so that it does not take half a response for a whole one.
    pub(super) fn reset_on_close(&self) {
        reset_on_close(&self.fd);
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
