//! From bytes to a request: heads and packets are parsed, bodies gathered, what is no request is refused.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;

use pyo3::prelude::*;
use tracing::{error, warn};

use super::body::{Body, LinkReader};
use super::connection::{Connection, Kind, Pending};
use super::gather::{Gather, GatherError};
use super::worker_thread::{Next, WORTH_SPARING, WorkerThread};
use crate::ids::{SlotId, ThreadIndex};
use crate::protocol::http::{self, BodyLength, HeaderBuf, Refusal};
use crate::protocol::link::RequestHead;
use crate::protocol::uwsgi;

impl WorkerThread {
    /// Uses the next request in `bytes`, or keeps what there is of it. `Some` when the connection can go no further.
    pub(super) fn consume(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        bytes: &mut &[u8],
    ) -> anyhow::Result<(Box<Connection>, Option<Next>)> {
        let Some(mut pending) = connection.pending.take() else {
            return match connection.kind {
                Kind::Http => self.http(py, connection, bytes),
                Kind::Uwsgi => self.uwsgi(py, connection, bytes),
                Kind::Link(thread) => self.link(py, connection, thread, bytes),
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
    pub(super) fn serve_gathered(
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
            Some(length) => {
                let is_worth_it = usize::try_from(length).is_ok_and(|length| WORTH_SPARING.contains(&length));
                let spare = if is_worth_it { self.spares.pop() } else { None };
                Gather::of_length(length, config.post_buffering, most, spare.unwrap_or_default())
            }
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
        thread: u32,
        bytes: &mut &[u8],
    ) -> anyhow::Result<(Box<Connection>, Option<Next>)> {
        let all = *bytes;
        let Some(lengths) = all.first_chunk().map(RequestHead::decode) else {
            return Ok((self.keep(connection, bytes), None));
        };
        let (peer_len, head_len) = (lengths.peer_len as usize, lengths.head_len as usize);
        let Some((start, rest)) = all.split_at_checked(RequestHead::LEN + peer_len + head_len) else {
            return Ok((self.keep(connection, bytes), None));
        };
        let (peer, head) = start[RequestHead::LEN..].split_at(peer_len);
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
        let number = connection.brought;
        connection.brought = number.wrapping_add(1);
        if self.shared.scoreboard.dispatched(SlotId::new(self.shared.slot), ThreadIndex::new(thread)).take(number) {
            return Ok((self.serve_http(py, connection, head)?, None));
        }
        let skipped = connection.discard_body().and_then(|()| connection.tell_skipped());
        Ok((connection, skipped.is_err().then_some(Next::Close)))
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
    pub(super) fn refuse_gathering(
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
        self.cell().write_error();
    }

    pub(super) fn count_read_error(&mut self) {
        self.cell().read_error();
    }
}

/// The client's address in a peer's text.
pub(super) fn client_of(peer: &str) -> &str {
    match peer.split(' ').next() {
        Some("") | None => "a client",
        Some(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_without_an_address_has_a_name_in_the_log() {
        assert_eq!(client_of("10.0.0.1 5 host 80"), "10.0.0.1");
        assert_eq!(client_of("  host 80"), "a client");
    }
}
