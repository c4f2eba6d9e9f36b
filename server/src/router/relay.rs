//! From a thread's responses to the clients. What is read of a link at once may be the ends and beginnings of several.

use std::mem;
use std::sync::Arc;

use tracing::warn;

use super::client::ClientPhase;
use super::dispatch::{Begun, Keep, UNWANTED};
use super::keyed::Key;
use super::link::{Link, Wanted};
use super::stall::go_on;
use super::state::Router;
use crate::clock::MonotonicNanos;
use crate::io::close::Then;
use crate::io::receive::Received;
use crate::io::segment::{SLOTS, Segment};
use crate::log_text::Foreign;
use rwsgi_protocol::http::WORKER_LOST;
use rwsgi_protocol::link::{AHEAD_MAX, Frame};

/// Reads of one link before others get their turn.
const TURNS: usize = 8;
/// Bytes of a response without a client that are discarded before the link is closed.
const DROPPED_MAX: usize = 1024 * 1024;
/// Pieces of a response that are sent with one call.
const SLICES: usize = 32;

/// What came of reading a link once.
#[derive(Debug)]
enum Relayed {
    /// There may be more.
    More,
    /// There is no more for now, or its client has more than enough waiting.
    Nothing,
    /// The worker closed the link.
    Lost,
    /// The worker sent what it must not.
    Nonsense(&'static str),
}

/// Pieces for one client, until they are sent with one call.
struct Pieces<'a> {
    slices: [&'a [u8]; SLICES],
    used: usize,
    /// The lane's memory, where the link has a lane.
    segment: Option<&'a Segment>,
    /// Its slots among the pieces: the thread may fill them again when these are sent.
    slots: [usize; SLOTS],
    used_slots: usize,
}

impl<'a> Pieces<'a> {
    fn new(segment: Option<&'a Segment>) -> Self {
        Self { slices: [&[]; SLICES], used: 0, segment, slots: [0; SLOTS], used_slots: 0 }
    }

    fn push(&mut self, data: &'a [u8]) {
        self.slices[self.used] = data;
        self.used += 1;
    }

    fn is_full(&self) -> bool {
        self.used == SLICES
    }

    /// They are sent, or nobody wants them any more.
    fn clear(&mut self) {
        self.used = 0;
        let slots = mem::take(&mut self.used_slots);
        if let Some(segment) = self.segment {
            self.slots[..slots].iter().for_each(|slot| segment.empty(*slot));
        }
    }
}

impl Router<'_> {
    /// Reads what a thread has to say, as long as its client takes it.
    pub(super) fn pump(&mut self, scratch: &mut [u8], key: Key) {
        for _ in 0..TURNS {
            match self.relay(scratch, key) {
                Relayed::More
                    if self.bulk.is_used_up() && self.links.get_mut(key).is_some_and(|link| link.readable) =>
                {
                    break;
                }
                Relayed::More => {}
                Relayed::Nothing => return,
                Relayed::Lost => return self.lose(scratch, key),
                Relayed::Nonsense(what) => {
                    if let Some(link) = self.links.get_mut(key) {
                        warn!("worker {} thread {} sent {what}; its link is closed", link.worker, link.thread);
                    }
                    return self.lose(scratch, key);
                }
            }
        }
        self.turn_again_link(key);
    }

