//! From bytes to a request: heads and packets are parsed, bodies gathered, what is no request is refused.

use std::mem::MaybeUninit;
use std::sync::Arc;

use pyo3::prelude::*;
use tracing::warn;

use super::body::{LinkReader, RequestBody};
use super::connection::{Connection, ConnectionPhase};
use super::kind::Kind;
use super::phases::Waits;
use super::worker_thread::{WORTH_SPARING, WorkerThread};
use crate::clock::MonotonicNanos;
use crate::ids::ThreadIndex;
use crate::io::accept::client_of;
use crate::io::body::{BodyIntake, Gathering, IntakeError};
use crate::io::close::Then;
use crate::io::pace::Pace;
use crate::io::proxied;
use crate::log_limit::{self, LineKind};
use rwsgi_protocol::SocketProtocol;
use rwsgi_protocol::http::{self, BodyLength, HeaderBuf, Refusal};
use rwsgi_protocol::link::RequestLengths;
use rwsgi_protocol::path::{self, PathNormalize};
use rwsgi_protocol::proxy;
use rwsgi_protocol::uwsgi;

/// Takes what a proxy says of its client from the beginning of `bytes`; returns whether that is done.
#[cold]
fn pass_proxy(connection: &mut Connection, bytes: &mut &[u8]) -> Result<bool, Refusal> {
    match proxy::parse(bytes)? {
        proxy::Start::Part => return Ok(false),
        proxy::Start::Plain => {}
        proxy::Start::Header { len, addresses } => {
            *bytes = &bytes[len..];
            if let Some((from, to)) = addresses {
                connection.peer = proxied::client(&connection.peer, from, Some(to));
            }
        }
    }
    connection.seen = 0;
    connection.awaits_proxy = false;
    Ok(true)
}

impl WorkerThread {
    /// Uses the next request in `bytes`, or what there is of it. How much of them it used, and what came of it: that is
    /// the connection's phase.
    pub(super) fn consume(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        bytes: &mut [u8],
    ) -> anyhow::Result<(usize, Box<Connection>)> {
        if let ConnectionPhase::Body(gathering) = &mut connection.phase {
            return match gathering.intake.take(bytes, &self.worker.temp) {
                Ok((used, true)) => Ok((used, self.serve_gathered(py, connection)?)),
                Ok((used, false)) => Ok((used, connection)),
                // What follows is no request.
                Err(failure) => Ok((bytes.len(), self.refuse_body(connection, &failure, &[]))),
            };
        }
        let mut rest = &*bytes;
        let connection = match connection.kind {
            Kind::Client(SocketProtocol::Http) => self.http(py, connection, &mut rest),
            Kind::Client(SocketProtocol::Uwsgi) => self.uwsgi(py, connection, &mut rest),
            Kind::Link(thread) => self.link(py, connection, thread, &mut rest),
        }?;
        Ok((bytes.len() - rest.len(), connection))
    }

    /// Serves a request whose body is whole now.
    pub(super) fn serve_gathered(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
    ) -> anyhow::Result<Box<Connection>> {
        let ConnectionPhase::Body(gathering) = std::mem::replace(&mut connection.phase, ConnectionPhase::Serving)
        else {
            return Ok(connection);
        };
        let Gathering { head, since, intake } = *gathering;
        connection.waits.gathered = self.ready.nanos_since(since);
        let (stored, behind) = intake.finish();
        if !behind.is_empty() {
            connection.input = behind;
            connection.seen = 0;
        }
        connection.body = RequestBody::new(stored);
        match connection.kind {
            Kind::Client(SocketProtocol::Uwsgi) => match uwsgi::parse(&head, head.len()) {
                Ok(Some(packet)) => self.serve_uwsgi(py, connection, &packet, &head),
                _ => anyhow::bail!("a uwsgi packet changed while its body was gathered"),
            },
            _ => self.serve_http(py, connection, &head),
        }
    }

