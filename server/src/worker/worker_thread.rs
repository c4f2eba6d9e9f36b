//! A worker thread: waits on the worker's epoll set, takes what is ready, and serves each request.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollTimeout};
use pyo3::prelude::*;
use tracing::error;

use super::access_log::AccessLog;
use super::connection::{Connection, ConnectionPhase, Wait};
use super::harakiri;
use super::kind::Kind;
use super::orders::refork::Reforked;
use super::routes::RouteMeter;
use super::state::{TOKEN_LISTENER, TOKEN_LIVENESS, TOKEN_PEERS, TOKEN_STOP, Worker};
use super::stop;
use super::streams;
use super::traces::Tracer;
use crate::clock::{Clock, MonotonicNanos};
use crate::ids::ThreadIndex;
use crate::io::accept::client_of;
use crate::io::pace::{Pace, Seen, log_slow_response};
use crate::io::receive::has_unread;
use crate::log_limit;
use crate::stacks;
use crate::stats::cell::ThreadCell;
use crate::wsgi::gateway::Gateway;
use crate::wsgi::interpreter;
use crate::wsgi::serving;
use crate::wsgi::traceback::{self, one_line};
use rwsgi_protocol::http::{TIMED_OUT, TOO_SLOW};

/// Events that are taken from the kernel at once by a worker of one thread. With several each takes one event at a
/// time: what a thread has taken no other can serve, and would wait behind whatever this one does first.
const EVENTS: usize = 64;
/// Connections that are accepted in a row before those that wait get their turn.
pub(super) const ACCEPTS: usize = 16;
/// How much is read at once, bytes.
const SCRATCH: usize = 64 * 1024;
/// Bodies whose memory is kept until a second without work: about as many as clients send at once.
const SPARE_BUFFERS: usize = 16;
/// Those that it is kept of, bytes: below that the allocator has it at hand, and larger ones are too much to keep.
pub(super) const WORTH_SPARING: std::ops::RangeInclusive<usize> = 64 * 1024..=1024 * 1024;
/// By when a worker that sleeps has woken and taken the connection that it was woken for, ns.
const AWAKE: u64 = 1_000_000;
/// How often connections are looked through for those that waited too long, ms.
const SWEEP: u16 = 1_000;
/// The same while the worker leaves, ms.
const LEAVING_SWEEP: u16 = 50;
/// How long an idle connection stays open while the worker leaves, ns: a request that is on its way is still served.
const LEAVING_LINGER: u64 = 500_000_000;

/// See the module.
pub(super) struct WorkerThread {
    pub(super) id: ThreadIndex,
    pub(super) worker: Arc<Worker>,
    pub(super) gateway: Gateway<Connection>,
    pub(super) log: Option<AccessLog>,
    pub(super) meter: RouteMeter,
    /// `None` when no request is traced.
    pub(super) tracer: Option<Box<Tracer>>,
    /// Memory of bodies that were read, for the next ones.
    pub(super) spare_buffers: Vec<Vec<u8>>,
    /// When the present batch of events was there.
    pub(super) ready: MonotonicNanos,
    /// When this thread could begin with it: it had waited for Python's global lock.
    pub(super) batch_began: MonotonicNanos,
    /// Unix time of other moments, set several times a second.
    pub(super) clock: Clock,
    /// Python's global lock, as it was several times a second: an extension module may turn it on.
    gil: interpreter::GlobalLock,
    /// When the clock was read last.
    pub(super) now: MonotonicNanos,
    /// When this thread began with the present connection.
    pub(super) turn_began: MonotonicNanos,
    /// The number of the present batch of events.
    batch: u64,
    turn: Turn,
    unix_second: u64,
    /// When this thread saw that the worker leaves.
    leaving_since: Option<MonotonicNanos>,
}

/// When a thread last took connections that it shares with other workers, and how many.
#[derive(Clone, Copy)]
struct Turn {
    batch: u64,
    at: MonotonicNanos,
    count: usize,
}