    /// Reads the link once and passes on what is for the clients.
    fn relay(&mut self, scratch: &mut [u8], key: Key) -> Relayed {
        let Some(link) = self.links.get_mut(key) else { return Relayed::Nothing };
        if let Some(Wanted::By(client)) = link.dispatched.front().map(|dispatched| dispatched.wanted)
            && let Some(client) = self.clients.get_mut(client)
            && !client.unsent.is_empty()
        {
            if client.unsent.is_full(&self.temp) {
                return Relayed::Nothing;
            }
            if self.bulk.is_used_up() && link.readable && client.unsent.spills() {
                self.turn_again_link(key);
                return Relayed::Nothing;
            }
        }
        let count = match link.receive(scratch) {
            Received::Bytes(count) => count,
            Received::Nothing => return Relayed::Nothing,
            Received::End => return Relayed::Lost,
        };
        self.bulk.use_bytes(count);
        let mut rest = &scratch[..count];
        let segment = link.lane.as_ref().map(|lane| Arc::clone(&lane.segment));
        let mut pieces = Pieces::new(segment.as_deref());
        // Slots that this read has told of: a thread fills none again before it is empty.
        let mut slots = 0;
        // Whose responses are complete: no more than were dispatched.
        let mut completed = [None; AHEAD_MAX];
        let mut count_completed = 0;
        let mut is_free = false;
        while !rest.is_empty() {
            let Some(link) = self.links.get_mut(key) else { return Relayed::Nothing };
            let Ok((consumed, frame)) = link.frames.decode(rest) else {
                return Relayed::Nonsense("a length that no frame has");
            };
            rest = &rest[consumed..];
            let streak = link.streak;
            let wanted = link.dispatched.front().map(|dispatched| dispatched.wanted);
            match (frame, wanted) {
                (Frame::More, _) => {}
                (Frame::Leaving, _) => {
                    link.leaving = true;
                    is_free = true;
                }
                _ if link.emptying => return Relayed::Nonsense("a response to no request"),
                (Frame::Data(data), Some(Wanted::By(client))) => {
                    link.begin_answer();
                    pieces.push(data);
                    // Not when the next piece comes: this may be the end of the client, and nothing of it may be left
                    // for the next one.
                    if pieces.is_full() {
                        self.pass_on(client, &mut pieces);
                    }
                }
                (Frame::Data(data), Some(Wanted::Nobody)) => link.dropped += data.len(),
                (Frame::InSlot { slot, len }, Some(wanted @ (Wanted::By(_) | Wanted::Nobody))) => {
                    let Some(segment) = pieces.segment else { return Relayed::Nonsense("a slot of no memory") };
                    slots += 1;
                    let is_new = slots <= SLOTS && !pieces.slots[..pieces.used_slots].contains(&slot);
                    let Some(data) = segment.filled(slot, len).filter(|_| is_new) else {
                        return Relayed::Nonsense("a slot that is not full");
                    };
                    if let Wanted::By(client) = wanted {
                        link.begin_answer();
                        self.bulk.use_bytes(len);
                        pieces.push(data);
                        pieces.slots[pieces.used_slots] = slot;
                        pieces.used_slots += 1;
                        if pieces.is_full() {
                            self.pass_on(client, &mut pieces);
                        }
                    } else {
                        link.dropped += len;
                        segment.empty(slot);
                    }
                }
                (Frame::File, Some(wanted @ (Wanted::By(_) | Wanted::Nobody))) => {
                    let mut client = None;
                    if let Wanted::By(key) = wanted {
                        link.begin_answer();
                        self.pass_on(key, &mut pieces);
                        client = Some(key);
                    }
                    if !self.pass_on_file(key, client) {
                        return Relayed::Nonsense("a file that cannot be sent");
                    }
                }
                (Frame::Done { keep, fast }, Some(wanted @ (Wanted::By(_) | Wanted::Nobody | Wanted::Elsewhere))) => {
                    if let Wanted::By(client) = wanted {
                        self.pass_on(client, &mut pieces);
                        self.complete(client, keep);
                        completed[count_completed] = Some(client);
                        count_completed += 1;
                    }
                    self.next(key, if fast { streak + 1 } else { 0 });
                    is_free = true;
                }
                (Frame::Aborted, Some(wanted @ (Wanted::By(_) | Wanted::Nobody | Wanted::Elsewhere))) => {
                    if let Wanted::By(client) = wanted {
                        // They were sent before it broke off, and may have come together.
                        self.pass_on(client, &mut pieces);
                        self.reset_client(client);
                    }
                    self.next(key, 0);
                    is_free = true;
                }
                (Frame::Skipped, Some(Wanted::Cancelled)) => {
                    self.next(key, streak);
                    is_free = true;
                }
                _ => return Relayed::Nonsense("a response to no request"),
            }
        }
        if let Some(Wanted::By(client)) = self.links.get_mut(key).and_then(|link| Some(link.dispatched.front()?.wanted))
        {
            self.pass_on(client, &mut pieces);
        }
        pieces.clear();
        if is_free {
            self.release(key);
        }
        for client in completed.into_iter().flatten() {
            self.advance(scratch, client);
        }
        if self.is_waste(key) {
            self.take_back(key, Keep::Nothing);
            // A thread that has begun with the next request has written all of this one.
            if self.links.get_mut(key).is_some_and(|link| !link.is_wanted()) {
                self.drop_link(key);
                return Relayed::Nothing;
            }
            self.dispatch_queue();
        }
        Relayed::More
    }

    /// Sends a client what was collected for it. One that cannot be written to is closed.
    fn pass_on(&mut self, key: Key, pieces: &mut Pieces<'_>) {
        let slices = &pieces.slices[..pieces.used];
        if slices.is_empty() {
            return;
        }
        if let Some(client) = self.clients.get_mut(key) {
            if client.unsent.spills() {
                self.pass_on_to_file(key, slices);
            } else if client.send(slices, &self.temp).is_err() {
                self.close_client(key);
            } else {
                self.arm_client(key);
            }
        }
        pieces.clear();
    }

    /// The same for a client that is slow: its pieces go to a file.
    #[cold]
    fn pass_on_to_file(&mut self, key: Key, pieces: &[&[u8]]) {
        let before = MonotonicNanos::now();
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.send(pieces, &self.temp).is_err() {
            return self.close_client(key);
        }
        self.arm_client(key);
        self.bulk.use_since(0, before);
    }

