//! From a whole request to a core, and from the core's response to the client. The queue between them.

use std::io::IoSlice;

use tracing::warn;

use super::body::Body;
use super::client::{self, Phase, Request, Then};
use super::link::{self, Received};
use super::output::MEMORY_MAX;
use super::slots::Key;
use super::{Router, UNWANTED};
use crate::protocol::http::{OVERLOADED, WORKER_LOST};
use crate::protocol::link::{LinkError, Step};
use crate::stats::clock;

/// Reads of one link before others get their turn.
const TURNS: usize = 8;
/// Pieces of a response that are sent with one call.
const SLICES: usize = 32;

/// What came of reading a link once.
#[derive(Debug)]
enum Relayed {
    /// There may be more.
    More,
    /// There is no more for now.
    Nothing,
    /// The client has more than enough waiting.
    Held,
    /// The response is complete.
    Done { keep: bool },
    /// The client cannot be written to.
    ClientGone,
    /// The worker closed the link.
    Lost { unread: bool },
    /// The worker sent what it must not.
    Nonsense(&'static str),
}

impl From<LinkError> for Relayed {
    fn from(_: LinkError) -> Self {
        Self::Nonsense("a length that no frame has")
    }
}

impl Router<'_> {
    /// Gives a whole request to a free core, or lets it wait for one.
    pub(super) fn dispatch(&mut self, key: Key, head: &[u8], body: Body) {
        let Some(body) = self.give(key, head, body) else {
            self.cell.waiting.record(0);
            return;
        };
        if self.queue.len() >= self.limits.queue {
            self.cell.reject();
            self.refuse(key, OVERLOADED);
            return;
        }
        self.wait(key, head, body);
        self.queue.push_back(key);
        self.cell.set_depth(self.queue.len());
    }

    /// The same for a request that was dispatched before and never begun: it does not wait again behind others.
    fn dispatch_again(&mut self, key: Key, head: &[u8], body: Body) {
        if let Some(body) = self.give(key, head, body) {
            self.wait(key, head, body);
            self.queue.push_front(key);
            self.cell.set_depth(self.queue.len());
        }
    }

    fn wait(&mut self, key: Key, head: &[u8], body: Body) {
        if let Some(client) = self.clients.get_mut(key) {
            client.phase = Phase::Queued(Box::new(Request { head: head.to_vec(), body, since: self.now }));
            client.deadline = 0;
        }
    }

    /// Sends a request to a free core. Gives the body back when there is none.
    fn give(&mut self, key: Key, head: &[u8], mut body: Body) -> Option<Body> {
        // A client that is gone has no request any more.
        self.clients.get_mut(key)?;
        while let Some(link) = self.cores.take() {
            match self.send(link, key, head, body) {
                Some(returned) => body = returned,
                None => return None,
            }
        }
        Some(body)
    }

    /// Sends a request to the core at `link`. Gives the body back when that core turns out to be gone.
    fn send(&mut self, link_key: Key, key: Key, head: &[u8], body: Body) -> Option<Body> {
        let (Some(link), Some(client)) = (self.links.get_mut(link_key), self.clients.get_mut(key)) else {
            return Some(body);
        };
        link.load(key, &client.peer, head, body);
        if let Err(error) = link.send() {
            let (worker, core) = (link.worker, link.core);
            let returned = link.untouched(false);
            if returned.is_some() {
                // Not the request's fault, and nobody's loss.
                tracing::debug!("worker {worker} core {core} is gone: {error}");
                self.drop_link(link_key);
                return returned;
            }
        }
        client.phase = Phase::Serving(link_key);
        client.deadline = 0;
        self.arm_link(link_key);
        None
    }