/// What becomes of a connection that a thread has worked on.
pub(super) enum Next {
    /// It waits.
    Wait(Wait),
    /// It is over.
    Close,
}

impl WorkerThread {
    pub(super) fn new(id: ThreadIndex, worker: Arc<Worker>, gateway: Gateway<Connection>) -> anyhow::Result<Self> {
        let log = AccessLog::of(&worker, id);
        let meter = RouteMeter::new(&worker);
        let tracer = Tracer::of(&worker);
        let now = MonotonicNanos::now();
        Ok(Self {
            id,
            worker,
            gateway,
            log,
            meter,
            tracer,
            spare_buffers: Vec::new(),
            ready: now,
            batch_began: now,
            clock: Clock::default(),
            gil: interpreter::GlobalLock::default(),
            now,
            turn_began: now,
            batch: 0,
            turn: Turn { batch: 0, at: now, count: 0 },
            unix_second: 0,
            leaving_since: None,
        })
    }

    /// This thread's cell; no other writes it.
    #[inline]
    pub(super) fn cell(&self) -> &ThreadCell {
        self.worker.scoreboard.thread(self.worker.slot, self.id)
    }

    /// The threads' clock in whole seconds, for deadlines.
    pub(super) fn second(&self) -> u32 {
        (self.now.as_nanos() / 1_000_000_000) as u32
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.worker.leaving.load(Acquire)
    }

    /// Whether the present request of a connection is to be its last one.
    pub(super) fn is_declining(&self) -> bool {
        self.worker.declining.load(Acquire)
    }

    /// Serves until the worker has left, or, in a process that it forks, until that is a fork server.
    ///
    /// # Errors
    /// When the epoll set or Python fails.
    pub(super) fn serve(&mut self, py: Python<'_>) -> anyhow::Result<Option<Reforked>> {
        if self.worker.config.harakiri.is_some() {
            harakiri::prepare_thread();
        }
        serving::enter(self.id.get());
        streams::enter(&self.worker.streams, self.id);
        self.gateway.enter(py)?;
        self.gil.look(py);
        stacks::handler::enter(py, self.id);
        let mut events = [EpollEvent::empty(); EVENTS];
        let most = if self.worker.one_shot() { 1 } else { EVENTS };
        let mut scratch = vec![0; SCRATCH];
        loop {
            let timeout = if self.leaving_since.is_some() { LEAVING_SWEEP } else { SWEEP };
            let (waited, woken) = py.detach(|| {
                // The log's reader may be slow.
                if let Some(log) = &mut self.log {
                    log.write();
                }
                let waited = self.worker.epoll.wait(&mut events[..most], EpollTimeout::from(timeout));
                (waited, MonotonicNanos::now())
            });
            self.now = MonotonicNanos::now();
            self.ready = woken;
            self.batch_began = if self.shares_gil() { self.now } else { woken };
            self.batch += 1;
            self.cell().waited_for_gil(woken, self.batch_began);
            self.meter.waited(woken, self.batch_began);
            let count = match waited {
                Ok(count) => count,
                Err(Errno::EINTR) => {
                    // The application may have handlers for signals; Python runs them in its own good time, not ours.
                    if let Err(error) = py.check_signals() {
                        error!("a signal handler of the application raised {}", one_line(py, &error));
                        traceback::log(py, &error);
                    }
                    0
                }
                Err(error) => anyhow::bail!("thread {}: waiting for events: {error}", self.id),
            };
            if count == 0 {
                // A second without work.
                self.spare_buffers.clear();
            }
            self.tell_time(py);
            for event in &events[..count] {
                self.take(py, event.data(), &mut scratch)?;
            }
            if let Some(reforked) = self.obey(py) {
                return Ok(Some(reforked));
            }
            self.leave_if_ordered()?;
            self.sweep(py, &mut scratch)?;
            if self.leaving_since.is_some() && self.has_left(py, &mut scratch)? {
                return Ok(None);
            }
        }
    }

