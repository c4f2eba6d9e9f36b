//! From a client's bytes to a whole request: heads, bodies, refusals. What is whole goes to dispatch.

use std::mem::{self, MaybeUninit};

use tracing::warn;

use super::client::ClientPhase;
use super::keyed::Key;
use super::state::Router;
use crate::clock::MonotonicNanos;
use crate::io::accept::client_of;
use crate::io::body::{BodyIntake, Gathering, IntakeError, StoredBody};
use crate::io::close::{LINGER, Then, shut_sending};
use crate::io::pace::Pace;
use crate::io::receive::Received;
use crate::log_limit::{self, LineKind};
use rwsgi_protocol::http::{self, BodyLength, MAX_HEADERS, Refusal};
use rwsgi_protocol::path;

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
                ClientPhase::Idle | ClientPhase::Head => self.read_head(scratch, key),
                ClientPhase::Body(_) => self.read_body(scratch, key),
                ClientPhase::Flushing(then) => client.unsent.is_empty() && self.finish_response(key, then),
                ClientPhase::Lingering => self.read_away(scratch, key),
                ClientPhase::Queued(_) | ClientPhase::Serving(_) => false,
            };
            if !go_on {
                return;
            }
        }
        self.turn_again_client(key);
    }

    fn read_head(&mut self, scratch: &mut [u8], key: Key) -> Continue {
        let buffer_size = self.limits.buffer_size;
        let Some(mut client) = self.clients.get_mut(key) else { return false };
        if client.expects_proxy_header {
            if !self.pass_proxy(key) {
                return false;
            }
            let Some(passed) = self.clients.get_mut(key) else { return false };
            client = passed;
        }
        if client.input.len() > client.seen {
            let mut input = mem::take(&mut client.input);
            return self.take_head(key, &mut input);
        }
        let buffer = scratch.len().min(HEAD_READ);
        if client.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            return self.shake_hands(scratch, key);
        }
        match client.receive(&mut scratch[..buffer]) {
            Received::Bytes(count) if client.input.is_empty() => self.take_head(key, &mut scratch[..count]),
            Received::Bytes(count) => {
                client.input.extend_from_slice(&scratch[..count]);
                if client.input.len() <= buffer_size && !http::may_be_complete(&client.input, client.seen) {
                    client.seen = client.input.len();
                }
                true
            }
            Received::Nothing => client.tls.is_some() && self.at_rest(key),
            Received::End => self.at_end(key),
        }
    }

    /// A client of TLS has nothing more for now. What its handshake has to say may wait for it.
    fn at_rest(&mut self, key: Key) -> Continue {
        self.arm_client(key);
        false
    }

    /// Goes on with the handshake of TLS, which may bring the first request with its end. Its time is taken from what all
    /// bulk bytes have, so that many clients that connect at once do not keep the others waiting.
    fn shake_hands(&mut self, scratch: &mut [u8], key: Key) -> Continue {
        let Some(before) = self.handshake_turn(key) else { return false };
        let Some(client) = self.clients.get_mut(key) else { return false };
        let buffer = scratch.len().min(HEAD_READ);
        let received = client.receive(&mut scratch[..buffer]);
        self.bulk.use_since(0, before);
        match received {
            Received::Bytes(count) => self.take_head(key, &mut scratch[..count]),
            Received::Nothing => self.at_rest(key),
            Received::End => self.at_end(key),
        }
    }

    /// Takes a head from the beginning of `bytes`, which are all that there is of the client's input.
    fn take_head(&mut self, key: Key, bytes: &mut [u8]) -> Continue {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let (second, now) = (self.second(), self.now);
        let parsed = http::parse(bytes, &mut headers, self.limits.buffer_size);
        let parsed = parsed.and_then(|head| {
            head.iter().try_for_each(|head| path::check(self.limits.path_normalize, head.target))?;
            Ok(head)
        });
        let late = self.in_seconds(self.limits.timeout);
        let Some(mut client) = self.clients.get_mut(key) else { return false };
        let head = match parsed {
            Ok(Some(head)) => head,
            Ok(None) => {
                client.input = bytes.to_vec();
                client.seen = bytes.len();
                if !matches!(client.phase, ClientPhase::Head) {
                    // For the whole head, however slowly it drips.
                    client.phase = ClientPhase::Head;
                    client.deadline = late;
                }
                return true;
            }
            Err(refusal) => {
                self.refuse(key, refusal, bytes);
                return true;
            }
        };
        if client.is_served_by_host {
            if let Some(goes_on) = self.meet_host(key, &head) {
                return goes_on;
            }
            let Some(met) = self.clients.get_mut(key) else { return false };
            client = met;
        }
        let (head_bytes, rest) = bytes.split_at(head.len);
        client.seen = 0;
        let awaits_continue = head.expect_continue && rest.is_empty();
        let intake = match head.body {
            BodyLength::None | BodyLength::Length(0) => {
                client.input = rest.to_vec();
                self.dispatch(key, head_bytes, StoredBody::Empty, self.now);
                return true;
            }
            BodyLength::Length(length) => BodyIntake::of_length(length, self.limits.body, Vec::new(), &self.temp),
            BodyLength::Chunked => Ok(BodyIntake::of_chunks(self.limits.body)),
        };
        let intake = match intake {
            Ok(intake) => intake,
            Err(failure) => return self.refuse_body(key, &failure, head_bytes),
        };
        client.phase = ClientPhase::Body(Box::new(Gathering { head: head_bytes.to_vec(), since: now, intake }));
        client.pace = Pace::of_body(self.limits.rates(client.is_direct), second, 0);
        client.deadline = late.min(client.pace.until());
        if awaits_continue {
            if client.send(&[http::CONTINUE], &self.temp).is_err() {
                self.close_client(key);
                return false;
            }
            self.arm_client(key);
        }
        let head_len = head_bytes.len();
        if bytes.len() == head_len { true } else { self.take_body(key, &mut bytes[head_len..]) }
    }

    fn read_body(&mut self, scratch: &mut [u8], key: Key) -> Continue {
        if !self.has_turn(key) {
            return false;
        }
        let before = MonotonicNanos::now();
        let late = self.in_seconds(self.limits.timeout);
        let Some(client) = self.clients.get_mut(key) else { return false };
        let ClientPhase::Body(gathering) = &client.phase else { return true };
        let intake = &gathering.intake;
        // What is encrypted is not received to where it stays.
        let in_place = intake.is_in_place() && client.tls.is_none();
        let received = if in_place {
            match client.receive_body() {
                Ok(received) => received,
                Err(failure) => return self.refuse_body(key, &failure, &[]),
            }
        } else {
            // A body of known length is read up to its end and not beyond, the next request being left where it is.
            let left = intake.left().and_then(|left| usize::try_from(left).ok());
            let buffer = left.map_or(scratch.len(), |left| left.min(scratch.len()));
            client.receive(&mut scratch[..buffer])
        };
        match received {
            Received::Bytes(count) => {
                client.deadline = late.min(client.pace.until());
                let goes_on =
                    if in_place { self.dispatch_whole(key) } else { self.take_body(key, &mut scratch[..count]) };
                self.bulk.use_since(count, before);
                goes_on
            }
            Received::Nothing => client.tls.is_some() && self.at_rest(key),
            Received::End => self.at_end(key),
        }
    }

    /// Takes the next bytes of the body, and dispatches the request when it is whole.
    fn take_body(&mut self, key: Key, bytes: &mut [u8]) -> Continue {
        let Some(client) = self.clients.get_mut(key) else { return false };
        let ClientPhase::Body(gathering) = &mut client.phase else { return true };
        let intake = &mut gathering.intake;
        let (used, is_whole) = match intake.take(bytes, &self.temp) {
            Ok(taken) => taken,
            Err(failure) => return self.refuse_body(key, &failure, &[]),
        };
        if !is_whole {
            return true;
        }
        self.dispatch_gathered(key, &bytes[used..])
    }

    /// Dispatches the request if its body is whole, which was received in place.
    fn dispatch_whole(&mut self, key: Key) -> Continue {
        match self.clients.get_mut(key).map(|client| &client.phase) {
            Some(ClientPhase::Body(gathering)) if gathering.intake.is_whole() => self.dispatch_gathered(key, &[]),
            _ => true,
        }
    }

    /// Dispatches a request whose body is whole; `rest` is what follows it.
    fn dispatch_gathered(&mut self, key: Key, rest: &[u8]) -> Continue {
        let Some(client) = self.clients.get_mut(key) else { return false };
        if let ClientPhase::Body(gathering) = mem::replace(&mut client.phase, ClientPhase::Idle) {
            let Gathering { head, since, intake } = *gathering;
            let (body, behind) = intake.finish();
            client.input = if rest.is_empty() { behind } else { rest.to_vec() };
            self.dispatch(key, &head, body, since);
        }
        true
    }

    /// Whether there may be something to read, and bulk bytes are left for it. If only those are missing, the client waits
    /// for the next turn.
    fn has_turn(&mut self, key: Key) -> bool {
        let is_readable = self.clients.get_mut(key).is_some_and(|client| client.readable);
        if is_readable && self.bulk.is_used_up() {
            self.turn_again_client(key);
            return false;
        }
        is_readable
    }

    /// Reads and discards.
    fn read_away(&mut self, scratch: &mut [u8], key: Key) -> Continue {
        if !self.has_turn(key) {
            return false;
        }
        let Some(client) = self.clients.get_mut(key) else { return false };
        // What is decrypted costs more than its bytes say.
        let before = client.tls.is_some().then(MonotonicNanos::now);
        match client.receive(scratch) {
            Received::Bytes(count) => {
                match before {
                    Some(before) => self.bulk.use_since(count, before),
                    None => self.bulk.use_bytes(count),
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

    /// A body cannot be gathered. `head` as for [`refuse`](Self::refuse).
    fn refuse_body(&mut self, key: Key, failure: &IntakeError, head: &[u8]) -> Continue {
        self.refuse(key, failure.refusal(), head);
        true
    }

    /// Answers instead of the application, and closes. `head` is what has come of the request, unless the client's
    /// phase holds it.
    pub(super) fn refuse(&mut self, key: Key, refusal: Refusal, head: &[u8]) {
        let late = self.in_seconds(self.limits.timeout);
        let Some(client) = self.clients.get_mut(key) else { return };
        if log_limit::allows(LineKind::Refused(refusal.status)) {
            warn!("{} refused: {refusal}", client_of(&client.peer));
        }
        let head_only = match &client.phase {
            ClientPhase::Body(gathering) => http::is_head(&gathering.head),
            ClientPhase::Queued(request) => http::is_head(&request.head),
            _ => http::is_head(head),
        };
        let mut response = Vec::new();
        http::refusal_response(&refusal, head_only, &mut response);
        client.input = Vec::new();
        client.phase = ClientPhase::Flushing(Then::Linger);
        client.deadline = late;
        if client.send(&[&response], &self.temp).is_err() {
            self.close_client(key);
        } else {
            self.arm_client(key);
        }
    }

    /// The response is sent: what comes now.
    fn finish_response(&mut self, key: Key, then: Then) -> Continue {
        let keepalive = self.in_seconds(self.limits.keepalive);
        let linger = self.in_seconds(LINGER.as_secs() as u32);
        let stopping = self.stopping;
        let goes_on = then == Then::NextRequest && !stopping;
        if !goes_on && !self.has_said_goodbye(key) {
            return false;
        }
        let Some(client) = self.clients.get_mut(key) else { return false };
        match then {
            Then::NextRequest if goes_on => {
                client.phase = ClientPhase::Idle;
                client.deadline = keepalive;
                true
            }
            // What the client sent beyond the request would make closing destroy the response on its way.
            _ if then == Then::Linger || client.readable || !client.input.is_empty() => {
                client.input = Vec::new();
                client.phase = ClientPhase::Lingering;
                client.deadline = linger;
                shut_sending(&client.fd);
                true
            }
            _ => {
                self.close_client(key);
                false
            }
        }
    }
}
