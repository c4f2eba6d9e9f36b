//! One request's life: bytes are read until they are a request, the application answers it, it is counted and logged.

use std::any::Any;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use pyo3::prelude::*;
use tracing::{error, warn};

use super::access_log::Entry;
use super::body::{Body, LinkReader};
use super::connection::{Connection, Kind, Pending, Spooled, Wait};
use super::core::{Core, Next};
use super::gather::{Gather, GatherError};
use super::harakiri;
use crate::protocol::http::{self, BodyLength, Head, HeaderBuf, Refusal, Version};
use crate::protocol::link::{Peer, RequestHead as LinkHead};
use crate::protocol::response::{Exchange, Protocol};
use crate::protocol::uwsgi;
use crate::stats::cell::{ExceptionReport, Outcome, Wire};
use crate::stats::clock;
use crate::wsgi::gateway::{RequestHead, Served};

/// A connection and what becomes of it.
type Driven = (Box<Connection>, Next);

/// How long a client that was refused may take to stop sending, seconds.
const LINGER: u32 = 2;

impl Core {
    /// Takes a connection as far as it goes without waiting.
    pub(super) fn drive(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        scratch: &mut [u8],
    ) -> anyhow::Result<Driven> {
        // What the core has sent of a parked response counts like everything else.
        let advance = |connection: &mut Connection| connection.output.advance(connection.socket.as_fd());
        let sent =
            if connection.output.is_file() { py.detach(|| advance(&mut connection)) } else { advance(&mut connection) };
        self.count_sent(&mut connection);
        match sent {
            Err(failure) => {
                if failure.kind() == std::io::ErrorKind::UnexpectedEof {
                    error!("a response to {} breaks off: {failure}", client_of(&connection.peer));
                }
                self.count_write_error();
                return Ok((connection, Next::Close));
            }
            Ok(false) => return Ok(self.wait(connection, Wait::Write)),
            Ok(true) => {}
        }
        if connection.closing {
            return Ok(self.end(connection, scratch));
        }
        let held_back = std::mem::take(&mut connection.held_back);
        if !held_back && connection.pending.as_ref().is_some_and(|pending| pending.gather.is_spooling()) {
            return self.spool(py, connection, scratch);
        }
        let mut bytes = if held_back {
            &std::mem::take(&mut connection.input)
        } else {
            let len = match connection.receive(scratch) {
                Err(_) | Ok(Some(0)) => return Ok(self.gone(connection)),
                Ok(None) => return Ok(self.wait(connection, Wait::Read)),
                Ok(Some(len)) => len,
            };
            connection.fresh = false;
            if connection.input.is_empty() {
                &scratch[..len]
            } else {
                connection.input.extend_from_slice(&scratch[..len]);
                &std::mem::take(&mut connection.input)
            }
        };
        loop {
            let before = bytes.len();
            let (back, next) = self.consume(py, connection, &mut bytes)?;
            connection = back;
            if let Some(next) = next {
                return Ok((connection, next));
            }
            if connection.closing {
                return Ok(self.end(connection, &mut []));
            }
            if !connection.output.is_empty() {
                if !bytes.is_empty() {
                    // A client that sends requests and takes no answers must not fill the memory.
                    connection.held_back = true;
                    connection.input = bytes.to_vec();
                }
                return Ok(self.wait(connection, Wait::Write));
            }
            // Requests that were sent one behind another are served one after another.
            if bytes.is_empty() || bytes.len() == before {
                return Ok(self.wait(connection, Wait::Read));
            }
        }
    }

    /// Takes what is there of a body that goes to a file; serves the request when that is all.
    fn spool(&mut self, py: Python<'_>, mut connection: Box<Connection>, scratch: &mut [u8]) -> anyhow::Result<Driven> {
        let (connection, next) = match py.detach(|| connection.spool(scratch)) {
            Ok(Spooled::Waits) => return Ok(self.wait(connection, Wait::Read)),
            Ok(Spooled::Gone) => return Ok(self.gone(connection)),
            Ok(Spooled::Complete(pending)) => self.serve_gathered(py, connection, pending)?,
            Err(failure) => self.refuse_gathering(connection, failure),
        };
        Ok(match next {
            Some(next) => (connection, next),
            None if connection.closing => self.end(connection, &mut []),
            None if connection.output.is_empty() => self.wait(connection, Wait::Read),
            None => self.wait(connection, Wait::Write),
        })
    }