    /// Keeps the memory of a body for the next one: getting it from the system again costs a fault for each page.
    pub(super) fn keep_buffer(&mut self, mut bytes: Vec<u8>) {
        if WORTH_SPARING.contains(&bytes.capacity()) && self.spare_buffers.len() < SPARE_BUFFERS {
            bytes.clear();
            self.spare_buffers.push(bytes);
        }
    }

    fn tell_time(&mut self, py: Python<'_>) {
        // The monotonic clock's seconds change as often as the wall clock's, to within a second; reading the latter
        // once a second is enough for `Date`.
        let second = self.now.as_nanos() / 250_000_000;
        if second != self.unix_second {
            self.unix_second = second;
            self.clock = Clock::default();
            self.gateway.set_time(self.clock.unix_at(self.now).as_secs());
            self.gil.look(py);
        }
    }

    /// Whether threads wait for each other to execute Python. Where they do not, a thread that wakes waits at most for a
    /// garbage collection or a fork, which stop all threads: that is no wait for the lock.
    #[inline]
    fn shares_gil(&self) -> bool {
        cfg!(not(Py_GIL_DISABLED)) || self.gil.is_on
    }

    fn take(&mut self, py: Python<'_>, token: u64, scratch: &mut [u8]) -> anyhow::Result<()> {
        match token {
            TOKEN_STOP => self.worker.begin_to_leave(),
            TOKEN_LIVENESS => {
                self.worker.begin_to_leave();
                self.worker.leave_addresses()?;
            }
            TOKEN_PEERS => self.take_all_handed_over(py, scratch)?,
            TOKEN_LISTENER.. => self.accept(py, (token - TOKEN_LISTENER) as usize, scratch)?,
            fd => {
                // Another thread may have it, or it may be gone: then there is nothing to do for this event.
                if let Some(connection) = self.worker.connections.take(fd as usize) {
                    self.work(py, connection, scratch)?;
                }
            }
        }
        Ok(())
    }

