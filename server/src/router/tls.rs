//! TLS between a client's socket and the bytes that the router reads and writes: what is received is decrypted, what is
//! sent is encrypted before it goes to the socket or waits for it. So everything else (framing, waiting, files, deadlines,
//! rates) is the same for both kinds of clients.
//!
//! rustls keeps decrypted bytes that no event announces. So a client stays `readable` until rustls has none left *and* the
//! socket is empty.
//!
//! What a client can make it keep is bounded: a handshake message of 64 kB, a record of 16 kB in and out, and the answers
//! of a handshake. Records without data are refused by rustls when there are many in a row.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConnection;
use rustls::server::Acceptor;

use crate::io::receive::{Received, receive};
use crate::io::temp::TempFiles;
use crate::io::unsent::Unsent;
use crate::tls::{Contexts, HostContext};
use rwsgi_protocol::link::PeerTls;

/// Encrypted bytes that one call reads; a client that sends as fast as it is read would never let others have their turn.
const AT_ONCE: usize = 256 * 1024;
/// The same where records hold next to nothing, each of which costs as much time as one that is full.
const AT_ONCE_IN_VAIN: usize = 4 * 1024;
/// The first byte of every handshake.
const HANDSHAKE: u8 = 0x16;
/// For who speaks plain HTTP to a socket of TLS.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 45\r\n\r\nThis port speaks HTTPS: use https:// for it.\n";

/// A client's TLS.
pub(super) struct Tls {
    state: State,
    /// What of the client's TLS is to be told to the application, once it is known.
    established: Option<String>,
    /// Where some hosts demand a certificate: what it was made with.
    guard: Option<Guard>,
    /// Why it cannot go on, until somebody asks.
    failure: Option<String>,
    is_new: bool,
    said_goodbye: bool,
}

/// Says for which hosts a connection is good.
struct Guard {
    contexts: Arc<Contexts>,
    socket: usize,
    used: Arc<HostContext>,
}

enum State {
    /// Nothing or a part of the client's first message has come. It says which of the contexts is used.
    Hello {
        acceptor: Box<Acceptor>,
        contexts: Arc<Contexts>,
        socket: usize,
    },
    Open {
        connection: Box<ServerConnection>,
        is_exported: bool,
    },
    /// What comes is discarded.
    Failed,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Hello { .. } => "Tls(new)",
            State::Open { .. } => "Tls(open)",
            State::Failed => "Tls(failed)",
        })
    }
}

/// What came of reading.
pub(super) struct Decrypted {
    pub(super) received: Received,
    /// There may be more, here or in the socket.
    pub(super) readable: bool,
}

/// Where encrypted bytes come from.
struct Source<'a> {
    fd: &'a OwnedFd,
    /// The system has said that the client sends no more: then no read but the last shows the end.
    is_last: bool,
    count: usize,
    is_empty: bool,
    is_ended: bool,
    /// The first byte of the connection, when this is where it comes.
    first: Option<u8>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match receive(self.fd, buffer) {
            Received::Bytes(count) => {
                self.first = self.first.or(buffer.first().copied());
                self.is_empty = count < buffer.len() && !self.is_last;
                self.count += count;
                Ok(count)
            }
            Received::Nothing => {
                self.is_empty = true;
                Err(ErrorKind::WouldBlock.into())
            }
            Received::End => {
                self.is_ended = true;
                Ok(0)
            }
        }
    }
}

/// Where encrypted bytes go: to the socket, or to what waits for it.
struct Sink<'a> {
    fd: &'a OwnedFd,
    unsent: &'a mut Unsent,
    /// Where a response that is too long for memory waits; `None` for what is always short.
    temp: Option<&'a TempFiles>,
}

