//! From a whole request to a thread: the queue, and which requests are dispatched to which thread.
//!
//! A free thread gets the oldest request at once. When there is none free, requests are dispatched ahead to threads
//! that have been fast, behind what those are doing; all others wait in the queue. What was dispatched ahead is
//! cancelled when its thread turns out not to be fast, or when another thread has nothing to do.

use std::cmp::Reverse;

use super::client::{self, ClientPhase};
use super::keyed::{Key, Keyed};
use super::link::{Link, Wanted};
use super::request::{Arrival, Request};
use super::stall::go_on;
use super::state::Router;
use crate::clock::MonotonicNanos;
use crate::io::body::StoredBody;
use rwsgi_protocol::http::{OVERLOADED, SERVER_GONE};
use rwsgi_protocol::link::AHEAD_MAX;

/// Seconds for which a worker may go on answering a client that is gone.
pub(super) const UNWANTED: u32 = 1;

/// A request that a thread had begun with when its link was lost.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) client: Key,
    /// Its place among the link's dispatched requests.
    pub(super) index: usize,
    /// A byte of the response has come.
    pub(super) answered: bool,
}

/// What a thread keeps of its dispatched requests when they are cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// The next that it would begin with: if that were cancelled too, requests would only move from thread to thread on
    /// an overloaded machine.
    First,
    Nothing,
    /// Nothing, not even a body that is half sent: the link is to be closed.
    NoLink,
}