    fn http(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        bytes: &mut &[u8],
    ) -> anyhow::Result<Box<Connection>> {
        if connection.awaits_proxy {
            match pass_proxy(&mut connection, bytes) {
                Ok(true) => {}
                Ok(false) => return Ok(self.keep(connection, bytes)),
                Err(refusal) => return Ok(self.refuse(connection, refusal, bytes)),
            }
        }
        let all = *bytes;
        if connection.seen > 0
            && !http::may_be_complete(all, connection.seen)
            && all.len() <= self.worker.config.buffer_size
        {
            return Ok(self.keep(connection, bytes));
        }
        let mut headers: HeaderBuf<'_> = [const { MaybeUninit::uninit() }; http::MAX_HEADERS];
        let head = match http::parse(all, &mut headers, self.worker.config.buffer_size) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(self.keep(connection, bytes)),
            Err(refusal) => return Ok(self.refuse(connection, refusal, all)),
        };
        if let Err(refusal) = path::check(self.worker.config.path_normalize, head.target) {
            return Ok(self.refuse(connection, refusal, all));
        }
        connection.seen = 0;
        let (head_bytes, rest) = all.split_at(head.len);
        *bytes = rest;
        let length = match head.body {
            BodyLength::None | BodyLength::Length(0) => {
                if head.upgrade && !rest.is_empty() {
                    // An application that takes the connection would not get it.
                    connection.input = rest.to_vec();
                    *bytes = &[];
                }
                connection.body = RequestBody::Empty;
                let body_len = matches!(head.body, BodyLength::Length(_)).then_some(0);
                return self.serve_head(py, connection, &head, head_bytes, body_len);
            }
            BodyLength::Length(length) => Some(length),
            BodyLength::Chunked => None,
        };
        let awaits_continue = head.expect_continue && rest.is_empty();
        let mut connection = self.gather(connection, head_bytes, length);
        // Not to a client whose body is not wanted. One that is gone shows when its body is read.
        if awaits_continue && matches!(connection.phase, ConnectionPhase::Body(_)) {
            let _ = connection.say(http::CONTINUE);
        }
        Ok(connection)
    }

    fn uwsgi(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        bytes: &mut &[u8],
    ) -> anyhow::Result<Box<Connection>> {
        let all = *bytes;
        let parsed = match uwsgi::parse(all, self.worker.config.buffer_size) {
            Ok(Some(packet)) => packet.content_length().map(|length| (packet, length)),
            Ok(None) => return Ok(self.keep(connection, bytes)),
            Err(failure) => Err(failure),
        };
        let (packet, length) = match parsed {
            Ok(parsed) => parsed,
            Err(failure) => {
                return Ok(self.refuse_packet(connection, &failure));
            }
        };
        if let Err(refusal) = self.check_path(&packet) {
            return Ok(self.refuse(connection, refusal, all));
        }
        let (packet_bytes, rest) = all.split_at(packet.len());
        *bytes = rest;
        if length == 0 {
            connection.body = RequestBody::Empty;
            return self.serve_uwsgi(py, connection, &packet, packet_bytes);
        }
        Ok(self.gather(connection, packet_bytes, Some(length)))
    }

    /// Whether the path that the proxy has decoded is served.
    fn check_path(&self, packet: &uwsgi::Packet<'_>) -> Result<(), Refusal> {
        let how = self.worker.config.path_normalize;
        if how == PathNormalize::Keep {
            return Ok(());
        }
        match packet.vars().filter(|(name, _)| *name == b"PATH_INFO").last() {
            Some((_, value)) => path::of_packet(how, value, &mut Vec::new()).map(drop),
            None => Ok(()),
        }
    }

    /// A request of which only the head is certain to be there.
    fn gather(&mut self, mut connection: Box<Connection>, head: &[u8], length: Option<u64>) -> Box<Connection> {
        let limits = self.worker.body_limits;
        let intake = match length {
            Some(length) => {
                let is_worth_it = usize::try_from(length).is_ok_and(|length| WORTH_SPARING.contains(&length));
                let buffer = if is_worth_it { self.spare_buffers.pop() } else { None };
                BodyIntake::of_length(length, limits, buffer.unwrap_or_default(), &self.worker.temp)
            }
            None => Ok(BodyIntake::of_chunks(limits)),
        };
        match intake {
            Ok(intake) => {
                connection.pace = Pace::of_body(connection.rates, self.second(), 0);
                connection.phase =
                    ConnectionPhase::Body(Box::new(Gathering { head: head.to_vec(), since: self.now, intake }));
                connection
            }
            Err(failure) => self.refuse_body(connection, &failure, head),
        }
    }

    fn link(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        thread: ThreadIndex,
        bytes: &mut &[u8],
    ) -> anyhow::Result<Box<Connection>> {
        let all = *bytes;
        let Some(lengths) = all.first_chunk().map(RequestLengths::decode) else {
            return Ok(self.keep(connection, bytes));
        };
        let (peer_len, head_len) = (lengths.peer as usize, lengths.head as usize);
        let Some((start, rest)) = all.split_at_checked(RequestLengths::LEN + peer_len + head_len) else {
            return Ok(self.keep(connection, bytes));
        };
        connection.seen = 0;
        let (peer, head) = start[RequestLengths::LEN..].split_at(peer_len);
        connection.peer.clear();
        connection.peer.push_str(&String::from_utf8_lossy(peer));
        *bytes = &[];
        connection.body = if lengths.body == 0 {
            *bytes = rest;
            RequestBody::Empty
        } else if let Some((body, rest)) = usize::try_from(lengths.body).ok().and_then(|len| rest.split_at_checked(len))
        {
            *bytes = rest;
            RequestBody::Memory(body.to_vec(), 0)
        } else {
            let socket = Arc::clone(&connection.socket);
            let reader = LinkReader { first: rest.to_vec(), at: 0, socket, patience: self.patience() };
            RequestBody::at_link(reader, lengths.body)
        };
        connection.waits =
            Waits { since: MonotonicNanos::from_nanos(lengths.since), gathered: u64::from(lengths.gathered) * 1_000 };
        let number = connection.link.brought;
        connection.link.brought = number.wrapping_add(1);
        if self.worker.scoreboard.dispatched(self.worker.slot, thread).take(number) {
            return self.serve_http(py, connection, head);
        }
        if connection.discard_body().and_then(|()| connection.tell_skipped()).is_err() {
            connection.give_up();
        }
        Ok(connection)
    }

    /// Keeps the beginning of a request until more of it comes.
    fn keep(&mut self, mut connection: Box<Connection>, bytes: &mut &[u8]) -> Box<Connection> {
        if !matches!(connection.phase, ConnectionPhase::Head) {
            connection.phase = ConnectionPhase::Head;
            connection.deadline = self.deadline(self.worker.config.socket_timeout);
        }
        connection.input = bytes.to_vec();
        connection.seen = bytes.len();
        *bytes = &[];
        connection
    }

    /// A request is not taken. The uwsgi protocol's answers are HTTP's. `head` is what has come of it, unless a body is
    /// being gathered for it.
    pub(super) fn refuse(&mut self, mut connection: Box<Connection>, refusal: Refusal, head: &[u8]) -> Box<Connection> {
        if log_limit::allows(LineKind::Refused(refusal.status)) {
            warn!("{} refused: {refusal}", client_of(&connection.peer));
        }
        if connection.is_link() {
            return self.drop_unanswered(connection);
        }
        self.count_read_error();
        let head_only = match &connection.phase {
            ConnectionPhase::Body(gathering) => is_head(connection.kind, &gathering.head),
            _ => is_head(connection.kind, head),
        };
        connection.input = Vec::new();
        connection.phase = ConnectionPhase::Flushing(Then::Linger);
        let mut answer = Vec::new();
        http::refusal_response(&refusal, head_only, &mut answer);
        if connection.say(&answer).is_err() {
            connection.give_up();
        }
        self.count_sent(&mut connection);
        connection
    }

    /// A body cannot be gathered. `head` as for [`refuse`](Self::refuse).
    pub(super) fn refuse_body(
        &mut self,
        connection: Box<Connection>,
        failure: &IntakeError,
        head: &[u8],
    ) -> Box<Connection> {
        self.refuse(connection, failure.refusal(), head)
    }

    /// What came is no uwsgi packet.
    fn refuse_packet(&mut self, connection: Box<Connection>, why: &dyn std::fmt::Display) -> Box<Connection> {
        if log_limit::allows(LineKind::NoPacket) {
            warn!("{} refused: {why}", client_of(&connection.peer));
        }
        self.drop_unanswered(connection)
    }

    /// Closes a connection whose other end would not understand an answer.
    fn drop_unanswered(&mut self, mut connection: Box<Connection>) -> Box<Connection> {
        self.count_read_error();
        connection.phase = ConnectionPhase::Over;
        connection
    }

    pub(super) fn count_write_error(&mut self) {
        self.cell().write_error();
    }

    pub(super) fn count_read_error(&mut self) {
        self.cell().read_error();
    }
}

/// Whether what has come of a request says that its answer has no body.
fn is_head(kind: Kind, head: &[u8]) -> bool {
    match kind {
        Kind::Client(SocketProtocol::Http) => http::is_head(head),
        Kind::Client(SocketProtocol::Uwsgi) => match uwsgi::parse(head, head.len()) {
            Ok(Some(packet)) => {
                packet.vars().filter(|(name, _)| *name == b"REQUEST_METHOD").last()
                    == Some((b"REQUEST_METHOD", b"HEAD"))
            }
            _ => false,
        },
        // It is the router that answers.
        Kind::Link(_) => false,
    }
}
