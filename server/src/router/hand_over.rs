//! Hands a client's connection over to the thread that serves its request: the application speaks another protocol on it
//! from then on (WebSocket), and the router has nothing more to do with it. The link stays busy until the thread says that
//! the request is over.

use tracing::warn;

use super::client::ClientPhase;
use super::keyed::Key;
use super::link::Wanted;
use super::state::Router;
use crate::ids::{SlotId, ThreadIndex};
use crate::io::pass_fd::send_fd;

impl Router<'_> {
    /// Answers a thread that asks for its client's connection, on the connection `asker`, which ends with that. Closing
    /// it without a descriptor is a no: the client has sent more than its request, is gone, has part of a response, or speaks
    /// TLS.
    pub(super) fn hand_over(&mut self, asker: Key, slot: SlotId, thread: ThreadIndex) {
        let Some(asker) = self.links.remove(asker) else { return };
        let Some(link_key) = self.links.keys(|link| link.slot == Some(slot) && link.thread == thread).pop() else {
            return;
        };
        let Some(link) = self.links.get_mut(link_key) else { return };
        let Some(index) = link.served(self.board.dispatched(slot, thread)) else { return };
        let Wanted::By(client_key) = link.dispatched[index].wanted else { return };
        let Some(client) = self.clients.get_mut(client_key) else { return };
        let is_ready = matches!(client.phase, ClientPhase::Serving(by) if by == link_key)
            // A part of the first one's response.
            && !(index == 0 && link.answered)
            && client.input.is_empty()
            && client.unsent.is_empty()
            // The thread could not speak TLS with it.
            && client.tls.is_none();
        if !is_ready {
            return;
        }
        if let Err(error) = send_fd(&asker.fd, &client.fd) {
            warn!("cannot hand a client's connection over to worker {} thread {thread}: {error}", link.worker);
            return;
        }
        link.dispatched[index].wanted = Wanted::Elsewhere;
        // The worker has the same socket: closing ours would leave it in the set.
        let _ = self.epoll.delete(&client.fd);
        self.clients.remove(client_key);
        self.cell.set_connections(self.clients.len());
        self.client_closed();
    }
}