    /// A client's response breaks off: it must not take what it has for the whole.
    fn reset_client(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.reset_on_close();
        client.phase = ClientPhase::Flushing(Then::Close);
        self.close_client(key);
    }

    /// A client's response is complete.
    fn complete(&mut self, key: Key, keep: bool) {
        let late = self.in_seconds(self.limits.timeout);
        let keep = keep && self.limits.keepalive > 0;
        if let Some(client) = self.clients.get_mut(key) {
            client.phase = ClientPhase::Flushing(if keep { Then::NextRequest } else { Then::Close });
            client.deadline = if client.unsent.is_empty() { 0 } else { late.min(client.pace.until()) };
        }
    }

    /// The thread is done with the first of what it was dispatched.
    fn next(&mut self, key: Key, streak: usize) {
        let patience = self.in_seconds(UNWANTED);
        let now = self.now;
        let Some(link) = self.links.get_mut(key) else { return };
        link.streak = streak.min(AHEAD_MAX);
        go_on(self.board, &mut self.threads, link);
        if !link.is_sent() && link.dispatched.len() == 1 {
            // The worker answered without the whole request; it takes the rest of it before the next.
            link.emptying = true;
            if let Some(answered) = link.dispatched.front_mut() {
                answered.wanted = Wanted::Nobody;
            }
            return;
        }
        link.pop(now);
        let Some(first) = link.dispatched.front() else { return };
        let check = now.after_nanos(self.limits.not_begun);
        self.check_begun.get_or_insert(check);
        if first.wanted == Wanted::Nobody {
            link.deadline = patience;
        }
        if first.wanted != Wanted::Cancelled {
            self.ahead -= 1;
            let since = first.arrival.since;
            self.record_wait(since);
        }
    }

    /// Whether a worker goes on and on with a response that nobody wants. It is stopped by closing the link, which
    /// costs it a new one; a response that just came too late is better dropped.
    fn is_waste(&mut self, key: Key) -> bool {
        let second = self.second();
        self.links.get_mut(key).is_some_and(|link| {
            link.dispatched.front().is_some_and(|dispatched| dispatched.wanted == Wanted::Nobody)
                && !link.emptying
                && (link.dropped > DROPPED_MAX || second >= link.deadline)
        })
    }

    /// The link can be written to again.
    pub(super) fn send_more(&mut self, scratch: &mut [u8], key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        match link.send() {
            Ok(false) => self.emptied(key),
            Ok(true) => self.turn_again_link(key),
            Err(_) => {
                // Reading says what has become of it; it may have answered before.
                link.readable = true;
                self.pump(scratch, key);
            }
        }
        self.arm_link(key);
    }

    /// A thread that answered before it had the whole request is free when it has it.
    pub(super) fn emptied(&mut self, key: Key) {
        if let Some(link) = self.links.get_mut(key)
            && link.emptying
            && link.is_sent()
        {
            link.pop(self.now);
            self.release(key);
        }
    }

    /// The link's worker is known to be gone, before its end was read: what it said until then counts.
    pub(super) fn read_rest(&mut self, scratch: &mut [u8], key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.leaving = true;
        link.readable = true;
        link.ended = true;
        // More than a socket holds.
        for _ in 0..TURNS {
            if !matches!(self.relay(scratch, key), Relayed::More) {
                break;
            }
        }
        self.lose(scratch, key);
    }

    /// The link is gone, and with it the request that its thread may have had.
    pub(super) fn lose(&mut self, scratch: &mut [u8], link_key: Key) {
        let Some(mut link) = self.links.remove(link_key) else { return };
        if link.slot.is_none() {
            return;
        }
        go_on(self.board, &mut self.threads, &mut link);
        self.threads.remove(link.pid, link_key);
        for begun in self.lose_dispatched(&mut link) {
            self.answer_for(scratch, &link, &begun);
        }
        self.dispatch_queue();
    }

    /// Answers a client whose worker is gone.
    fn answer_for(&mut self, scratch: &mut [u8], link: &Link, begun: &Begun) {
        let Begun { client: key, index, answered } = *begun;
        let line = link.head(index).split(|&byte| byte == b'\r').find(|line| !line.is_empty()).unwrap_or_default();
        let line = Foreign(line.trim_ascii()).to_string();
        let (worker, thread) = (link.worker, link.thread);
        // What follows the target is the protocol, which a query would hide.
        let request = line.rsplit_once(' ').map_or(line.as_str(), |(request, _protocol)| request);
        warn!("worker {worker} thread {thread} was lost while it held '{}'", self.limits.show_request.target(request));
        if answered {
            self.reset_client(key);
        } else {
            self.refuse(key, WORKER_LOST, link.head(index));
            self.advance(scratch, key);
        }
    }
}