impl Router<'_> {
    /// Gives a whole request, whose head was there at `head_since`, to a thread, or lets it wait for one.
    pub(super) fn dispatch(&mut self, key: Key, head: &[u8], body: StoredBody, head_since: MonotonicNanos) {
        let gathered = u32::try_from(self.now.nanos_since(head_since) / 1_000).unwrap_or(u32::MAX);
        let arrival = Arrival { since: self.now, gathered };
        if self.clients.get_mut(key).is_none() {
            return;
        }
        if let Some(link) = self.threads.take() {
            self.cell.waiting.record(0);
            return self.dispatch_to(link, key, head, body, arrival);
        }
        // Nothing overtakes the queue.
        if self.queue.is_empty()
            && Link::can_follow(&body)
            && let Some(link) = self.fast_link()
        {
            return self.dispatch_to(link, key, head, body, arrival);
        }
        if self.queue.len() + self.ahead >= self.limits.queue {
            self.cell.reject();
            return self.refuse(key, OVERLOADED, head);
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.phase = ClientPhase::Queued(Box::new(Request { head: head.to_vec(), body, arrival }));
            client.deadline = 0;
            self.queue.push_back(key);
        }
    }

    /// The fast thread with the fewest requests before it.
    fn fast_link(&self) -> Option<Key> {
        let is_fast = |link: &Link| self.now.nanos_since(link.begun) <= self.limits.overdue;
        let space = self.links.iter().filter(|(_, link)| link.slot.is_some() && link.has_space() && is_fast(link));
        space.min_by_key(|(_, link)| link.dispatched.len()).map(|(key, _)| key)
    }

    /// Puts a request on a link. It is sent at once when the thread has nothing else to do, or when the link is full,
    /// and with all others at the end of the loop's turn otherwise.
    fn dispatch_to(&mut self, link_key: Key, key: Key, head: &[u8], body: StoredBody, arrival: Arrival) {
        let (Some(link), Some(client)) = (self.links.get_mut(link_key), self.clients.get_mut(key)) else { return };
        let Some(slot) = link.slot else { return };
        let is_first = link.dispatched.is_empty();
        if is_first {
            link.begun = self.now;
        } else {
            self.ahead += 1;
        }
        // Also behind others: all of them may have been cancelled.
        self.check_begun.get_or_insert(self.now.after_nanos(self.limits.not_begun));
        link.dispatch(self.board.dispatched(slot, link.thread), key, &client.peer, head, body, arrival);
        client.phase = ClientPhase::Serving(link_key);
        client.deadline = 0;
        if is_first || link.dispatched.len() == AHEAD_MAX {
            self.send_dispatched(link_key);
        } else {
            self.unsent_links.push(link_key);
        }
    }

    /// Sends what was put on a link.
    fn send_dispatched(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        match link.send() {
            Ok(false) => self.emptied(key),
            Ok(true) => self.turn_again_link(key),
            Err(_) => {
                // Reading says what has become of it; it may have answered before.
                link.readable = true;
                self.turn_again_link(key);
            }
        }
        self.arm_link(key);
    }

    /// Sends what was put on links during this turn of the loop.
    pub(super) fn send_all_dispatched(&mut self) {
        while let Some(key) = self.unsent_links.pop() {
            self.send_dispatched(key);
        }
    }

    /// A thread has space: the requests that wait longest are its own.
    pub(super) fn release(&mut self, link_key: Key) {
        loop {
            let Some(link) = self.links.get_mut(link_key) else { return };
            let is_idle = link.dispatched.is_empty();
            if link.leaving {
                self.retire(link_key);
                return;
            }
            let Some(&key) = self.queue.front() else {
                if !is_idle {
                    return;
                }
                if self.take_from_others(link_key) {
                    continue;
                }
                if let Some(link) = self.links.get_mut(link_key) {
                    let pid = link.pid;
                    self.threads.release(pid, link_key);
                }
                return;
            };
            let has_space = link.has_space();
            let Some(client) = self.clients.get_mut(key) else {
                self.queue.pop_front();
                continue;
            };
            let ClientPhase::Queued(request) = &mut client.phase else {
                self.queue.pop_front();
                continue;
            };
            if !(is_idle || has_space && Link::can_follow(&request.body)) {
                return;
            }
            let head = std::mem::take(&mut request.head);
            let body = std::mem::replace(&mut request.body, StoredBody::Empty);
            let arrival = request.arrival;
            self.queue.pop_front();
            if is_idle {
                self.record_wait(arrival.since);
            }
            self.dispatch_to(link_key, key, &head, body, arrival);
        }
    }

    /// A request that came at `since` is with its thread now.
    pub(super) fn record_wait(&self, since: MonotonicNanos) {
        self.cell.waiting.record(MonotonicNanos::now().nanos_since(since) / 1_000);
    }

    /// A thread has nothing to do: the requests that wait behind the longest row of others can go to any thread again.
    fn take_from_others(&mut self, idle: Key) -> bool {
        if self.ahead == 0 {
            return false;
        }
        let others = self.links.iter().filter(|(key, link)| *key != idle && link.waiting() > 0);
        let mut others: Vec<_> = others.map(|(key, link)| (link.waiting(), key)).collect();
        others.sort_by_key(|(waiting, _)| Reverse(*waiting));
        // Of the longest, the thread may have begun with all by now.
        others.into_iter().any(|(_, key)| {
            self.take_back(key, Keep::First);
            !self.queue.is_empty()
        })
    }

    /// What waits behind a request that takes long can go to any thread again.
    pub(super) fn take_back_overdue(&mut self) {
        if self.ahead == 0 {
            return;
        }
        let late = |link: &Link| link.dispatched.len() > 1 && self.now.nanos_since(link.begun) > self.limits.overdue;
        for key in self.links.keys(late) {
            self.take_back(key, Keep::First);
        }
        self.dispatch_queue();
    }

    /// Puts what a thread has not begun with at the head of the queue, in order.
    pub(super) fn take_back(&mut self, link_key: Key, keep: Keep) {
        let Some(link) = self.links.get_mut(link_key) else { return };
        let Some(slot) = link.slot else { return };
        let dispatched = self.board.dispatched(slot, link.thread);
        let first = match keep {
            Keep::First => link
                .dispatched
                .iter()
                .position(|dispatched| dispatched.wanted != Wanted::Cancelled)
                .map_or(0, |at| at + 1),
            Keep::Nothing | Keep::NoLink => 0,
        };
        for index in (first..link.dispatched.len()).rev() {
            let Some((key, request)) = link.cancel(dispatched, index, keep == Keep::NoLink) else { continue };
            if index > 0 {
                self.ahead -= 1;
            }
            requeue(&mut self.clients, &mut self.queue, key, request);
        }
    }

    /// Closes the link of a worker that leaves, once it has nothing to answer any more.
    pub(super) fn retire(&mut self, key: Key) {
        self.take_back(key, Keep::Nothing);
        if self.links.get_mut(key).is_some_and(|link| link.dispatched.is_empty()) {
            self.drop_link(key);
        }
        self.dispatch_queue();
    }

    /// Gives what is in the queue to threads that are free.
    pub(super) fn dispatch_queue(&mut self) {
        while !self.queue.is_empty()
            && let Some(link) = self.threads.take()
        {
            self.release(link);
        }
    }

    /// Answers who waits for a worker when there is none and none can come: the master, which starts them, is gone.
    #[cold]
    pub(super) fn refuse_abandoned(&mut self, scratch: &mut [u8]) {
        if self.queue.is_empty() || self.links.iter().any(|(_, link)| !link.leaving) {
            return;
        }
        for key in std::mem::take(&mut self.queue) {
            // One that went stays in the queue until its turn.
            let Some(client) = self.clients.get_mut(key) else { continue };
            let ClientPhase::Queued(request) = &mut client.phase else { continue };
            let head = std::mem::take(&mut request.head);
            self.refuse(key, SERVER_GONE, &head);
            self.advance(scratch, key);
        }
    }

    /// The link is gone. What its thread had not begun with is for others; returns what it had begun with, which is
    /// more than one request when what it had answered could not be read.
    pub(super) fn lose_dispatched(&mut self, link: &mut Link) -> Vec<Begun> {
        let mut begun = Vec::new();
        let Some(slot) = link.slot else { return begun };
        let dispatched = self.board.dispatched(slot, link.thread);
        self.ahead -= link.waiting();
        for index in (0..link.dispatched.len()).rev() {
            if let Some((key, request)) = link.cancel(dispatched, index, true) {
                requeue(&mut self.clients, &mut self.queue, key, request);
            } else if let Wanted::By(client) = link.dispatched[index].wanted {
                begun.push(Begun { client, index, answered: index == 0 && link.answered });
            }
        }
        begun
    }

    /// Closes a link on which nobody is answered any more.
    pub(super) fn drop_link(&mut self, key: Key) {
        if let Some(mut link) = self.links.remove(key)
            && link.slot.is_some()
        {
            go_on(self.board, &mut self.threads, &mut link);
            self.threads.remove(link.pid, key);
            self.lose_dispatched(&mut link);
            self.dispatch_queue();
        }
    }

    /// Closes a client's connection. What it had goes with it: its place in the queue, or its claim to an answer.
    pub(super) fn close_client(&mut self, key: Key) {
        let Some(mut client) = self.clients.remove(key) else { return };
        if client.tls.is_some() && matches!(client.phase, client::ClientPhase::Idle) {
            client.say_goodbye();
        }
        if client.write_armed {
            self.temp.count_slow_client(false);
        }
        match client.phase {
            client::ClientPhase::Queued(_) => self.queue.retain(|queued| *queued != key),
            client::ClientPhase::Serving(link_key) => {
                if !self.cancel_ahead(key, link_key)
                    && let patience = self.in_seconds(UNWANTED)
                    && let Some(link) = self.links.get_mut(link_key)
                    && let Some(index) = link.position(key)
                {
                    link.dispatched[index].wanted = Wanted::Nobody;
                    link.deadline = patience;
                }
                // It may have waited for the client.
                self.turn_again_link(link_key);
            }
            _ => {}
        }
        self.cell.set_connections(self.clients.len());
        self.client_closed();
    }

    /// Cancels a request that nobody waits for any more, unless its thread has begun it.
    pub(super) fn cancel_ahead(&mut self, key: Key, link_key: Key) -> bool {
        let Some(link) = self.links.get_mut(link_key) else { return false };
        let (Some(slot), Some(index)) = (link.slot, link.position(key)) else { return false };
        let cancelled = link.cancel_ahead(self.board.dispatched(slot, link.thread), index);
        if cancelled && index > 0 {
            self.ahead -= 1;
        }
        cancelled
    }

    /// Whether a client's request waited behind others on a link, and could be cancelled.
    pub(super) fn gives_up(&mut self, key: Key, link_key: Key) -> bool {
        let waits = self.links.get_mut(link_key).is_some_and(|link| link.position(key).is_some_and(|index| index > 0));
        waits && self.cancel_ahead(key, link_key)
    }

    /// Shows on the scoreboard how many requests wait for a thread.
    pub(super) fn tell_depth(&self) {
        self.cell.set_depth(self.queue.len() + self.ahead);
    }
}

/// Puts a request at the head of the queue.
fn requeue(
    clients: &mut Keyed<client::Client>,
    queue: &mut std::collections::VecDeque<Key>,
    key: Key,
    request: Request,
) {
    if let Some(client) = clients.get_mut(key) {
        client.phase = ClientPhase::Queued(Box::new(request));
        client.deadline = 0;
        queue.push_front(key);
    }
}
