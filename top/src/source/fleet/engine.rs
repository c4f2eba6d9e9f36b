//! Asks all servers of a fleet, again and again, on one thread: what waits costs a socket, and holds up nothing.
//!
//! Polls are spread over the interval, in a few dozen groups, so that there are few wake-ups and no burst. A server that fails
//! is asked less and less often, down to every half minute.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::discovery::{Named, Read};
use super::exchange::{Exchange, Progress, Question};
use super::members::{Member, Members};
use super::names::{Names, Resolved, addresses};
use super::schedule::Schedule;
use super::{DeliverEvents, FleetEvent, Ids, Server};
use crate::source::fetch::{body_of, document_of, is_reply};
use crate::source::ssh::{TunnelState, Tunnels};
use crate::source::{Clock, SourceError, Spot, Target};

/// What wakes the thread beside sockets.
const WAKER: Token = Token(usize::MAX);
/// Events are passed on at least so often while there are any.
const BEAT: Duration = Duration::from_millis(250);
/// How often whoever waits for a tunnel is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Buffers that are kept for the next answers, and how large one that is kept may be.
const SPARE: usize = 64;
const SPARE_SIZE: usize = 256 << 10;
/// All answers that are being read may hold so much.
const MOST_BYTES: usize = 64 << 20;
/// Files that rtop needs beside sockets.
const OTHER_FILES: u64 = 64;
/// No more servers are watched.
const MOST_SERVERS: usize = 20_000;

/// What other threads want of the engine.
pub(super) enum Command {
    /// A source (by number) tells which servers there are, or what is wrong.
    Named(usize, Read),
    /// A source that asks servers itself tells what came of it.
    Relay(usize, Vec<FleetEvent>),
    /// The addresses of a host.
    Resolved(String, Resolved),
    /// Polls are so far apart from now on.
    Interval(Duration),
    Stop,
}

/// Brings commands to the engine.
#[derive(Clone)]
pub(super) struct Mailbox {
    sender: Sender<Command>,
    waker: Arc<Waker>,
}

impl Mailbox {
    /// `false` when the engine has ended.
    pub(super) fn send(&self, command: Command) -> bool {
        self.sender.send(command).is_ok() && self.waker.wake().is_ok()
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailbox")
    }
}

/// What names servers, or knows of them.
#[derive(Debug)]
pub(super) struct Origin {
    /// As it was typed.
    pub(super) label: Arc<str>,
    /// A server that it names no more is watched until it does not answer.
    pub(super) lingers: bool,
    /// It has told something.
    pub(super) has_told: bool,
    /// What is wrong with it.
    pub(super) trouble: Option<String>,
}

/// What an engine is made with.
pub(super) struct Settings {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// How long whoever names servers has before it is said to be slow.
    pub(super) patience: Duration,
    pub(super) clock: Clock,
    pub(super) ids: Ids,
    pub(super) tunnels: Arc<Tunnels>,
}

/// The thread's state.
pub(super) struct Engine {
    settings: Settings,
    poll: Poll,
    commands: Receiver<Command>,
    deliver: DeliverEvents,
    origins: Vec<Origin>,
    members: Members,
    names: Names,
    schedule: Schedule,
    /// Exchanges that may be under way at once, and that are.
    most_exchanges: usize,
    exchanges: usize,
    spare: Vec<Vec<u8>>,
    out: Vec<FleetEvent>,
    passed_on: Instant,
    /// When something is due that no event tells of.
    wake: Instant,
}

impl Engine {
    pub(super) fn new(
        settings: Settings,
        origins: Vec<Origin>,
        commands: (Sender<Command>, Receiver<Command>),
        deliver: DeliverEvents,
    ) -> io::Result<(Self, Mailbox)> {
        let poll = Poll::new()?;
        let mailbox = Mailbox { sender: commands.0, waker: Arc::new(Waker::new(poll.registry(), WAKER)?) };
        let now = Instant::now();
        let answered = mailbox.clone();
        let names = Names::new(move |host, resolved| {
            answered.send(Command::Resolved(host, resolved));
        });
        let engine = Self {
            schedule: Schedule::new(now, settings.interval),
            settings,
            poll,
            commands: commands.1,
            deliver,
            origins,
            members: Members::default(),
            names,
            most_exchanges: most_files(),
            exchanges: 0,
            spare: Vec::new(),
            out: Vec::new(),
            passed_on: now,
            wake: now,
        };
        Ok((engine, mailbox))
    }