    /// A core is free: the next request that waits is its own.
    pub(super) fn release(&mut self, link_key: Key) {
        loop {
            let Some(link) = self.links.get_mut(link_key) else { return };
            if link.leaving {
                self.drop_link(link_key);
                return;
            }
            let Some(key) = self.queue.pop_front() else {
                let pid = link.pid;
                self.cores.release(pid, link_key);
                return;
            };
            self.cell.set_depth(self.queue.len());
            let Some(client) = self.clients.get_mut(key) else { continue };
            let Phase::Queued(request) = std::mem::replace(&mut client.phase, Phase::Idle) else { continue };
            let Request { head, body, since } = *request;
            match self.send(link_key, key, &head, body) {
                None => {
                    self.cell.waiting.record(clock::monotonic().saturating_sub(since) / 1_000);
                    return;
                }
                Some(body) => self.dispatch_again(key, &head, body),
            }
        }
    }

    /// Reads what a core has to say, as long as its client takes it.
    pub(super) fn pump(&mut self, scratch: &mut [u8], key: Key) {
        for _ in 0..TURNS {
            match self.relay(scratch, key) {
                Relayed::More => {}
                Relayed::Nothing | Relayed::Held => return,
                Relayed::Done { keep } => self.finish(scratch, key, keep),
                Relayed::ClientGone => {
                    if let Some(link::Phase::Busy(client)) = self.links.get_mut(key).map(|link| link.phase) {
                        self.close_client(client);
                    }
                }
                Relayed::Lost { unread } => return self.lose(scratch, key, unread),
                Relayed::Nonsense(what) => {
                    if let Some(link) = self.links.get_mut(key) {
                        warn!("worker {} core {} sent {what}; its link is closed", link.worker, link.core);
                    }
                    return self.lose(scratch, key, false);
                }
            }
        }
        self.turn_again_link(key);
    }

    /// Reads the link once and passes on what is for the client.
    fn relay(&mut self, scratch: &mut [u8], key: Key) -> Relayed {
        let Some(link) = self.links.get_mut(key) else { return Relayed::Nothing };
        let client_key = match link.phase {
            link::Phase::Busy(client) => Some(client),
            _ => None,
        };
        let awaited = matches!(link.phase, link::Phase::Busy(_) | link::Phase::Unwanted);
        let mut client = client_key.and_then(|key| self.clients.get_mut(key));
        if client.as_ref().is_some_and(|client| client.output.is_full()) {
            return Relayed::Held;
        }
        let count = match link.receive(scratch) {
            Received::Bytes(count) => count,
            Received::Nothing => return Relayed::Nothing,
            Received::End { unread } => return Relayed::Lost { unread },
        };
        let mut rest = &scratch[..count];
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        let mut done = None;
        let mut gone = false;
        while !rest.is_empty() {
            let (consumed, step) = match link.frames.decode(rest) {
                Ok(decoded) => decoded,
                Err(error) => return error.into(),
            };
            rest = &rest[consumed..];
            match (step, &mut client) {
                (Step::Data(data), Some(client)) if done.is_none() => {
                    if used == SLICES {
                        gone |= client.send(&slices).is_err();
                        used = 0;
                    }
                    slices[used] = IoSlice::new(data);
                    used += 1;
                    link.answered = true;
                }
                (Step::Data(data), None) if awaited && done.is_none() => link.dropped += data.len(),
                (Step::Done { keep }, _) if awaited && done.is_none() => done = Some(keep),
                (Step::Data(_) | Step::Done { .. }, _) => return Relayed::Nonsense("a response to no request"),
                (Step::Leaving, _) => link.leaving = true,
                (Step::More, _) => {}
            }
        }
        if let (Some(client), true) = (client, used > 0) {
            gone |= client.send(&slices[..used]).is_err();
        }
        if let Some(client_key) = client_key {
            self.arm_client(client_key);
        }
        match done {
            Some(keep) => Relayed::Done { keep: keep && !gone },
            None if gone => Relayed::ClientGone,
            None if self.is_waste(key) => {
                self.drop_link(key);
                Relayed::Nothing
            }
            None if client_key.is_none() && self.links.get_mut(key).is_some_and(|link| link.leaving) => {
                self.retire(key);
                Relayed::Nothing
            }
            None => Relayed::More,
        }
    }

    /// Whether a worker goes on and on with a response that nobody wants. It is stopped by closing the link, which costs
    /// it a new one; a response that just came too late is better dropped.
    fn is_waste(&mut self, key: Key) -> bool {
        let second = self.second();
        self.links.get_mut(key).is_some_and(|link| {
            link.phase == link::Phase::Unwanted && (link.dropped > MEMORY_MAX || second >= link.deadline)
        })
    }