    /// The client went away: in the middle of a request, perhaps.
    fn gone(&mut self, connection: Box<Connection>) -> Driven {
        if !connection.is_idle() && !matches!(connection.kind, Kind::Link(_)) {
            self.count_read_error();
        }
        (connection, Next::Close)
    }

    fn count_sent(&mut self, connection: &mut Connection) {
        let sent = connection.take_sent();
        if sent > 0 {
            self.shared.scoreboard.core(self.shared.slot, self.id).sent(sent as usize);
        }
    }

    /// Leaves a connection to wait, and says how long it may.
    fn wait(&mut self, mut connection: Box<Connection>, wait: Wait) -> Driven {
        let config = &self.shared.config;
        connection.deadline = match connection.kind {
            // The front looks after its own.
            Kind::Link(_) if wait == Wait::Read => u32::MAX,
            _ if wait == Wait::Write => self.deadline(config.socket_timeout),
            _ if connection.is_idle() && !connection.fresh => self.deadline(config.http_keepalive),
            // A body must go on coming.
            _ if connection.is_idle() || connection.pending.is_some() => self.deadline(config.socket_timeout),
            // The head as a whole must come in time, however it is divided: see `keep`.
            _ => connection.deadline,
        };
        (connection, Next::Wait(wait))
    }

    /// The last answer is sent: closes, or waits for a client that may still be sending.
    pub(super) fn end(&mut self, mut connection: Box<Connection>, scratch: &mut [u8]) -> Driven {
        if !connection.output.is_empty() {
            return self.wait(connection, Wait::Write);
        }
        if !connection.linger {
            return (connection, Next::Close);
        }
        if !connection.shut {
            connection.shut();
            connection.deadline = self.deadline(LINGER);
        }
        let mut small = [0; 1024];
        let room = if scratch.is_empty() { &mut small[..] } else { scratch };
        match connection.receive(room) {
            Err(_) | Ok(Some(0)) => (connection, Next::Close),
            // However fast it sends: others get their turn, and the deadline comes.
            Ok(_) => (connection, Next::Wait(Wait::Read)),
        }
    }

    /// Uses the next request in `bytes`, or keeps what there is of it. `Some` when the connection can go no further.
    fn consume(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        bytes: &mut &[u8],
    ) -> anyhow::Result<(Box<Connection>, Option<Next>)> {
        let Some(mut pending) = connection.pending.take() else {
            return match connection.kind {
                Kind::Http => self.http(py, connection, bytes),
                Kind::Uwsgi => self.uwsgi(py, connection, bytes),
                Kind::Link(_) => self.link(py, connection, bytes),
            };
        };
        match pending.gather.take(bytes) {
            Ok((used, false)) => {
                *bytes = &bytes[used..];
                connection.pending = Some(pending);
                Ok((connection, None))
            }
            Ok((used, true)) => {
                *bytes = &bytes[used..];
                self.serve_gathered(py, connection, pending)
            }
            Err(failure) => Ok(self.refuse_gathering(connection, failure)),
        }
    }

    /// A request whose body is complete now.
    fn serve_gathered(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        pending: Pending,
    ) -> anyhow::Result<(Box<Connection>, Option<Next>)> {
        connection.body = match pending.gather.finish() {
            Ok(body) => body,
            Err(failure) => return Ok(self.refuse_gathering(connection, failure.into())),
        };
        let served = match connection.kind {
            Kind::Uwsgi => self.serve_uwsgi(py, connection, &pending.head)?,
            _ => self.serve_http(py, connection, &pending.head)?,
        };
        Ok((served, None))
    }

