//! The http router: one process between the clients and the workers.
//!
//! It holds what is slow, so that no worker does: idle connections, heads and bodies that drip in, responses that drip
//! out. A request goes to a worker only when all of it is here, and to a thread that is free or will be at once (see
//! `dispatch`); while there is none, it waits in the one queue, in order. A response is read from the worker as fast as it
//! comes and kept until the client has taken it: a megabyte in memory, what is more in a file, until a gigabyte makes the
//! worker wait.
//!
//! It is a loop around epoll, as the workers have, rather than tasks of an asynchronous runtime. One owner has all state,
//! and there is nothing to lock or to wake. Events come as edges, and interest in writing is registered only while a
//! socket is full: a unix socket reports "writable" each time the other end reads, which would wake the router once more
//! for every request. A connection costs a few hundred bytes, a request no allocation and at most four system calls
//! besides the waiting: read client, write link, read link, write client; under load, those of the link are shared by up to
//! eight requests. Timeouts are whole seconds that a sweep looks at, because a timer for each request would cost more than
//! all of this.
//!
//! Why not hyper: see "The router" in `docs/design.md`.
//!
//! What happens when somebody goes:
//! - A client that closes while it waits in the queue is taken out of it. When it closes during the response, what
//!   still comes of it is dropped; a worker that goes on after a second, or a megabyte, finds its link closed and sees an
//!   error at its next write. A client that only ends its sending side (`ncat` does) while it is being served gets its
//!   response.
//! - A worker that is lost before a byte of the response has come: the client gets 502; unless the worker had not begun
//!   with it and all of it is still here (bodies over 16 kB are let go when they are sent), when another thread gets it.
//!   After that, the connection is reset, so that nobody takes half a response for a whole one.
//! - A worker that wants to leave says so on its links (see [`crate::protocol::link`]); nothing is lost.
//! - The master: the router finishes what it has and exits, as after a signal.

mod accept;
mod arrivals;
mod body;
mod client;
mod dispatch;
mod intake;
mod link;
mod output;
mod relay;
mod slots;
mod spool;
#[cfg(test)]
mod tests;
mod threads;

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::getppid;
use tracing::{info, warn};

use self::accept::Listener;
use self::client::{Client, Phase};
use self::link::Link;
use self::slots::{Key, Slots};
use self::threads::Threads;
use crate::protocol::http::TIMED_OUT;
use crate::stats::cell::RouterCell;
use crate::stats::clock;
use crate::stats::scoreboard::Scoreboard;

/// What is read at once: about what a unix socket holds.
const SCRATCH: usize = 256 * 1024;
/// Seconds for which a client may go on sending what is not read.
const LINGER: u32 = 3;
/// Seconds in which a worker must have said who it is.
const GREETING: u32 = 10;
/// Seconds for which a worker may go on answering a client that is gone.
const UNWANTED: u32 = 1;
/// Events taken at once.
const EVENTS: usize = 256;
/// Connections accepted at once.
const ACCEPTS: usize = 64;
const SECOND: u64 = 1_000_000_000;

/// What the router may keep and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `--http-timeout`, seconds: for a whole head, and for any progress of a body or of a response that the client
    /// takes.
    pub timeout: u32,
    /// `--http-keepalive`, seconds: for the next request on a connection; 0 closes after each.
    pub keepalive: u32,
    /// `--buffer-size`: the largest head, bytes.
    pub buffer_size: usize,
    /// `--limit-post`: the largest body, bytes; 0 for no limit.
    pub limit_post: u64,
    /// `--post-buffering`: the largest body that waits in memory, bytes.
    pub post_buffering: u64,
    /// `--listen`: requests that wait for a thread.
    pub queue: usize,
    /// A thread that has had a request for longer is not quick, whatever it was before, ns: what was sent to it ahead is
    /// for all again.
    pub overdue: u64,
}

impl Limits {
    /// Whether a body of this length is more than clients may send.
    fn refuse_body(&self, length: u64) -> bool {
        self.limit_post != 0 && length > self.limit_post
    }
}

/// What the master gives to the router.
#[derive(Debug)]
pub struct RouterConfig {
    /// Bound and listening sockets for clients.
    pub listeners: Vec<OwnedFd>,
    /// The bound and listening unix socket that workers connect to.
    pub link_listener: OwnedFd,
    /// What workers prove with that they are ours.
    pub token: [u8; 16],
    /// End-of-file on it: the master is gone.
    pub liveness: OwnedFd,
    /// What the router may keep and for how long.
    pub limits: Limits,
}

