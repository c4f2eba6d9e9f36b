//! The router's loop: it waits, and does in each turn all that is to be done.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use tracing::{error, info, warn};

use super::bulk::Bulk;
use super::client::ClientPhase;
use super::keyed::Key;
use super::state::{Pause, Router, RouterConfig, SECOND, interest};
use super::token::Token;
use crate::clock::MonotonicNanos;
use crate::give_back;
use crate::io::accept::client_of;
use crate::io::pace::{Pace, Seen, log_slow_response};
use crate::ipc::{RouterOrder, receive_message};
use crate::log_limit::{self, LineKind};
use crate::stats::scoreboard::Scoreboard;
use rwsgi_protocol::http::{TIMED_OUT, TOO_SLOW};

/// What is read at once: about what a unix socket holds.
pub(super) const SCRATCH: usize = 256 * 1024;
/// Events taken at once.
pub(super) const EVENTS: usize = 256;

/// Runs the router until it is told to stop and has finished what it has.
///
/// # Errors
/// When it cannot start.
pub(crate) fn run(config: RouterConfig, board: &Arc<Scoreboard>) -> anyhow::Result<()> {
    let mut router = Router::new(config, board)?;
    let mut scratch = vec![0; SCRATCH];
    let mut events = [EpollEvent::empty(); EVENTS];
    give_back::memory_and_pages();
    while !(router.stopping && router.clients.is_empty()) {
        let patience = router.patience();
        if router.turn(&mut scratch, &mut events, patience)? == Flow::Exit {
            break;
        }
    }
    log_limit::finish();
    Ok(())
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    Exit,
}

