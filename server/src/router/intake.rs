//! From a client's bytes to a whole request: heads, bodies, refusals. What is whole goes to dispatch.

use std::io::IoSlice;
use std::mem::{self, MaybeUninit};
use std::os::fd::AsRawFd;

use nix::sys::socket::{Shutdown, shutdown};
use tracing::{error, info};

use super::Router;
use super::body::{Body, Store};
use super::client::{Framing, Gathering, Phase, Received, Then};
use super::slots::Key;
use crate::protocol::chunked::{Decoder, Step};
use crate::protocol::http::{self, BODY_TOO_LARGE, BodyLength, MAX_HEADERS, Refusal};

/// How much is read at once where a head is expected: nearly all requests, and little enough to copy when a large body
/// begins in it.
const HEAD_READ: usize = 16 * 1024;
/// How many steps a connection may take before others get their turn.
const TURNS: usize = 16;

/// Whether there is more to do for a connection at once.
type Continue = bool;

impl Router<'_> {
    /// Does what there is to do for a client.
    pub(super) fn advance(&mut self, scratch: &mut [u8], key: Key) {
        for _ in 0..TURNS {
            let Some(client) = self.clients.get_mut(key) else { return };
            let go_on = match client.phase {
                Phase::Idle | Phase::Head => self.read_head(scratch, key),
                Phase::Body(_) => self.read_body(scratch, key),
                Phase::Flushing(then) => client.output.is_empty() && self.finish_response(key, then),
                Phase::Lingering => match client.receive(scratch) {
                    Received::Bytes(_) => true,
                    Received::Nothing => false,
                    Received::End => {
                        self.close_client(key);
                        false
                    }
                },
                Phase::Queued(_) | Phase::Serving(_) => false,
            };
            if !go_on {
                return;
            }
        }
        self.turn_again_client(key);
    }

    fn read_head(&mut self, scratch: &mut [u8], key: Key) -> Continue {
        let buffer_size = self.limits.buffer_size;
        let Some(client) = self.clients.get_mut(key) else { return false };
        if client.input.len() > client.seen {
            let input = mem::take(&mut client.input);
            return self.take_head(key, &input);
        }
        let room = scratch.len().min(HEAD_READ);
        match client.receive(&mut scratch[..room]) {
            Received::Bytes(count) if client.input.is_empty() => self.take_head(key, &scratch[..count]),
            Received::Bytes(count) => {
                client.input.extend_from_slice(&scratch[..count]);
                if client.input.len() <= buffer_size && !http::may_be_complete(&client.input, client.seen) {
                    client.seen = client.input.len();
                }
                true
            }
            Received::Nothing => false,
            Received::End => {
                self.close_client(key);
                false
            }
        }
    }

    /// Takes a head from the beginning of `bytes`, which are all that there is of the client's input.
    fn take_head(&mut self, key: Key, bytes: &[u8]) -> Continue {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let parsed = http::parse(bytes, &mut headers, self.limits.buffer_size);
        let late = self.in_seconds(self.limits.timeout);
        let Some(client) = self.clients.get_mut(key) else { return false };
        let head = match parsed {
            Ok(Some(head)) => head,
            Ok(None) => {
                client.input = bytes.to_vec();
                client.seen = bytes.len();
                if !matches!(client.phase, Phase::Head) {
                    // For the whole head, however slowly it drips.
                    client.phase = Phase::Head;
                    client.deadline = late;
                }
                return true;
            }
            Err(refusal) => {
                self.refuse(key, refusal);
                return true;
            }
        };
        let (head_bytes, rest) = bytes.split_at(head.len);
        client.seen = 0;
        let (store, framing) = match head.body {
            BodyLength::None | BodyLength::Length(0) => {
                client.input = rest.to_vec();
                self.dispatch(key, head_bytes, Body::Empty);
                return true;
            }
            BodyLength::Length(length) if self.limits.refuse_body(length) => {
                self.refuse(key, BODY_TOO_LARGE);
                return true;
            }
            BodyLength::Length(length) => {
                (Store::of_length(length, self.limits.post_buffering), Framing::Length(length))
            }
            BodyLength::Chunked => (Ok(Store::growing()), Framing::Chunked(Decoder::new())),
        };
        let store = match store {
            Ok(store) => store,
            Err(problem) => return self.cannot_store(key, &problem),
        };
        client.phase = Phase::Body(Box::new(Gathering { head: head_bytes.to_vec(), store, framing }));
        client.deadline = late;
        if head.expect_continue && rest.is_empty() {
            let go_ahead = client.send(&[IoSlice::new(b"HTTP/1.1 100 Continue\r\n\r\n")]);
            if go_ahead.is_err() {
                self.close_client(key);
                return false;
            }
            self.arm_client(key);
        }
        self.take_body(key, rest)
    }

    fn read_body(&mut self, scratch: &mut [u8], key: Key) -> Continue {
        let late = self.in_seconds(self.limits.timeout);
        let Some(client) = self.clients.get_mut(key) else { return false };
        let Phase::Body(gathering) = &client.phase else { return true };
        // A body of known length is read up to its end and not beyond, the next request being left where it is.
        let left = match gathering.framing {
            Framing::Length(length) => length - gathering.store.len(),
            Framing::Chunked(_) => u64::MAX,
        };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let in_place = match gathering.framing {
            Framing::Length(_) => client.receive_body(left),
            Framing::Chunked(_) => None,
        };
        let most = scratch.len().min(left);
        let (received, data) = match in_place {
            Some(received) => (received, &[][..]),
            None => match client.receive(&mut scratch[..most]) {
                Received::Bytes(count) => (Received::Bytes(count), &scratch[..count]),
                other => (other, &[][..]),
            },
        };
        match received {
            Received::Bytes(_) => {
                client.deadline = late;
                self.take_body(key, data)
            }
            Received::Nothing => false,
            Received::End => {
                self.close_client(key);
                false
            }
        }
    }

    /// Takes the next bytes of the body, and dispatches the request when it is whole.
    fn take_body(&mut self, key: Key, bytes: &[u8]) -> Continue {
        let limits = self.limits;
        let in_memory = limits.post_buffering;
        let Some(client) = self.clients.get_mut(key) else { return false };
        let Phase::Body(gathering) = &mut client.phase else { return true };
        let Gathering { store, framing, .. } = gathering.as_mut();
        let (rest, whole) = match framing {
            Framing::Length(length) => {
                let left = usize::try_from(*length - store.len()).unwrap_or(usize::MAX);
                let (data, rest) = bytes.split_at(bytes.len().min(left));
                if let Err(problem) = store.push(data, in_memory) {
                    return self.cannot_store(key, &problem);
                }
                (rest, store.len() == *length)
            }
            Framing::Chunked(decoder) => {
                let mut rest = bytes;
                loop {
                    let (consumed, step) = match decoder.decode(rest) {
                        Ok(decoded) => decoded,
                        Err(refusal) => {
                            self.refuse(key, refusal);
                            return true;
                        }
                    };
                    rest = &rest[consumed..];
                    match step {
                        Step::Data(data) if limits.refuse_body(store.len() + data.len() as u64) => {
                            self.refuse(key, BODY_TOO_LARGE);
                            return true;
                        }
                        Step::Data(data) => {
                            if let Err(problem) = store.push(data, in_memory) {
                                return self.cannot_store(key, &problem);
                            }
                        }
                        Step::More => break (rest, false),
                        Step::Done => break (rest, true),
                    }
                }
            }
        };
        if !whole {
            return true;
        }
        client.input = rest.to_vec();
        if let Phase::Body(gathering) = mem::replace(&mut client.phase, Phase::Idle) {
            let Gathering { head, store, .. } = *gathering;
            self.dispatch(key, &head, store.finish());
        }
        true
    }

    fn cannot_store(&mut self, key: Key, problem: &std::io::Error) -> Continue {
        error!("cannot keep a request body larger than post-buffering: {problem}");
        self.refuse(key, Refusal { status: 500, reason: "the request body could not be stored" });
        true
    }

    /// Answers in the application's place, and closes.
    pub(super) fn refuse(&mut self, key: Key, refusal: Refusal) {
        let late = self.in_seconds(self.limits.timeout);
        let Some(client) = self.clients.get_mut(key) else { return };
        info!("{} from {}", refusal, String::from_utf8_lossy(&client.peer));
        let mut response = Vec::new();
        http::refusal_response(&refusal, &mut response);
        client.input = Vec::new();
        client.phase = Phase::Flushing(Then::Linger);
        client.deadline = late;
        if client.send(&[IoSlice::new(&response)]).is_err() {
            self.close_client(key);
        } else {
            self.arm_client(key);
        }
    }

    /// The response is sent: what comes now.
    fn finish_response(&mut self, key: Key, then: Then) -> Continue {
        let keepalive = self.in_seconds(self.limits.keepalive);
        let linger = self.in_seconds(super::LINGER);
        let stopping = self.stopping;
        let Some(client) = self.clients.get_mut(key) else { return false };
        match then {
            Then::NextRequest if !stopping => {
                client.phase = Phase::Idle;
                client.deadline = keepalive;
                true
            }
            // What the client sent beyond the request would make closing destroy the response on its way.
            _ if then == Then::Linger || client.readable || !client.input.is_empty() => {
                client.input = Vec::new();
                client.phase = Phase::Lingering;
                client.deadline = linger;
                // When the client is gone already, reading says so.
                let _ = shutdown(client.fd.as_raw_fd(), Shutdown::Write);
                true
            }
            _ => {
                self.close_client(key);
                false
            }
        }
    }
}