    fn http(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        bytes: &mut &[u8],
    ) -> anyhow::Result<(Box<Connection>, Option<Next>)> {
        let all = *bytes;
        if connection.seen > 0
            && !http::may_be_complete(all, connection.seen)
            && all.len() <= self.shared.config.buffer_size
        {
            return Ok((self.keep(connection, bytes), None));
        }
        let mut headers: HeaderBuf<'_> = [const { MaybeUninit::uninit() }; http::MAX_HEADERS];
        let head = match http::parse(all, &mut headers, self.shared.config.buffer_size) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok((self.keep(connection, bytes), None)),
            Err(refusal) => return Ok(self.refuse(connection, refusal)),
        };
        connection.seen = 0;
        let rest = &all[head.len..];
        let length = match head.body {
            BodyLength::None | BodyLength::Length(0) => {
                connection.body = Body::Empty;
                *bytes = rest;
                let body_len = matches!(head.body, BodyLength::Length(_)).then_some(0);
                return Ok((self.serve_head(py, connection, &head, &all[..head.len], body_len)?, None));
            }
            BodyLength::Length(length) => Some(length),
            BodyLength::Chunked => None,
        };
        let (len, awaits_continue) = (head.len, head.expect_continue && rest.is_empty());
        let (mut connection, next) = self.gather(py, connection, &all[..len], length, rest, bytes)?;
        // Not to a client whose body is not wanted. One that is gone shows when its body is read.
        if awaits_continue && connection.pending.is_some() {
            let _ =
                connection.output.send(connection.socket.as_fd(), &[b"HTTP/1.1 100 Continue\r\n\r\n"], &mut |_| None);
        }
        Ok((connection, next))
    }

    fn uwsgi(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        bytes: &mut &[u8],
    ) -> anyhow::Result<(Box<Connection>, Option<Next>)> {
        let all = *bytes;
        let packet = match uwsgi::parse(all, self.shared.config.buffer_size) {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok((self.keep(connection, bytes), None)),
            Err(failure) => {
                warn!("{} refused: {failure}", client_of(&connection.peer));
                self.count_read_error();
                return Ok((connection, Some(Next::Close)));
            }
        };
        let said = packet.vars().filter(|(name, _)| *name == b"CONTENT_LENGTH").last();
        let length = match said.map(|(_, value)| std::str::from_utf8(value).map(str::parse::<u64>)) {
            None | Some(Ok(Ok(0))) => 0,
            Some(Ok(Ok(length))) => length,
            Some(_) if said.is_some_and(|(_, value)| value.is_empty()) => 0,
            Some(_) => {
                warn!("{} refused: CONTENT_LENGTH is not a number", client_of(&connection.peer));
                self.count_read_error();
                return Ok((connection, Some(Next::Close)));
            }
        };
        let rest = &all[packet.len()..];
        if length == 0 {
            connection.body = Body::Empty;
            *bytes = rest;
            return Ok((self.serve_uwsgi(py, connection, &all[..packet.len()])?, None));
        }
        self.gather(py, connection, &all[..packet.len()], Some(length), rest, bytes)
    }

    /// A request of which only the head is certain to be there; `rest` is what follows it.
    fn gather(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        head: &[u8],
        length: Option<u64>,
        rest: &[u8],
        bytes: &mut &[u8],
    ) -> anyhow::Result<(Box<Connection>, Option<Next>)> {
        let config = &self.shared.config;
        let most = if config.limit_post == 0 { u64::MAX } else { config.limit_post };
        let gather = match length {
            Some(length) => Gather::of_length(length, config.post_buffering, most),
            None => Ok(Gather::of_chunks(config.post_buffering, most)),
        };
        let gather = match gather {
            Ok(gather) => gather,
            Err(failure) => return Ok(self.refuse_gathering(connection, failure)),
        };
        connection.pending = Some(Pending { head: head.to_vec(), gather });
        let skipped = bytes.len() - rest.len();
        *bytes = &bytes[skipped..];
        if bytes.is_empty() { Ok((connection, None)) } else { self.consume(py, connection, bytes) }
    }

    fn link(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        bytes: &mut &[u8],
    ) -> anyhow::Result<(Box<Connection>, Option<Next>)> {
        let all = *bytes;
        let Some(lengths) = all.first_chunk().map(LinkHead::decode) else {
            return Ok((self.keep(connection, bytes), None));
        };
        let (peer_len, head_len) = (lengths.peer_len as usize, lengths.head_len as usize);
        let Some((start, rest)) = all.split_at_checked(LinkHead::LEN + peer_len + head_len) else {
            return Ok((self.keep(connection, bytes), None));
        };
        let (peer, head) = start[LinkHead::LEN..].split_at(peer_len);
        connection.peer.clear();
        connection.peer.push_str(&String::from_utf8_lossy(peer));
        *bytes = &[];
        connection.body = if lengths.body_len == 0 {
            *bytes = rest;
            Body::Empty
        } else if let Some((body, rest)) =
            usize::try_from(lengths.body_len).ok().and_then(|len| rest.split_at_checked(len))
        {
            *bytes = rest;
            Body::Memory(body.to_vec(), 0)
        } else {
            let socket = Arc::clone(&connection.socket);
            let reader = LinkReader { first: rest.to_vec(), at: 0, socket, timeout: connection.timeout };
            Body::at_link(reader, lengths.body_len)
        };
        Ok((self.serve_http(py, connection, head)?, None))
    }

    /// Keeps the beginning of a request until more of it comes.
    fn keep(&mut self, mut connection: Box<Connection>, bytes: &mut &[u8]) -> Box<Connection> {
        if connection.seen == 0 {
            connection.deadline = self.deadline(self.shared.config.socket_timeout);
        }
        connection.input = bytes.to_vec();
        connection.seen = bytes.len();
        *bytes = &[];
        connection
    }

    /// A request is not taken. The uwsgi protocol's answers are HTTP's.
    pub(super) fn refuse(
        &mut self,
        mut connection: Box<Connection>,
        refusal: Refusal,
    ) -> (Box<Connection>, Option<Next>) {
        warn!("{} refused: {refusal}", client_of(&connection.peer));
        self.count_read_error();
        connection.closing = true;
        connection.pending = None;
        if !matches!(connection.kind, Kind::Link(_)) {
            let mut answer = Vec::new();
            http::refusal_response(&refusal, &mut answer);
            connection.linger = true;
            if connection.output.send(connection.socket.as_fd(), &[&answer], &mut |_| None).is_err() {
                return (connection, Some(Next::Close));
            }
            self.count_sent(&mut connection);
        }
        (connection, None)
    }

    /// A body cannot be gathered.
    fn refuse_gathering(
        &mut self,
        connection: Box<Connection>,
        failure: GatherError,
    ) -> (Box<Connection>, Option<Next>) {
        let refusal = match failure {
            GatherError::Refused(refusal) => refusal,
            GatherError::Disk(failure) => {
                error!("post-buffering: a request body cannot be kept: {failure}");
                Refusal { status: 503, reason: "the request body cannot be kept" }
            }
        };
        self.refuse(connection, refusal)
    }

    pub(super) fn count_write_error(&mut self) {
        self.shared.scoreboard.core(self.shared.slot, self.id).write_error();
    }

    fn count_read_error(&mut self) {
        self.shared.scoreboard.core(self.shared.slot, self.id).read_error();
    }

    /// Serves a request whose head was parsed before and whose body is complete.
    fn serve_http(
        &mut self,
        py: Python<'_>,
        connection: Box<Connection>,
        bytes: &[u8],
    ) -> anyhow::Result<Box<Connection>> {
        let mut headers: HeaderBuf<'_> = [const { MaybeUninit::uninit() }; http::MAX_HEADERS];
        match http::parse(bytes, &mut headers, bytes.len()) {
            Ok(Some(head)) => {
                let has_body = head.body != BodyLength::None;
                let body_len = has_body.then(|| connection.body.left());
                self.serve_head(py, connection, &head, bytes, body_len)
            }
            // The front's parser is this one, so that only a front of another version can bring this about.
            Ok(None) => anyhow::bail!("the front sent a part of a request head"),
            Err(refusal) => Ok(self.refuse(connection, refusal).0),
        }
    }

    fn serve_head(
        &mut self,
        py: Python<'_>,
        connection: Box<Connection>,
        head: &Head<'_, '_>,
        bytes: &[u8],
        body_len: Option<u64>,
    ) -> anyhow::Result<Box<Connection>> {
        // The text moves out while the connection is the application's, and back after.
        let mut connection = connection;
        let text = std::mem::take(&mut connection.peer);
        let peer = Peer::parse(text.as_bytes())?;
        let exchange = Exchange {
            protocol: Protocol::Http,
            version: head.version,
            head_only: head.method == "HEAD",
            keep_alive: head.keep_alive
                && (matches!(connection.kind, Kind::Link(_))
                    || self.shared.config.http_keepalive > 0 && !self.is_leaving()),
        };
        let entry = Entry {
            client: peer.remote_addr,
            method: head.method,
            uri: head.target,
            protocol: head.version.as_str(),
            status: 0,
            bytes: 0,
            took: 0,
        };
        let request = RequestHead::Http { head, peer, body_len };
        let mut connection = self.serve_one(py, connection, &request, exchange, Wire::Http, &text, bytes, entry)?;
        connection.peer = text;
        Ok(connection)
    }

    fn serve_uwsgi(
        &mut self,
        py: Python<'_>,
        connection: Box<Connection>,
        bytes: &[u8],
    ) -> anyhow::Result<Box<Connection>> {
        let Ok(Some(packet)) = uwsgi::parse(bytes, bytes.len()) else {
            anyhow::bail!("a uwsgi packet changed while its body was gathered");
        };
        let var = |name: &[u8]| {
            let value = packet.vars().filter(|(found, _)| *found == name).last();
            value.map(|(_, value)| String::from_utf8_lossy(value)).unwrap_or_default()
        };
        let (method, uri, protocol) = (var(b"REQUEST_METHOD"), var(b"REQUEST_URI"), var(b"SERVER_PROTOCOL"));
        let client = var(b"REMOTE_ADDR");
        let exchange = Exchange {
            protocol: Protocol::Uwsgi,
            version: if protocol == "HTTP/1.0" { Version::Http10 } else { Version::Http11 },
            head_only: method == "HEAD",
            keep_alive: false,
        };
        let entry =
            Entry { client: &client, method: &method, uri: &uri, protocol: &protocol, status: 0, bytes: 0, took: 0 };
        let request = RequestHead::Uwsgi(&packet);
        self.serve_one(py, connection, &request, exchange, Wire::Uwsgi, "", &bytes[uwsgi::HEADER_LEN..], entry)
    }

    /// Has the application answer, counts and logs.
    #[expect(clippy::too_many_arguments, reason = "one call site for each wire; a struct would only name them again")]
    fn serve_one(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        request: &RequestHead<'_>,
        exchange: Exchange,
        wire: Wire,
        peer: &str,
        kept: &[u8],
        entry: Entry<'_>,
    ) -> anyhow::Result<Box<Connection>> {
        connection.queued = 0;
        let started = self.now;
        self.shared.scoreboard.core(self.shared.slot, self.id).begin(started, wire, peer.as_bytes(), kept);
        if self.shared.config.harakiri.is_some() {
            connection.watched = true;
            harakiri::hold(connection.kind, connection.socket.as_raw_fd());
        }
        let served = self.gateway.serve(py, request, exchange, connection)?;
        let Served { transport, status, keep_alive, raised, client_gone, broken_off } = served;
        let transport: Box<dyn Any> = transport;
        let Ok(mut connection) = transport.downcast::<Connection>() else {
            anyhow::bail!("the application's side gave back another connection than it was given");
        };
        let bytes = connection.queued;
        // The front may have much of it still to send.
        let drained = if let Body::Link(_) = connection.body {
            py.detach(|| connection.discard_body())
        } else {
            connection.discard_body()
        };
        if broken_off && !matches!(connection.kind, Kind::Link(_)) {
            connection.break_off();
        }
        let client_gone = connection.claim().is_err() || client_gone;
        if client_gone || drained.is_err() || connection.end_response(keep_alive).is_err() {
            connection.closing = true;
            connection.output = super::output::Output::default();
        }
        if let Kind::Link(_) = connection.kind
            && self.is_leaving()
            && !connection.leave_told
            && connection.tell_leaving().is_err()
        {
            connection.closing = true;
        }
        self.now = clock::monotonic();
        let cell = self.shared.scoreboard.core(self.shared.slot, self.id);
        if let Some(raised) = &raised {
            cell.exception.store(&ExceptionReport {
                when: clock::unix_micros(),
                kind: raised.kind.clone(),
                message: raised.message.clone(),
                location: raised.location.clone(),
                request: format!("{} {}", entry.method, entry.uri),
            });
        }
        self.count_sent(&mut connection);
        let outcome = Outcome { status, exception: raised.is_some(), write_error: client_gone };
        let cell = self.shared.scoreboard.core(self.shared.slot, self.id);
        cell.finish(self.now, self.ready.min(started), outcome);
        self.shared.notices.count();
        if let Some(log) = &mut self.log {
            log.add(&Entry { status, bytes, took: self.now - started, ..entry });
        }
        Ok(connection)
    }
}

/// The client's address in a peer's text.
fn client_of(peer: &str) -> &str {
    match peer.split(' ').next() {
        Some("") | None => "a client",
        Some(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wsgi::transport::Transport;

    #[test]
    fn a_client_without_an_address_has_a_name_in_the_log() {
        assert_eq!(client_of("10.0.0.1 5 host 80"), "10.0.0.1");
        assert_eq!(client_of("  host 80"), "a client");
    }

    #[test]
    fn a_connection_comes_back_from_the_application_as_itself() {
        let (socket, _other) = nix::sys::socket::socketpair(
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::Stream,
            None,
            nix::sys::socket::SockFlag::empty(),
        )
        .unwrap();
        let transport: Box<dyn Transport> = Connection::new(socket, Kind::Http, "peer".into(), 1);
        let back: Box<dyn Any> = transport;
        assert_eq!(back.downcast::<Connection>().unwrap().peer, "peer");
    }
}