/// Whom an event is for, in the upper bits of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Client(Key),
    Link(Key),
    Listener(usize),
    LinkListener,
    Signals,
    Liveness,
}

impl Token {
    const LINK: u64 = 1 << 62;
    const OTHER: u64 = 2 << 62;
    /// The first listener; the other fixed ones are before it.
    const LISTENERS: u64 = 3;

    fn to_bits(self) -> u64 {
        match self {
            Self::Client(key) => key.to_bits(),
            Self::Link(key) => Self::LINK | key.to_bits(),
            Self::LinkListener => Self::OTHER,
            Self::Signals => Self::OTHER | 1,
            Self::Liveness => Self::OTHER | 2,
            Self::Listener(number) => Self::OTHER | (Self::LISTENERS + number as u64),
        }
    }

    fn from_bits(bits: u64) -> Self {
        match (bits >> 62, bits & !(3 << 62)) {
            (0, _) => Self::Client(Key::from_bits(bits)),
            (1, _) => Self::Link(Key::from_bits(bits)),
            (_, 0) => Self::LinkListener,
            (_, 1) => Self::Signals,
            (_, 2) => Self::Liveness,
            (_, number) => Self::Listener((number - Self::LISTENERS) as usize),
        }
    }
}

/// The loop's state.
struct Router<'a> {
    limits: Limits,
    token: [u8; 16],
    cell: &'a RouterCell,
    board: &'a Scoreboard,
    epoll: Epoll,
    listeners: Vec<Listener>,
    link_listener: OwnedFd,
    liveness: OwnedFd,
    signals: SignalFd,
    clients: Slots<Client>,
    links: Slots<Link>,
    threads: Threads,
    /// Clients whose requests wait for a thread.
    queue: VecDeque<Key>,
    /// Requests that were dispatched to a thread which has others before them.
    ahead: usize,
    /// Links with dispatched requests that are not sent.
    unsent: Vec<Key>,
    /// Who has used up its turn with work left.
    again: Vec<Token>,
    /// When the loop last woke, monotonic ns.
    now: u64,
    /// When the clock began, monotonic ns: deadlines are seconds since then.
    started: u64,
    /// The second of the last sweep.
    swept: u32,
    /// No new connections, and none kept.
    stopping: bool,
    /// The master has told us to stop.
    told: bool,
    /// The second until which nothing is accepted, because the system is out of descriptors; 0 for none.
    paused: u32,
}

/// Runs the router until it is told to stop and has finished what it has.
///
/// # Errors
/// When it cannot start.
pub fn run(config: RouterConfig, board: &Scoreboard) -> anyhow::Result<()> {
    let mut router = Router::new(config, board)?;
    let mut scratch = vec![0; SCRATCH];
    let mut events = [EpollEvent::empty(); EVENTS];
    while !(router.stopping && router.clients.is_empty()) {
        let patience = router.patience();
        if router.turn(&mut scratch, &mut events, patience)? == Flow::Exit {
            break;
        }
    }
    Ok(())
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    Exit,
}

/// Interest in everything but writing, as edges.
fn interest(writing: bool) -> EpollFlags {
    let always = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    if writing { always | EpollFlags::EPOLLOUT } else { always }
}

