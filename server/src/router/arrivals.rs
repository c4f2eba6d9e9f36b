//! Who comes: clients that connect, and workers that say which thread they are.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::geteuid;
use tracing::{error, warn};

use super::client::Client;
use super::link::Link;
use super::slots::Key;
use super::{ACCEPTS, GREETING, Router, Token, accept, interest, link};
use crate::protocol::link::Hello;

impl Router<'_> {
    pub(super) fn accept_clients(&mut self, scratch: &mut [u8], number: usize) {
        if self.stopping {
            return;
        }
        let deadline = self.in_seconds(self.limits.timeout);
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get(number) else { return };
            let (fd, peer) = match listener.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => break,
                Err(error) => return self.pause_accepting(error),
            };
            let key = self.clients.insert(Client::new(fd, peer, deadline));
            let Some(client) = self.clients.get_mut(key) else { return };
            if let Err(error) =
                self.epoll.add(&client.fd, EpollEvent::new(interest(false), Token::Client(key).to_bits()))
            {
                self.close_client(key);
                return self.pause_accepting(error);
            }
            // The request is often here already.
            self.advance(scratch, key);
        }
        self.cell.set_connections(self.clients.len());
    }

    /// Out of descriptors or memory: connections wait in the backlog rather than the loop spinning on them.
    fn pause_accepting(&mut self, error: Errno) {
        error!("cannot accept connections: {error}; they wait for a second ({} are open)", self.clients.len());
        self.paused = self.second() + 1;
        self.watch_listeners(false);
    }

    pub(super) fn watch_listeners(&self, watched: bool) {
        let flags = if watched { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
        let sockets = (0..).zip(&self.listeners).map(|(at, listener)| (listener.fd.as_fd(), Token::Listener(at)));
        for (fd, token) in sockets.chain([(self.link_listener.as_fd(), Token::LinkListener)]) {
            // They are registered already, so that there is nothing that can fail.
            let _ = self.epoll.modify(fd, &mut EpollEvent::new(flags, token.to_bits()));
        }
    }

    pub(super) fn accept_links(&mut self, scratch: &mut [u8]) {
        let deadline = self.in_seconds(GREETING);
        loop {
            let fd = match accept::accept(&self.link_listener) {
                Ok(Some(fd)) => fd,
                Ok(None) => return,
                Err(error) => return self.pause_accepting(error),
            };
            let Ok((pid, uid)) = accept::credentials(&fd) else { continue };
            // Workers run as the user that we run as; root's router serves workers that gave root up.
            let us = geteuid();
            if !us.is_root() && uid != us.as_raw() && uid != 0 {
                warn!("process {pid} of user {uid} tried to be a worker; refused");
                continue;
            }
            let key = self.links.insert(Link::new(fd, pid, deadline));
            let Some(link) = self.links.get_mut(key) else { return };
            if let Err(error) = self.epoll.add(&link.fd, EpollEvent::new(interest(false), Token::Link(key).to_bits())) {
                self.links.remove(key);
                return self.pause_accepting(error);
            }
            self.greet(scratch, key);
        }
    }

    /// Reads who is at the other end of a new link.
    pub(super) fn greet(&mut self, scratch: &mut [u8], key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        // Not a byte more: what follows may be the worker's wish to leave.
        let missing = Hello::LEN - link.outgoing.len();
        let count = match link.receive(&mut scratch[..missing]) {
            link::Received::Bytes(count) => count,
            link::Received::Nothing => return,
            link::Received::End => {
                self.links.remove(key);
                return;
            }
        };
        link.outgoing.extend_from_slice(&scratch[..count]);
        let Some(hello) = link.outgoing.first_chunk() else { return };
        let pid = link.pid;
        match Hello::decode(hello) {
            Ok(Hello { worker, thread, slot, token }) if token == self.token && self.has_cell(slot, thread) => {
                self.forget(scratch, slot, thread);
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
                let problem = decoded.err().map_or("the token or the slot is wrong".into(), |error| error.to_string());
                warn!("process {pid} tried to be a worker; refused: {problem}");
                self.links.remove(key);
            }
        }
    }

    /// Whether the scoreboard has such a thread.
    fn has_cell(&self, slot: u32, thread: u32) -> bool {
        let layout = self.board.layout();
        slot < layout.slots && thread < layout.threads
    }

    /// Lets go of the link that the thread had before, whose end may not have been read yet: what it is dispatched is told
    /// by the same bytes.
    fn forget(&mut self, scratch: &mut [u8], slot: u32, thread: u32) {
        for key in self.links.keys(|link| link.slot == Some(slot) && link.thread == thread) {
            self.hear_out(scratch, key);
        }
    }
}