impl Sink<'_> {
    fn give(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        match self.temp {
            Some(temp) => self.unsent.send_or_spill(self.fd, parts, temp),
            None => self.unsent.send(self.fd, parts, &mut |_| None).map(drop),
        }
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.give(&[bytes]).map(|()| bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut parts = [&[][..]; 32];
        let used = slices.len().min(parts.len());
        for (part, slice) in parts.iter_mut().zip(slices) {
            *part = slice;
        }
        self.give(&parts[..used]).map(|()| parts[..used].iter().map(|part| part.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tls {
    /// For a client of the socket of that number.
    pub(super) fn new(contexts: Arc<Contexts>, socket: usize) -> Box<Self> {
        let state = State::Hello { acceptor: Box::default(), contexts, socket };
        Box::new(Self { state, established: None, guard: None, failure: None, is_new: true, said_goodbye: false })
    }

    /// Whether the handshake is not over, which takes much time for each step.
    pub(super) fn is_handshaking(&self) -> bool {
        match &self.state {
            State::Hello { .. } => true,
            State::Open { connection, .. } => connection.is_handshaking(),
            State::Failed => false,
        }
    }

    /// What is to be added to the peer's text, once.
    pub(super) fn take_established(&mut self) -> Option<String> {
        self.established.take()
    }

    /// Whether a request for this host may come by it.
    pub(super) fn admits(&self, host: Option<&str>) -> bool {
        self.guard.as_ref().is_none_or(|guard| guard.contexts.admits(guard.socket, &guard.used, host))
    }

    /// Why it cannot go on; once. What the client is told of it is sent already, or waits to be.
    pub(super) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Reads and decrypts into `buffer`, which is not empty. What the handshake has to send is added to `unsent`. `is_last`
    /// says that nothing comes any more but what is in the socket.
    pub(super) fn receive(&mut self, fd: &OwnedFd, buffer: &mut [u8], unsent: &mut Unsent, is_last: bool) -> Decrypted {
        if let State::Failed = self.state {
            let received = receive(fd, buffer);
            return Decrypted { received, readable: matches!(received, Received::Bytes(_) | Received::End) };
        }
        let mut source = Source { fd, is_last, count: 0, is_empty: false, is_ended: false, first: None };
        let mut filled = 0;
        match self.fill(&mut source, buffer, &mut filled, unsent) {
            Ok(()) if filled > 0 => {
                // What is left in rustls did not fit into the buffer.
                let readable = filled == buffer.len() || !source.is_empty;
                Decrypted { received: Received::Bytes(filled), readable }
            }
            Ok(()) if source.is_ended => Decrypted { received: Received::End, readable: true },
            Ok(()) => Decrypted { received: Received::Nothing, readable: false },
            Err(failure) => {
                self.fail(fd, source.first, failure, unsent);
                Decrypted { received: Received::End, readable: true }
            }
        }
    }

    /// Reads until the buffer is full, the socket empty, or the client at its end.
    fn fill(
        &mut self,
        source: &mut Source<'_>,
        buffer: &mut [u8],
        filled: &mut usize,
        unsent: &mut Unsent,
    ) -> Result<(), String> {
        loop {
            if let State::Open { connection, .. } = &mut self.state {
                match connection.reader().read(&mut buffer[*filled..]) {
                    // The client has said that it sends no more.
                    Ok(0) => {
                        source.is_ended = true;
                        return Ok(());
                    }
                    Ok(count) => {
                        *filled += count;
                        if *filled == buffer.len() {
                            return Ok(());
                        }
                        continue;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // It has closed its connection without a word: its requests say themselves where they end.
                    Err(_) => {
                        source.is_ended = true;
                        return Ok(());
                    }
                }
            }
            if source.is_empty || source.is_ended || is_turn_over(source.count, *filled) {
                return Ok(());
            }
            self.take_records(source, unsent)?;
        }
    }

    /// Takes what one read brings of records.
    fn take_records(&mut self, source: &mut Source<'_>, unsent: &mut Unsent) -> Result<(), String> {
        let read = match &mut self.state {
            State::Hello { acceptor, .. } => acceptor.read_tls(source),
            State::Open { connection, .. } => connection.read_tls(source),
            State::Failed => return Ok(()),
        };
        match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.to_string()),
            Ok(_) => {}
        }
        if std::mem::take(&mut self.is_new) && source.first.is_some_and(|first| first != HANDSHAKE) {
            return Err("it does not speak TLS".into());
        }
        if let State::Hello { .. } = self.state {
            return self.take_hello(source.fd, unsent);
        }
        let State::Open { connection, is_exported } = &mut self.state else { return Ok(()) };
        let was_handshaking = connection.is_handshaking();
        let processed = connection.process_new_packets();
        // Answers of the handshake, and the alert that says what is wrong.
        let sent = drain(connection, &mut Sink { fd: source.fd, unsent, temp: None });
        processed.map_err(|error| error.to_string())?;
        sent.map_err(|error| error.to_string())?;
        if was_handshaking && !connection.is_handshaking() {
            let certificate = connection.peer_certificates().and_then(|chain| chain.first());
            let certificate = certificate.map(|der| STANDARD.encode(der)).unwrap_or_default();
            self.established = Some(PeerTls { certificate: &certificate, is_exported: *is_exported }.text());
        }
        Ok(())
    }

    /// Goes on with the right context, once the client's first message is whole.
    fn take_hello(&mut self, fd: &OwnedFd, unsent: &mut Unsent) -> Result<(), String> {
        let State::Hello { acceptor, contexts, socket } = &mut self.state else { return Ok(()) };
        let mut sink = Sink { fd, unsent, temp: None };
        let accepted = match acceptor.accept() {
            Ok(None) => return Ok(()),
            Ok(Some(accepted)) => accepted,
            Err((error, mut alert)) => {
                let _ = alert.write_all(&mut sink);
                return Err(error.to_string());
            }
        };
        let context = contexts.choose(*socket, accepted.client_hello().server_name());
        let context = context.ok_or("its socket has no certificate")?;
        if contexts.are_mixed {
            self.guard = Some(Guard { contexts: Arc::clone(contexts), socket: *socket, used: Arc::clone(context) });
        }
        let is_exported = contexts.export_cert;
        let mut connection = match accepted.into_connection(Arc::clone(&context.config)) {
            Ok(connection) => Box::new(connection),
            Err((error, mut alert)) => {
                let _ = alert.write_all(&mut sink);
                return Err(error.to_string());
            }
        };
        let sent = drain(&mut connection, &mut sink);
        self.state = State::Open { connection, is_exported };
        sent.map_err(|error| error.to_string())
    }

    fn fail(&mut self, fd: &OwnedFd, first: Option<u8>, failure: String, unsent: &mut Unsent) {
        if matches!(self.state, State::Hello { .. }) && first.is_some_and(|first| first.is_ascii_uppercase()) {
            // One that is gone shows when it is read.
            let _ = Sink { fd, unsent, temp: None }.give(&[PLAIN_HTTP]);
        }
        self.state = State::Failed;
        self.failure = Some(failure);
    }

    /// Encrypts and sends, in order, whatever the socket takes; keeps the rest, encrypted.
    ///
    /// # Errors
    /// When the client is gone.
    pub(super) fn send(
        &mut self,
        fd: &OwnedFd,
        parts: &[&[u8]],
        unsent: &mut Unsent,
        temp: &TempFiles,
    ) -> io::Result<()> {
        let State::Open { connection, .. } = &mut self.state else { return Ok(()) };
        let mut sink = Sink { fd, unsent, temp: Some(temp) };
        let mut gone = 0;
        loop {
            let mut skip = gone;
            let rest = parts.iter().filter_map(|part| {
                let skipped = skip.min(part.len());
                skip -= skipped;
                Some(IoSlice::new(&part[skipped..])).filter(|rest| !rest.is_empty())
            });
            // Several parts make one record.
            let rest: Vec<_> = rest.collect();
            if rest.is_empty() {
                return Ok(());
            }
            match connection.writer().write_vectored(&rest)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => gone += count,
            }
            drain(connection, &mut sink)?;
        }
    }

    /// Tells the client, once, that nothing more comes: otherwise it could not know that what it has is whole.
    pub(super) fn say_goodbye(&mut self, fd: &OwnedFd, unsent: &mut Unsent) {
        if let State::Open { connection, .. } = &mut self.state
            && !std::mem::replace(&mut self.said_goodbye, true)
        {
            connection.send_close_notify();
            // One that is gone shows when it is read.
            let _ = drain(connection, &mut Sink { fd, unsent, temp: None });
        }
    }
}

/// Whether so many encrypted bytes, which have brought so many, are enough for one call.
fn is_turn_over(encrypted: usize, filled: usize) -> bool {
    filled > 0 && encrypted >= AT_ONCE.min(AT_ONCE_IN_VAIN + 2 * filled)
}

/// Gives everything that rustls has to send to the sink, which takes all of it.
fn drain(connection: &mut ServerConnection, sink: &mut Sink<'_>) -> io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(sink)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_hold_next_to_nothing_end_a_turn_early() {
        // A byte in each record, with a header and a tag.
        let ends = (1..).find(|records| is_turn_over(records * 23, *records)).unwrap();
        assert!(ends < 1000, "{ends}");
        // Full ones never do before the end.
        let full = |records: usize| (records * (16 * 1024 + 22), records * 16 * 1024);
        assert!((1..16).map(full).all(|(encrypted, filled)| !is_turn_over(encrypted, filled)));
        assert!(is_turn_over(AT_ONCE, AT_ONCE - 400));
        assert!(!is_turn_over(AT_ONCE, 0), "nothing is not an answer");
    }
}