impl<'a> Router<'a> {
    fn new(config: RouterConfig, board: &'a Scoreboard) -> anyhow::Result<Self> {
        let RouterConfig { listeners, link_listener, token, liveness, limits } = config;
        let mut mask = SigSet::empty();
        // A terminal that goes away is the master's affair; its SIGHUP must not end the router.
        // Nor must SIGPIPE, which sendfile raises where a client is gone.
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGPIPE] {
            mask.add(signal);
        }
        mask.thread_block().context("the router cannot block signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("the router cannot receive signals")?;
        let listeners = listeners
            .into_iter()
            .map(Listener::new)
            .collect::<nix::Result<Vec<_>>>()
            .context("a bad listening socket")?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("the router cannot make its epoll")?;
        let now = clock::monotonic();
        let router = Self {
            limits,
            token,
            cell: board.router(),
            board,
            epoll,
            listeners,
            link_listener,
            liveness,
            signals,
            clients: Slots::new(),
            links: Slots::new(),
            threads: Threads::default(),
            queue: VecDeque::new(),
            ahead: 0,
            unsent: Vec::new(),
            again: Vec::new(),
            now,
            // So that no second is 0, which means never.
            started: now.saturating_sub(SECOND),
            swept: 1,
            stopping: false,
            told: false,
            paused: 0,
        };
        let watch = |fd: &dyn AsFd, token: Token| {
            router.epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token.to_bits()))
        };
        let watched = watch(&router.link_listener, Token::LinkListener)
            .and_then(|()| watch(&router.signals, Token::Signals))
            .and_then(|()| watch(&router.liveness, Token::Liveness))
            .and_then(|()| (0..).zip(&router.listeners).try_for_each(|(at, one)| watch(&one.fd, Token::Listener(at))));
        watched.context("the router cannot watch its sockets")?;
        board.router().set_depth(0);
        board.router().set_connections(0);
        Ok(router)
    }

    /// One turn of the loop: waits, and does all that is to be done.
    fn turn(&mut self, scratch: &mut [u8], events: &mut [EpollEvent], patience: EpollTimeout) -> anyhow::Result<Flow> {
        let count = match self.epoll.wait(events, patience) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error).context("the router cannot wait for events"),
        };
        self.now = clock::monotonic();
        self.take_back_overdue();
        for event in &events[..count] {
            if self.take(scratch, event.data(), event.events()) == Flow::Exit {
                return Ok(Flow::Exit);
            }
        }
        for token in std::mem::take(&mut self.again) {
            match token {
                Token::Client(key) => {
                    self.flush_client(scratch, key);
                    self.advance(scratch, key);
                }
                Token::Link(key) => self.pump(scratch, key),
                _ => {}
            }
        }
        self.sweep(scratch);
        self.send_all_dispatched();
        self.tell_depth();
        Ok(Flow::On)
    }

    fn take(&mut self, scratch: &mut [u8], token: u64, events: EpollFlags) -> Flow {
        match Token::from_bits(token) {
            Token::Client(key) => self.client_event(scratch, key, events),
            Token::Link(key) => self.link_event(scratch, key, events),
            Token::Listener(number) => self.accept_clients(scratch, number),
            Token::LinkListener => self.accept_links(scratch),
            Token::Signals => return self.signalled(),
            Token::Liveness => {
                // Nobody ever writes to it. It stays readable, so that it must not be watched any longer.
                let _ = self.epoll.delete(&self.liveness);
                warn!("the master is gone; finishing {} connections", self.clients.len());
                self.stop();
            }
        }
        Flow::On
    }

    fn client_event(&mut self, scratch: &mut [u8], key: Key, events: EpollFlags) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let broken = events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let ended = broken || events.contains(EpollFlags::EPOLLRDHUP);
        client.readable |= ended || events.contains(EpollFlags::EPOLLIN);
        client.ended |= ended;
        // Nobody has begun with a request in the queue, nor with one that waits behind others on a link.
        let gone = match client.phase {
            Phase::Queued(_) => ended,
            Phase::Serving(link) => broken || ended && self.gives_up(key, link),
            Phase::Flushing(_) => broken,
            _ => false,
        };
        if gone {
            return self.close_client(key);
        }
        if events.contains(EpollFlags::EPOLLOUT) {
            self.flush_client(scratch, key);
        }
        self.advance(scratch, key);
    }

    /// Sends more of what a client has not taken, and lets its worker go on.
    fn flush_client(&mut self, scratch: &mut [u8], key: Key) {
        let late = self.in_seconds(self.limits.timeout);
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.output.is_empty() {
            return;
        }
        let Ok(flushed) = client.flush() else { return self.close_client(key) };
        if flushed.progress {
            client.deadline = late;
        }
        if let Phase::Serving(link) = client.phase {
            if client.output.is_empty() {
                client.deadline = 0;
            }
            if !client.output.is_full() {
                self.pump(scratch, link);
            }
        }
        self.arm_client(key);
        if flushed.more {
            self.turn_again_client(key);
        }
    }

    fn link_event(&mut self, scratch: &mut [u8], key: Key, events: EpollFlags) {
        let Some(link) = self.links.get_mut(key) else { return };
        let ended = events.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        link.readable |= ended || events.contains(EpollFlags::EPOLLIN);
        link.ended |= ended;
        if link.slot.is_none() {
            return self.greet(scratch, key);
        }
        if events.contains(EpollFlags::EPOLLOUT) {
            self.send_more(scratch, key);
        }
        self.pump(scratch, key);
    }

    fn signalled(&mut self) -> Flow {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if [Signal::SIGHUP as u32, Signal::SIGPIPE as u32].contains(&signal.ssi_signo) {
                continue;
            }
            // Ctrl-C and service managers signal the whole group, and then the master signals too: only the master's
            // second word means at once.
            let from_master = signal.ssi_pid == getppid().as_raw() as u32;
            if self.stopping && from_master && std::mem::replace(&mut self.told, true) {
                return Flow::Exit;
            }
            self.told |= from_master;
            if !self.stopping {
                info!("the router stops: finishing {} connections", self.clients.len());
                self.stop();
            }
        }
        Flow::On
    }

    /// No new connections; the idle ones are closed, the others after their response.
    fn stop(&mut self) {
        self.stopping = true;
        for listener in std::mem::take(&mut self.listeners) {
            // The socket itself lives on in the master.
            let _ = self.epoll.delete(&listener.fd);
        }
        for key in self.clients.keys(|client| matches!(client.phase, Phase::Idle)) {
            self.close_client(key);
        }
    }

    /// Asks the kernel to tell when a client takes more, exactly while something waits for that.
    fn arm_client(&mut self, key: Key) {
        let late = self.in_seconds(self.limits.timeout);
        let Some(client) = self.clients.get_mut(key) else { return };
        let wanted = !client.output.is_empty();
        if wanted != client.write_armed {
            client.write_armed = wanted;
            if wanted {
                client.deadline = late;
            }
            let mut event = EpollEvent::new(interest(wanted), Token::Client(key).to_bits());
            if self.epoll.modify(&client.fd, &mut event).is_err() {
                self.close_client(key);
            }
        }
    }

    /// The same for a link.
    fn arm_link(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        let wanted = !link.is_sent();
        if wanted != link.write_armed {
            link.write_armed = wanted;
            let mut event = EpollEvent::new(interest(wanted), Token::Link(key).to_bits());
            // It is registered, so that there is nothing that can fail.
            let _ = self.epoll.modify(&link.fd, &mut event);
        }
    }

    fn turn_again_client(&mut self, key: Key) {
        self.again.push(Token::Client(key));
    }

    fn turn_again_link(&mut self, key: Key) {
        self.again.push(Token::Link(key));
    }

    /// Seconds since the router began, from 1.
    fn second(&self) -> u32 {
        u32::try_from((self.now - self.started) / SECOND).unwrap_or(u32::MAX)
    }

    /// The second that is so many seconds away, and not less.
    fn in_seconds(&self, seconds: u32) -> u32 {
        self.second().saturating_add(seconds).saturating_add(1)
    }

    /// How long the loop may sleep.
    fn patience(&self) -> EpollTimeout {
        if !self.again.is_empty() {
            return EpollTimeout::ZERO;
        }
        if self.clients.is_empty() && self.paused == 0 {
            return EpollTimeout::NONE;
        }
        let next = self.started + (u64::from(self.swept) + 1) * SECOND;
        let left = Duration::from_nanos(next.saturating_sub(clock::monotonic())) + Duration::from_millis(1);
        EpollTimeout::try_from(left).unwrap_or(EpollTimeout::ZERO)
    }

    /// Once a second: what has taken too long.
    fn sweep(&mut self, scratch: &mut [u8]) {
        let second = self.second();
        if second == self.swept {
            return;
        }
        self.swept = second;
        if self.paused != 0 && self.paused <= second {
            self.paused = 0;
            self.watch_listeners(true);
        }
        let is_late = |deadline: u32| deadline != 0 && deadline <= second;
        for key in self.clients.keys(|client| is_late(client.deadline)) {
            let Some(client) = self.clients.get_mut(key) else { continue };
            match client.phase {
                Phase::Head | Phase::Body(_) if client.output.is_empty() => {
                    self.refuse(key, TIMED_OUT);
                    self.advance(scratch, key);
                }
                Phase::Serving(_) | Phase::Flushing(_) => {
                    client.reset_on_close();
                    self.close_client(key);
                }
                _ => self.close_client(key),
            }
        }
        for key in self.links.keys(|link| link.slot.is_none() && is_late(link.deadline)) {
            if let Some(link) = self.links.remove(key) {
                warn!("process {} connected as a worker and said nothing; refused", link.pid);
            }
        }
    }
}
