//! Accepts clients, and the links of workers, which say which thread they are.

use std::io;

use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::geteuid;
use rustix::net::sockopt::socket_peercred;
use tracing::{error, warn};

use super::client::Client;
use super::keyed::Key;
use super::link::Link;
use super::state::{Pause, Router, interest};
use super::token::Token;
use crate::ids::{SlotId, ThreadIndex};
use crate::io::accept::accept;
use crate::io::receive::Received;
use crate::log_limit::{self, LineKind};
use rwsgi_protocol::link::{Hello, Purpose};

/// Seconds in which a worker must have said who it is.
const HELLO_SECONDS: u32 = 10;
/// Connections accepted at once.
const ACCEPTS: usize = 64;

impl Router<'_> {
    pub(super) fn accept_clients(&mut self, scratch: &mut [u8], number: usize) {
        if self.stopping || self.clients_paused.is_some() {
            return;
        }
        let deadline = self.in_seconds(self.limits.timeout);
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get(number) else { return };
            let is_direct = listener.is_direct();
            if self.cap.is_reached(self.clients.len()) {
                return self.pause_clients(Pause::Full);
            }
            let (fd, peer) = match listener.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => break,
                Err(error) => return self.no_client(&error),
            };
            let mut client = Client::new(fd, peer.into_boxed_str(), deadline, is_direct);
            self.enter(&mut client, number);
            let key = self.clients.insert(client);
            let Some(client) = self.clients.get_mut(key) else { return };
            let event = EpollEvent::new(interest(false), Token::Client(key).to_bits());
            if let Err(error) = self.epoll.add(&client.fd, event) {
                self.close_client(key);
                return self.no_client(&error.into());
            }
            // The request is often here already.
            self.advance(scratch, key);
        }
        self.cell.set_connections(self.clients.len());
    }

    /// Out of descriptors or memory: connections wait in the backlog rather than the loop spinning on them.
    fn no_client(&mut self, error: &io::Error) {
        error!("cannot accept connections: {error}; they wait for a second ({} are open)", self.clients.len());
        self.pause_clients(Pause::Until(self.second() + 1));
    }

    fn pause_clients(&mut self, pause: Pause) {
        self.clients_paused = Some(pause);
        self.watch_listeners(false);
        self.cell.set_connections(self.clients.len());
    }

    /// A client is closed: another may be accepted.
    pub(super) fn client_closed(&mut self) {
        if self.clients_paused == Some(Pause::Full) && !self.stopping {
            self.clients_paused = None;
            self.watch_listeners(true);
        }
    }

    /// Pauses end.
    pub(super) fn accept_again(&mut self, second: u32) {
        if matches!(self.clients_paused, Some(Pause::Until(end)) if end <= second) {
            self.clients_paused = None;
            self.watch_listeners(true);
        }
        if self.links_paused.is_some_and(|end| end <= second) {
            self.links_paused = None;
            self.watch_link_listener(true);
        }
    }

    // They are registered already, so that there is nothing that can fail.
    fn watch_listeners(&self, watched: bool) {
        for (at, listener) in (0..).zip(&self.listeners) {
            let _ = self.epoll.modify(&listener.fd, &mut readable(watched, Token::Listener(at)));
        }
    }

    fn watch_link_listener(&self, watched: bool) {
        let _ = self.epoll.modify(&self.link_listener, &mut readable(watched, Token::LinkListener));
    }

    pub(super) fn accept_links(&mut self, scratch: &mut [u8]) {
        let deadline = self.in_seconds(HELLO_SECONDS);
        loop {
            let fd = match accept(&self.link_listener) {
                Ok(Some((fd, _))) => fd,
                Ok(None) => return,
                Err(error) => return self.no_link(&error),
            };
            let Ok(peer) = socket_peercred(&fd) else { continue };
            let pid = peer.pid.as_raw_nonzero().get();
            // Workers run as the user that we run as; root's router serves workers that gave root up.
            let us = geteuid();
            if !us.is_root() && peer.uid.as_raw() != us.as_raw() && !peer.uid.is_root() {
                if log_limit::allows(LineKind::NoWorker) {
                    warn!("process {pid} of user {} tried to be a worker; refused", peer.uid.as_raw());
                }
                continue;
            }
            let key = self.links.insert(Link::new(fd, pid, deadline));
            let Some(link) = self.links.get_mut(key) else { return };
            let event = EpollEvent::new(interest(false), Token::Link(key).to_bits());
            if let Err(error) = self.epoll.add(&link.fd, event) {
                self.links.remove(key);
                return self.no_link(&error.into());
            }
            self.read_hello(scratch, key);
        }
    }

    fn no_link(&mut self, error: &io::Error) {
        error!("cannot accept a worker's link: {error}; trying again in a second");
        self.links_paused = Some(self.second() + 1);
        self.watch_link_listener(false);
    }

    /// Reads who is at the other end of a new link.
    pub(super) fn read_hello(&mut self, scratch: &mut [u8], key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        // Not a byte more: what follows may be the worker's wish to leave.
        let missing = Hello::LEN - link.outgoing.len();
        let count = match link.receive(&mut scratch[..missing]) {
            Received::Bytes(count) => count,
            Received::Nothing => return,
            Received::End => {
                self.links.remove(key);
                return;
            }
        };
        link.outgoing.extend_from_slice(&scratch[..count]);
        let Some(hello) = link.outgoing.first_chunk() else { return };
        let pid = link.pid;
        match Hello::decode(hello) {
            Ok(Hello { purpose: Purpose::TakeClient, thread, slot, token, .. })
                if token == self.token && self.has_cell(slot, thread) =>
            {
                self.hand_over(key, SlotId::new(slot), ThreadIndex::new(thread));
            }
            Ok(Hello { purpose: Purpose::Lane, thread, slot, token, .. })
                if token == self.token && self.has_cell(slot, thread) =>
            {
                self.open_lane(key, SlotId::new(slot), ThreadIndex::new(thread));
            }
            Ok(Hello { worker, thread, slot, token, .. }) if token == self.token && self.has_cell(slot, thread) => {
                let (slot, thread) = (SlotId::new(slot), ThreadIndex::new(thread));
                self.close_old_links(scratch, slot, thread);
                // A router before this one may have said so.
                self.board.dispatched(slot, thread).set_not_begun_since(None);
                let Some(link) = self.links.get_mut(key) else { return };
                link.worker = worker;
                link.thread = thread;
                link.slot = Some(slot);
                link.outgoing.clear();
                link.deadline = 0;
                self.threads.add(pid);
                self.release(key);
                // What follows may have come with it.
                self.pump(scratch, key);
            }
            decoded => {
                if log_limit::allows(LineKind::NoWorker) {
                    let problem = decoded.err();
                    let problem = problem.map_or("the token or the slot is wrong".into(), |error| error.to_string());
                    warn!("process {pid} tried to be a worker; refused: {problem}");
                }
                self.links.remove(key);
            }
        }
    }

    /// Whether the scoreboard has such a thread.
    fn has_cell(&self, slot: u32, thread: u32) -> bool {
        let layout = self.board.layout();
        slot < layout.slots && thread < layout.threads
    }

    /// Closes the link that the thread had before, whose end may not have been read yet: the same bytes say what was
    /// dispatched to it.
    fn close_old_links(&mut self, scratch: &mut [u8], slot: SlotId, thread: ThreadIndex) {
        for key in self.links.keys(|link| link.slot == Some(slot) && link.thread == thread) {
            self.read_rest(scratch, key);
        }
    }
}

fn readable(watched: bool, token: Token) -> EpollEvent {
    EpollEvent::new(if watched { EpollFlags::EPOLLIN } else { EpollFlags::empty() }, token.to_bits())
}