    /// An idle worker's wish to leave is granted at once; one that still takes a request off the link, then.
    fn retire(&mut self, key: Key) {
        if self.links.get_mut(key).is_some_and(|link| link.phase == link::Phase::Idle) {
            self.drop_link(key);
        }
    }

    /// The response is complete.
    fn finish(&mut self, scratch: &mut [u8], link_key: Key, keep: bool) {
        let late = self.in_seconds(self.limits.timeout);
        let keep = keep && self.limits.keepalive > 0;
        let Some(link) = self.links.get_mut(link_key) else { return };
        let served = match link.phase {
            link::Phase::Busy(key) => Some(key),
            _ => None,
        };
        link.deadline = 0;
        if let Some(client) = served.and_then(|key| self.clients.get_mut(key)) {
            client.phase = Phase::Flushing(if keep { Then::NextRequest } else { Then::Close });
            client.deadline = if !client.output.is_empty() { late } else { 0 };
        }
        if link.is_sent() {
            link.phase = link::Phase::Idle;
            self.release(link_key);
        } else {
            // The worker answered without the whole request; it takes the rest of it before the next.
            link.phase = link::Phase::Emptying;
        }
        if let Some(key) = served {
            self.advance(scratch, key);
        }
    }

    /// The link can be written to again.
    pub(super) fn send_more(&mut self, scratch: &mut [u8], key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.send().is_err() {
            // Reading says what has become of it; it may have answered before.
            link.readable = true;
            self.pump(scratch, key);
        } else if link.phase == link::Phase::Emptying && link.is_sent() {
            link.phase = link::Phase::Idle;
            self.release(key);
        }
        self.arm_link(key);
    }

    /// The link is gone, and with it the request that its core may have had.
    fn lose(&mut self, scratch: &mut [u8], link_key: Key, unread: bool) {
        let Some(mut link) = self.links.remove(link_key) else { return };
        if link.phase != link::Phase::Greeting {
            self.cores.remove(link.pid, link_key);
        }
        let link::Phase::Busy(key) = link.phase else { return };
        let Some(client) = self.clients.get_mut(key) else { return };
        let again = link.untouched(unread).filter(|_| !std::mem::replace(&mut client.retried, true));
        if let Some(body) = again {
            self.dispatch_again(key, link.head(), body);
            return;
        }
        let line = link.head().split(|&byte| byte == b'\r').find(|line| !line.is_empty()).unwrap_or_default();
        let (worker, core) = (link.worker, link.core);
        warn!("worker {worker} core {core} was lost while it held '{}'", String::from_utf8_lossy(line).trim());
        if link.answered {
            client.reset_on_close();
            client.phase = Phase::Flushing(Then::Close);
            self.close_client(key);
        } else {
            self.refuse(key, WORKER_LOST);
            self.advance(scratch, key);
        }
    }

    /// Closes a link.
    fn drop_link(&mut self, key: Key) {
        if let Some(link) = self.links.remove(key)
            && link.phase != link::Phase::Greeting
        {
            self.cores.remove(link.pid, key);
        }
    }

    /// Closes a client's connection. What it had goes with it: its place in the queue, or its claim to an answer.
    pub(super) fn close_client(&mut self, key: Key) {
        let Some(client) = self.clients.remove(key) else { return };
        match client.phase {
            client::Phase::Queued(_) => {
                self.queue.retain(|queued| *queued != key);
                self.cell.set_depth(self.queue.len());
            }
            client::Phase::Serving(link_key) => {
                let patience = self.in_seconds(UNWANTED);
                if let Some(link) = self.links.get_mut(link_key) {
                    link.phase = link::Phase::Unwanted;
                    link.deadline = patience;
                    link.dropped = 0;
                }
                // It may have waited for the client.
                self.turn_again_link(link_key);
            }
            _ => {}
        }
        self.cell.set_connections(self.clients.len());
    }
}