    /// Goes on until nobody wants any more.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        loop {
            let left = self.wake.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(left)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    let why = format!("cannot wait for servers: {error}");
                    self.out.push(FleetEvent::Source("rtop".into(), Some(why)));
                    (self.deliver)(std::mem::take(&mut self.out));
                    return;
                }
                _ => {}
            }
            let now = Instant::now();
            for event in &events {
                if event.token() != WAKER {
                    self.advance(event.token().0, now);
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                if !self.obey(command, now) {
                    return;
                }
            }
            if now >= self.wake {
                self.tick(now);
            }
            if !self.pass_on(now) {
                return;
            }
        }
    }

    fn obey(&mut self, command: Command, now: Instant) -> bool {
        match command {
            Command::Named(origin, read) => {
                self.told(origin, read.as_ref().err().cloned());
                if let Ok(named) = read {
                    self.rename(origin, named, now);
                }
            }
            Command::Relay(origin, events) => {
                // What is wrong with it, its own events say.
                self.told(origin, None);
                self.out.extend(events);
            }
            Command::Resolved(host, resolved) => self.names.answer(&host, resolved, now),
            Command::Interval(interval) => {
                self.settings.interval = interval;
                self.schedule.set_interval(interval);
                for (slot, member) in self.members.iter_mut() {
                    member.due = member.due.min(self.schedule.next(slot, now));
                }
            }
            Command::Stop => return false,
        }
        self.wake = now;
        true
    }

    /// Keeps what is wrong with a source, and tells it when that changes.
    fn told(&mut self, origin: usize, trouble: Option<String>) {
        let Some(origin) = self.origins.get_mut(origin) else { return };
        origin.has_told = true;
        if origin.trouble != trouble {
            origin.trouble.clone_from(&trouble);
            self.out.push(FleetEvent::Source(Arc::clone(&origin.label), trouble));
        }
    }

    /// Takes in which servers a source names now.
    fn rename(&mut self, origin: usize, named: Vec<Named>, now: Instant) {
        let lingers = self.origins.get(origin).is_some_and(|origin| origin.lingers);
        let mut wanted = HashMap::new();
        for server in named {
            wanted.entry(server.spot.to_string()).or_insert(server);
        }
        for slot in self.members.of_origin(origin) {
            let Some(member) = self.members.get_mut(slot) else { continue };
            let same = wanted.get(&member.key).is_some_and(|server| member.is(&server.name, &server.labels));
            if same {
                wanted.remove(&member.key);
                continue;
            }
            member.origins.retain(|other| *other != origin);
            let renamed = wanted.contains_key(&member.key);
            if member.origins.is_empty() && (renamed || !lingers) {
                self.leave(slot);
            }
        }
        let mut new: Vec<Named> = wanted.into_values().collect();
        new.sort_by_key(|server| server.spot.to_string());
        let mut problem = None;
        for server in new {
            if let Some(member) = self.members.by_key(&server.spot.to_string()) {
                member.origins.push(origin);
            } else if self.members.len() >= MOST_SERVERS {
                problem = Some(format!("only the first {MOST_SERVERS} servers are watched"));
            } else if let Err(error) = self.join(origin, server, now) {
                problem = Some(error);
            }
        }
        if problem.is_some() {
            self.told(origin, problem);
        }
    }

    fn join(&mut self, origin: usize, named: Named, now: Instant) -> Result<(), String> {
        let key = named.spot.to_string();
        let target = match named.spot {
            Spot::Near(target) => target,
            Spot::Far(far) => {
                Target::Tunnel(self.settings.tunnels.open(&far).map_err(|error| format!("{key}: {error}"))?)
            }
        };
        let name = if named.name.is_empty() { key.clone() } else { named.name.clone() };
        let id = self.settings.ids.next();
        let server = Server { name, labels: named.labels.clone(), address: Some(target.clone()) };
        self.out.push(FleetEvent::Joined(id, server));
        let slot = self.members.add(Member::new(id, key, target, origin, (named.name, named.labels), now));
        if let Some(member) = self.members.get_mut(slot) {
            member.due = self.schedule.first(slot, now);
        }
        Ok(())
    }

    fn leave(&mut self, slot: usize) {
        if let Some(member) = self.members.remove(slot) {
            self.exchanges -= usize::from(member.exchange.is_some());
            self.out.push(FleetEvent::Left(member.id));
        }
    }

    /// Does what is due, and finds out when something is next.
    fn tick(&mut self, now: Instant) {
        let mut wake = now + self.settings.interval.max(Duration::from_secs(1));
        for slot in 0..self.members.slots() {
            let Some(member) = self.members.get_mut(slot) else { continue };
            let asked_for = now.saturating_duration_since(member.asked);
            if member.is_asked && !member.is_late && asked_for >= self.settings.interval {
                member.is_late = true;
                member.is_settled = true;
                self.out.push(FleetEvent::Late(member.id, self.settings.clock.at()));
            }
            let looked_at = member.exchange.as_ref().map_or(member.due, |_| member.look);
            if looked_at <= now {
                if member.exchange.is_some() { self.advance(slot, now) } else { self.ask(slot, now) }
            }
            let Some(member) = self.members.get_mut(slot) else { continue };
            let next = if member.exchange.is_some() { member.look } else { member.due };
            wake = wake.min(next);
            if member.is_asked && !member.is_late {
                wake = wake.min(member.asked + self.settings.interval);
            }
        }
        self.wake = self.schedule.sweep().map_or(wake, |sweep| wake.min(sweep)).max(now + Duration::from_millis(1));
    }

    /// Begins to ask a server, if that is possible.
    fn ask(&mut self, slot: usize, now: Instant) {
        let Some(member) = self.members.get_mut(slot) else { return };
        if !member.is_asked {
            (member.is_asked, member.asked, member.is_late) = (true, now, false);
        }
        let expired = now.saturating_duration_since(member.asked) >= self.settings.timeout;
        if let Target::Tunnel(tunnel) = &member.target {
            match tunnel.state() {
                TunnelState::Open => {}
                TunnelState::Failed(why) => return self.fail(slot, SourceError::Tunnel(why), now),
                TunnelState::Starting if expired => {
                    return self.fail(slot, SourceError::Tunnel("it has not connected yet".to_owned()), now);
                }
                TunnelState::Starting => {
                    member.due = now + LOOK;
                    return;
                }
            }
        }
        let addresses = match addresses(&member.target, &mut self.names, now) {
            Ok(Some(addresses)) => addresses,
            Ok(None) if expired => return self.fail(slot, SourceError::Unresolved(self.settings.timeout), now),
            Ok(None) => {
                member.due = now + LOOK;
                return;
            }
            Err(error) => return self.fail(slot, error, now),
        };
        if self.exchanges >= self.most_exchanges {
            member.due = now + LOOK;
            return;
        }
        let question = Question {
            request: member.request.clone(),
            may_be_control: member.target.may_be_control(),
            is_control: member.is_control,
        };
        let addresses = member.in_order(addresses);
        let room = self.spare.pop().unwrap_or_default();
        // What it waited for before is part of the time that it has.
        member.exchange = Some(Exchange::new(question, addresses, room, member.asked, self.settings.timeout));
        self.exchanges += 1;
        self.advance(slot, now);
    }

    fn advance(&mut self, slot: usize, now: Instant) {
        let Some(member) = self.members.get_mut(slot) else { return };
        let Some(exchange) = &mut member.exchange else { return };
        match exchange.advance(now) {
            Progress::Waits(changed) => {
                member.look = exchange.look(now);
                self.wake = self.wake.min(member.look);
                let watched = exchange.socket().filter(|_| changed).map_or(Ok(()), |socket| {
                    let both = Interest::READABLE | Interest::WRITABLE;
                    // Closing the socket ends it.
                    self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(slot), both)
                });
                if let Err(error) = watched {
                    self.fail(slot, SourceError::Connect(error), now);
                } else if self.members.get(slot).is_some_and(Member::holds_much) && self.held() > MOST_BYTES {
                    self.fail(slot, SourceError::Crowded, now);
                }
            }
            Progress::Done(bytes) => self.answered(slot, bytes, now),
            Progress::Failed(error) => self.fail(slot, error, now),
        }
    }

    fn held(&self) -> usize {
        self.members.iter().filter_map(|member| member.exchange.as_ref()).map(Exchange::size).sum()
    }

    fn answered(&mut self, slot: usize, bytes: Vec<u8>, now: Instant) {
        let Some(member) = self.members.get_mut(slot) else { return };
        member.is_control = member.target.may_be_control() && is_reply(&bytes);
        let document = if bytes.is_empty() {
            Err(SourceError::Empty)
        } else if member.is_control {
            document_of(&bytes)
        } else if bytes.starts_with(b"HTTP/") {
            body_of(bytes)
        } else {
            Ok(bytes)
        };
        let at = self.settings.clock.at();
        let sample = document.and_then(|document| {
            let sample = member.reader.read(&document, at);
            if self.spare.len() < SPARE && document.capacity() <= SPARE_SIZE {
                self.spare.push(document);
            }
            sample
        });
        match sample {
            Ok(sample) => {
                member.succeed();
                member.due = self.schedule.next(slot, now);
                self.wake = self.wake.min(member.due);
                self.exchanges -= usize::from(member.exchange.take().is_some());
                self.out.push(FleetEvent::Sample(member.id, sample));
            }
            Err(error) => self.fail(slot, error, now),
        }
    }

    fn fail(&mut self, slot: usize, error: SourceError, now: Instant) {
        let Some(member) = self.members.get_mut(slot) else { return };
        if let Some(exchange) = member.exchange.take() {
            self.exchanges -= 1;
            let room = exchange.into_room();
            if self.spare.len() < SPARE && (1..=SPARE_SIZE).contains(&room.capacity()) {
                self.spare.push(room);
            }
        }
        let error = if let Target::Tunnel(tunnel) = &member.target { tunnel.explain(error) } else { error };
        member.fail();
        member.due = self.schedule.after_failure(slot, member.failures, now);
        self.wake = self.wake.min(member.due);
        let unnamed = member.origins.is_empty();
        self.out.push(FleetEvent::Failed(member.id, self.settings.clock.at(), error));
        if unnamed {
            self.leave(slot);
        }
    }

    /// Passes on what has happened, if it is time; `false` when nobody wants it.
    fn pass_on(&mut self, now: Instant) -> bool {
        let begun = self.schedule.sweep().is_some();
        if !begun && now >= self.schedule.origin() + self.settings.patience {
            for origin in 0..self.origins.len() {
                if !self.origins[origin].has_told {
                    let seconds = self.settings.patience.as_secs_f64();
                    self.told(origin, Some(format!("it has not answered within {seconds:.1} s")));
                }
            }
        }
        let is_settled = begun
            || self.origins.iter().all(|origin| origin.has_told) && self.members.iter().all(|member| member.is_settled);
        let swept = is_settled && self.schedule.take_sweep(now);
        if swept {
            self.out.push(FleetEvent::Sweep(self.settings.clock.at()));
        }
        if let Some(sweep) = self.schedule.sweep() {
            self.wake = self.wake.min(sweep);
        }
        let beat = BEAT.min(self.settings.interval);
        if !self.out.is_empty() && (swept || now >= self.passed_on + beat) {
            self.passed_on = now;
            return (self.deliver)(std::mem::take(&mut self.out));
        }
        if !self.out.is_empty() {
            self.wake = self.wake.min(self.passed_on + beat);
        }
        true
    }
}

/// How many sockets may be open at once, after asking for as many as the system allows.
fn most_files() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        limit = raised;
    }
    let files = limit.current.unwrap_or(u64::MAX).saturating_sub(OTHER_FILES);
    usize::try_from(files).unwrap_or(usize::MAX).clamp(16, MOST_SERVERS)
}