    /// Accepts and serves, one after another, so that nothing that was accepted waits behind a slow request.
    ///
    /// A worker that leaves does so too, until its listeners are out of the set: of all workers that sleep, the kernel
    /// woke this one alone.
    fn accept(&mut self, py: Python<'_>, index: usize, scratch: &mut [u8]) -> anyhow::Result<()> {
        let Some(listener) = self.worker.listeners.get(index) else { return Ok(()) };
        let shares = self.worker.shares(listener);
        let most = if shares { self.next_turn() } else { ACCEPTS };
        for taken in 0..most {
            let Some(listener) = self.worker.listeners.get(index) else { return Ok(()) };
            if !self.worker.has_space()? {
                return Ok(());
            }
            let (socket, peer) = match listener.socket.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return Ok(()),
                Err(failure) => return self.worker.pause_accepting(&failure),
            };
            self.worker.accept_failed.store(false, Relaxed);
            if shares && taken == 0 {
                self.worker.step_back(index)?;
            }
            let kind = Kind::Client(listener.protocol);
            let rates = listener.rates;
            self.worker.open.fetch_add(1, AcqRel);
            let mut connection = Connection::new(socket, kind, peer, self.patience(), rates);
            connection.listener = index;
            connection.awaits_proxy = self.worker.config.http_router.proxy_protocol_everywhere;
            // It may have come while those before it were served.
            let ready = self.ready;
            if taken > 0 {
                self.ready = self.now;
            }
            self.work(py, connection, scratch)?;
            self.ready = ready;
        }
        // One that is full must not be woken for a connection that another could take.
        self.worker.has_space().map(drop)
    }

    /// The longest wait for a client during a response.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.worker.config.socket_timeout.into())
    }

    /// How many connections to take of those that other workers could take as well: one, so that they get theirs. But
    /// who still waits after a batch that took long enough for a worker that sleeps to wake waits for workers that are
    /// busy, and taken one by one, the last of many would wait for the first ones again and again.
    fn next_turn(&mut self) -> usize {
        let last = self.turn;
        let busy = last.batch + 1 == self.batch && self.ready.nanos_since(last.at) >= AWAKE;
        // The first turn of all has none before it.
        let count = if busy { (last.count * 2).clamp(1, ACCEPTS) } else { 1 };
        self.turn = Turn { batch: self.batch, at: self.ready, count };
        count
    }

    /// Takes a connection as far as it goes now, and puts it back or closes it.
    pub(super) fn work(
        &mut self,
        py: Python<'_>,
        connection: Box<Connection>,
        scratch: &mut [u8],
    ) -> anyhow::Result<()> {
        match self.drive(py, connection, scratch) {
            Ok((connection, next)) => {
                self.settle(connection, next);
                Ok(())
            }
            Err(failure) => {
                // The connection went with it.
                self.worker.closed();
                Err(failure)
            }
        }
    }

    /// Puts a connection where it waits, or closes it.
    fn settle(&mut self, connection: Box<Connection>, next: Next) {
        let Next::Wait(wait) = next else {
            return self.close(connection);
        };
        if let Err(connection) = self.worker.arm(connection, wait) {
            self.close(connection);
        }
    }

    fn close(&mut self, connection: Box<Connection>) {
        if let Kind::Link(thread) = connection.kind {
            self.worker.lose_link(thread);
        }
        if connection.armed.is_some() {
            // Closing does this too, unless a child of the application has a copy of the descriptor: then the set would
            // report it forever. One that is not in the set any more needs nothing.
            let _ = self.worker.epoll.delete(&*connection.socket);
        }
        drop(connection);
        self.worker.closed();
    }

    /// Begins to leave when the worker was ordered to.
    fn leave_if_ordered(&mut self) -> anyhow::Result<()> {
        if self.leaving_since.is_some() || !self.is_leaving() {
            return Ok(());
        }
        self.leaving_since = Some(self.now);
        if self.worker.leaving_threads.fetch_add(1, AcqRel) == 0 {
            self.worker.scoreboard.worker(self.worker.slot).set_accepting(false);
            self.worker.stop_listening()?;
            self.worker.epoll.delete(&self.worker.liveness)?;
        }
        // The event woke one thread; it wakes the next.
        self.worker.wake_next()?;
        Ok(())
    }

    /// Looks for connections that waited too long, or that are to be closed because the worker leaves.
    fn sweep(&mut self, py: Python<'_>, scratch: &mut [u8]) -> anyhow::Result<()> {
        let interval = u64::from(if self.leaving_since.is_some() { LEAVING_SWEEP } else { SWEEP }) * 1_000_000;
        // Whichever thread has the time: the first may be busy with a slow request.
        let swept = self.worker.swept.load(Acquire);
        if self.now.nanos_since(MonotonicNanos::from_nanos(swept)) < interval
            || self.worker.swept.compare_exchange(swept, self.now.as_nanos(), AcqRel, Acquire).is_err()
        {
            return Ok(());
        }
        // A child that comes back from the application finds its links gone: the router would take one that it makes for
        // the worker's, and close that. It ends when it waits for events, of which it has none.
        if !stop::is_worker() {
            return Ok(());
        }
        log_limit::report(self.now);
        let second = self.second();
        for connection in self.worker.connections.take_all(|connection| connection.deadline <= second) {
            self.expire(connection);
        }
        self.take_overlooked(py, scratch)?;
        match self.leaving_since {
            None => {
                if self.follow_drain(py, scratch)? {
                    return Ok(());
                }
                self.link_again();
                if self.worker.has_space()? {
                    self.worker.listen_again()?;
                }
                if let Some(index) = self.worker.overlooked() {
                    // Who waits there came after this batch.
                    self.ready = self.now;
                    self.accept(py, index, scratch)?;
                }
            }
            Some(since) => {
                let all = self.now.nanos_since(since) > LEAVING_LINGER;
                self.part_with_idle(py, scratch, all)?;
            }
        }
        Ok(())
    }

    /// Tells the router that the idle links are to be closed, and closes idle clients if `clients` says so. What they have
    /// sent meanwhile is served.
    pub(super) fn part_with_idle(&mut self, py: Python<'_>, scratch: &mut [u8], clients: bool) -> anyhow::Result<()> {
        let wanted = |connection: &Connection| {
            connection.is_idle()
                && match connection.kind {
                    Kind::Link(_) => !connection.link.leave_sent,
                    _ => clients,
                }
        };
        for mut connection in self.worker.connections.take_all(wanted) {
            if has_unread(&*connection.socket) {
                self.work(py, connection, scratch)?;
            } else if let Kind::Link(_) = connection.kind {
                match connection.tell_leaving() {
                    Ok(()) => self.work(py, connection, scratch)?,
                    Err(_) => self.close(connection),
                }
            } else {
                self.close(connection);
            }
        }
        Ok(())
    }

    /// A connection has waited too long. One that sent a part of a request gets 408.
    fn expire(&mut self, mut connection: Box<Connection>) {
        let seen = self.look_at(&mut connection);
        if seen == Seen::Goes {
            let wait = connection.armed.unwrap_or(Wait::Read);
            return self.settle(connection, Next::Wait(wait));
        }
        if !connection.unsent.is_empty() {
            self.count_write_error();
            self.close(connection);
        } else if connection.is_begun() {
            let input = std::mem::take(&mut connection.input);
            let connection = self.refuse(connection, if seen == Seen::Slow { TOO_SLOW } else { TIMED_OUT }, &input);
            let (connection, next) = self.rest(connection, &mut []);
            self.settle(connection, next);
        } else {
            self.close(connection);
        }
    }

    /// Looks at a client whose time is over: it may have until a later second if its pace is good enough.
    fn look_at(&self, connection: &mut Connection) -> Seen {
        let (second, rates) = (self.second(), connection.rates);
        if connection.waits_for_thread() {
            connection.pace = match &connection.phase {
                _ if !connection.unsent.is_empty() => Pace::of_response(rates, second),
                ConnectionPhase::Body(gathering) => Pace::of_body(rates, second, gathering.intake.len()),
                _ => Pace::Any,
            };
            connection.deadline = second + 1;
            return Seen::Goes;
        }
        let seen = match &connection.phase {
            _ if second < connection.pace.until() => Seen::Early,
            _ if !connection.unsent.is_empty() => {
                let taken = connection.unsent.taken(&*connection.socket);
                connection.pace.look_at_response(rates, second, taken)
            }
            ConnectionPhase::Body(gathering) => connection.pace.look_at_body(rates, second, gathering.intake.len()),
            _ => Seen::Early,
        };
        match seen {
            Seen::Goes => {
                let late = self.deadline(self.worker.config.socket_timeout);
                connection.deadline = late.min(connection.pace.until()).max(second + 1);
            }
            Seen::Slow => self.end_slow_client(&connection.peer, !connection.unsent.is_empty()),
            Seen::Early => {}
        }
        seen
    }

    /// A client is closed because it is too slow: with its body, which is answered, or with taking a response.
    pub(super) fn end_slow_client(&self, peer: &str, is_response: bool) {
        self.worker.scoreboard.limits().end_slow_client();
        if is_response {
            log_slow_response(client_of(peer));
        }
    }

    /// When a wait of this many seconds that begins now is over.
    pub(super) fn deadline(&self, seconds: u32) -> u32 {
        // The clock's second may be nearly over.
        self.second().saturating_add(seconds).saturating_add(1)
    }
}