impl Router<'_> {
    /// One turn of the loop: waits, and does all that is to be done.
    pub(super) fn turn(
        &mut self,
        scratch: &mut [u8],
        events: &mut [EpollEvent],
        patience: EpollTimeout,
    ) -> anyhow::Result<Flow> {
        let count = match self.epoll.wait(events, patience) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error).context("the router cannot wait for events"),
        };
        self.now = MonotonicNanos::now();
        self.bulk = Bulk::WHOLE;
        self.take_back_overdue();
        self.check_begun();
        if self.has_more_turns() {
            self.go_on_with_turns(scratch);
        }
        for event in &events[..count] {
            if self.take(scratch, event.data(), event.events()) == Flow::Exit {
                return Ok(Flow::Exit);
            }
        }
        self.sweep(scratch);
        log_limit::report(self.now);
        self.send_all_dispatched();
        if self.orphaned {
            self.refuse_abandoned(scratch);
        }
        self.tell_depth();
        Ok(Flow::On)
    }

    /// Whether a connection has used up its turn with work left.
    fn has_more_turns(&self) -> bool {
        !(self.links_again.is_empty() && self.clients_again.is_empty())
    }

    /// Goes on with the connections that had work left, before new events, which would otherwise use up the bulk bytes of
    /// this turn. Links do not wait for bulk bytes, because each serves many clients.
    fn go_on_with_turns(&mut self, scratch: &mut [u8]) {
        for key in std::mem::take(&mut self.links_again) {
            let Some(link) = self.links.get_mut(key) else { continue };
            link.turns_again = false;
            if !link.is_sent() {
                self.send_more(scratch, key);
            }
            self.pump(scratch, key);
        }
        if self.bulk.is_used_up() && !self.clients_again.is_empty() {
            // Clients have a share of their own: files of others' responses would take all of it, turn after turn.
            self.bulk = Bulk::WHOLE;
        }
        for _ in 0..self.clients_again.len() {
            if self.bulk.is_used_up() {
                return;
            }
            let Some(key) = self.clients_again.pop_front() else { return };
            if let Some(client) = self.clients.get_mut(key) {
                client.turns_again = false;
                self.flush_client(scratch, key);
                self.advance(scratch, key);
            }
        }
    }

    fn take(&mut self, scratch: &mut [u8], token: u64, events: EpollFlags) -> Flow {
        match Token::from_bits(token) {
            Token::Client(key) => self.client_event(scratch, key, events),
            Token::Link(key) => self.link_event(scratch, key, events),
            Token::Listener(number) => self.accept_clients(scratch, number),
            Token::LinkListener => self.accept_links(scratch),
            Token::Signals => return self.signalled(),
            Token::Orders => self.ordered(),
            Token::Liveness => {
                // Nobody ever writes to it. It stays readable, so that it must not be watched any longer.
                let _ = self.epoll.delete(&self.liveness);
                warn!("the master is gone; finishing {} connections", self.clients.len());
                self.orphaned = true;
                self.stop();
            }
        }
        Flow::On
    }

    /// The master has something to say.
    #[cold]
    fn ordered(&mut self) {
        loop {
            match receive_message(self.orders.as_fd()) {
                Ok(Some(RouterOrder::Limits(limits))) => self.limits.change(limits),
                Ok(Some(RouterOrder::Certificates)) => self.renew_contexts(),
                // End of file: the liveness pipe reports that.
                Ok(None) => break,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    error!(
                        "the router cannot read an order of the master's: {error}; options that a reload changes stay"
                    );
                    break;
                }
            }
        }
        let _ = self.epoll.delete(&self.orders);
    }

    fn client_event(&mut self, scratch: &mut [u8], key: Key, events: EpollFlags) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let broken = events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let ended = broken || events.contains(EpollFlags::EPOLLRDHUP);
        client.readable |= ended || events.contains(EpollFlags::EPOLLIN);
        client.ended |= ended;
        let waits_for_turn = client.turns_again;
        // Nobody has begun with a request in the queue, nor with one that waits behind others on a link.
        let gone = match client.phase {
            ClientPhase::Queued(_) => ended,
            ClientPhase::Serving(link) => broken || ended && self.gives_up(key, link),
            ClientPhase::Flushing(_) => broken,
            _ => false,
        };
        if gone {
            return self.close_client(key);
        }
        if events.contains(EpollFlags::EPOLLOUT) {
            self.flush_client(scratch, key);
        }
        if !waits_for_turn {
            self.advance(scratch, key);
        }
    }

    /// Sends more of what a client has not taken, and lets its worker go on.
    pub(super) fn flush_client(&mut self, scratch: &mut [u8], key: Key) {
        let late = self.in_seconds(self.limits.timeout);
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.unsent.is_empty() {
            return;
        }
        if self.bulk.is_used_up() {
            return self.turn_again_client(key);
        }
        let before = MonotonicNanos::now();
        let Ok(sent) = client.flush() else { return self.close_client(key) };
        if sent.count > 0 {
            client.deadline = late.min(client.pace.until());
        }
        self.bulk.use_since(sent.count as usize, before);
        let Some(client) = self.clients.get_mut(key) else { return };
        if let ClientPhase::Serving(link) = client.phase
            && !client.unsent.is_full(&self.temp)
        {
            self.pump(scratch, link);
        }
        // Not before: what the worker goes on with may not be taken at once either.
        if let Some(client) = self.clients.get_mut(key)
            && matches!(client.phase, ClientPhase::Serving(_))
            && client.unsent.is_empty()
        {
            client.deadline = 0;
        }
        self.arm_client(key);
        if sent.more {
            self.turn_again_client(key);
        }
    }

    fn link_event(&mut self, scratch: &mut [u8], key: Key, events: EpollFlags) {
        let Some(link) = self.links.get_mut(key) else { return };
        let ended = events.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        link.readable |= ended || events.contains(EpollFlags::EPOLLIN);
        link.ended |= ended;
        if link.slot.is_none() {
            return self.read_hello(scratch, key);
        }
        let waits_for_turn = link.turns_again;
        if events.contains(EpollFlags::EPOLLOUT) {
            self.send_more(scratch, key);
        }
        if !waits_for_turn {
            self.pump(scratch, key);
        }
    }

    #[cold]
    fn signalled(&mut self) -> Flow {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if [Signal::SIGHUP as u32, Signal::SIGPIPE as u32].contains(&signal.ssi_signo) {
                continue;
            }
            // Ctrl-C and service managers signal the whole group, and then the master signals too: only the master's
            // second word means at once.
            let from_master = signal.ssi_pid == getppid().as_raw() as u32;
            // The master drains first, and accepts meanwhile.
            if self.limits.drains && !from_master && !self.orphaned {
                continue;
            }
            if self.stopping && from_master && std::mem::replace(&mut self.stop_from_master, true) {
                return Flow::Exit;
            }
            self.stop_from_master |= from_master;
            if !self.stopping {
                info!("the router stops: finishing {} connections", self.clients.len());
                self.stop();
            }
        }
        Flow::On
    }

    /// No new connections; the idle ones are closed, the others after their response.
    #[cold]
    fn stop(&mut self) {
        self.stopping = true;
        for listener in std::mem::take(&mut self.listeners) {
            // The socket itself stays open in the master.
            let _ = self.epoll.delete(&listener.fd);
        }
        for key in self.clients.keys(|client| matches!(client.phase, ClientPhase::Idle)) {
            self.close_client(key);
        }
    }

    /// Watches for a client to take more, exactly while something waits for that.
    pub(super) fn arm_client(&mut self, key: Key) {
        let (late, second) = (self.in_seconds(self.limits.timeout), self.second());
        let Some(client) = self.clients.get_mut(key) else { return };
        let wanted = !client.unsent.is_empty();
        if wanted != client.write_armed {
            client.write_armed = wanted;
            self.temp.count_slow_client(wanted);
            if wanted {
                client.pace = Pace::of_response(self.limits.rates(client.is_direct), second);
                client.deadline = late.min(client.pace.until());
            }
            let mut event = EpollEvent::new(interest(wanted), Token::Client(key).to_bits());
            if self.epoll.modify(&client.fd, &mut event).is_err() {
                self.close_client(key);
            }
        }
    }

    /// The same for a link.
    pub(super) fn arm_link(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        let wanted = !link.is_sent();
        if wanted != link.write_armed {
            link.write_armed = wanted;
            let mut event = EpollEvent::new(interest(wanted), Token::Link(key).to_bits());
            // It is registered, so that there is nothing that can fail.
            let _ = self.epoll.modify(&link.fd, &mut event);
        }
    }

    pub(super) fn turn_again_client(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key)
            && !std::mem::replace(&mut client.turns_again, true)
        {
            self.clients_again.push_back(key);
        }
    }

    pub(super) fn turn_again_link(&mut self, key: Key) {
        if let Some(link) = self.links.get_mut(key)
            && !std::mem::replace(&mut link.turns_again, true)
        {
            self.links_again.push(key);
        }
    }

    /// Seconds since the router began, from 1.
    pub(super) fn second(&self) -> u32 {
        u32::try_from(self.now.nanos_since(self.started) / SECOND).unwrap_or(u32::MAX)
    }

    /// The second that is so many seconds away, and not less.
    pub(super) fn in_seconds(&self, seconds: u32) -> u32 {
        self.second().saturating_add(seconds).saturating_add(1)
    }

    /// How long the loop may sleep.
    fn patience(&self) -> EpollTimeout {
        if self.has_more_turns() {
            return EpollTimeout::ZERO;
        }
        let mut next = log_limit::next_report();
        if !self.clients.is_empty()
            || self.links_paused.is_some()
            || matches!(self.clients_paused, Some(Pause::Until(_)))
        {
            let sweep = self.started.after_nanos((u64::from(self.swept) + 1) * SECOND);
            next = [Some(sweep), self.check_begun, next].into_iter().flatten().min();
        }
        let Some(next) = next else { return EpollTimeout::NONE };
        let left = next.since(MonotonicNanos::now()) + Duration::from_millis(1);
        EpollTimeout::try_from(left).unwrap_or(EpollTimeout::ZERO)
    }

    /// Once a second: what has taken too long.
    fn sweep(&mut self, scratch: &mut [u8]) {
        let second = self.second();
        if second != self.swept {
            self.swept = second;
            self.take_files_again();
            self.let_late_go(scratch, second);
        }
    }

    /// Looks at a client whose deadline has come: it gets a later one if it is fast enough.
    fn look_at(&mut self, key: Key, second: u32) -> Seen {
        let late = self.in_seconds(self.limits.timeout);
        let Some(client) = self.clients.get_mut(key) else { return Seen::Early };
        let rates = self.limits.rates(client.is_direct);
        let seen = match &client.phase {
            // It waits for its turn, and not the router for it.
            ClientPhase::Body(gathering) if client.readable => {
                client.pace = Pace::of_body(rates, second, gathering.intake.len());
                Seen::Goes
            }
            _ if client.turns_again && !client.unsent.is_empty() => {
                client.pace = Pace::of_response(rates, second);
                Seen::Goes
            }
            _ if second < client.pace.until() => Seen::Early,
            _ if !client.unsent.is_empty() => {
                client.pace.look_at_response(rates, second, client.unsent.taken(&client.fd))
            }
            ClientPhase::Body(gathering) => client.pace.look_at_body(rates, second, gathering.intake.len()),
            _ => Seen::Early,
        };
        match seen {
            Seen::Goes => client.deadline = late.min(client.pace.until()).max(second + 1),
            Seen::Slow => {
                self.board.limits().end_slow_client();
                if !client.unsent.is_empty() {
                    log_slow_response(client_of(&client.peer));
                }
            }
            Seen::Early => {}
        }
        seen
    }

    #[cold]
    fn let_late_go(&mut self, scratch: &mut [u8], second: u32) {
        self.accept_again(second);
        let is_late = |deadline: u32| deadline != 0 && deadline <= second;
        for key in self.clients.keys(|client| is_late(client.deadline)) {
            let seen = self.look_at(key, second);
            let Some(client) = self.clients.get_mut(key) else { continue };
            match client.phase {
                _ if seen == Seen::Goes => {}
                ClientPhase::Head | ClientPhase::Body(_) if client.unsent.is_empty() => {
                    let input = std::mem::take(&mut client.input);
                    self.refuse(key, if seen == Seen::Slow { TOO_SLOW } else { TIMED_OUT }, &input);
                    self.advance(scratch, key);
                }
                ClientPhase::Serving(_) | ClientPhase::Flushing(_) => {
                    client.reset_on_close();
                    self.close_client(key);
                }
                _ => self.close_client(key),
            }
        }
        for key in self.links.keys(|link| link.slot.is_none() && is_late(link.deadline)) {
            if let Some(link) = self.links.remove(key)
                && log_limit::allows(LineKind::NoWorker)
            {
                warn!("process {} connected as a worker and said nothing; refused", link.pid);
            }
        }
    }
}
