//! The processes beside the workers (spoolers): forked from the same fork servers, one process for each post.
//!
//! A post never has two processes: in a reload its process is told to leave, and the new generation's is started when
//! it has gone. So whatever belongs to a post (its cell on the scoreboard, its queue) has one owner at any time.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{error, info, warn};

use super::Master;
use super::pool::{EARLY, delay_after};
use super::process::{End, Reaped};
use super::shutdown::Phase;
use super::workers::signal;
use crate::config::Config;
use crate::ipc::{Auxiliary, AuxiliaryKind, Order, Role};

/// An auxiliary process that was told to leave is told again after this: the first time it may not have listened yet.
const REMINDER: Duration = Duration::from_secs(1);

/// The process that a post has, from the order to fork it until it is reaped.
#[derive(Debug)]
struct Life {
    /// Once the fork server has told.
    pid: Option<Pid>,
    generation: u32,
    since: Instant,
    /// It was told to leave: when to tell it again.
    reminder: Option<Instant>,
    /// When it is killed if it has not left by then.
    killed_at: Option<Instant>,
}

impl Life {
    fn is_leaving(&self) -> bool {
        self.reminder.is_some()
    }
}

/// What one auxiliary process is there for, and its process.
#[derive(Debug)]
pub(super) struct Post {
    /// What it is.
    pub(super) who: Auxiliary,
    /// How often a process was started for it.
    pub(super) starts: u64,
    life: Option<Life>,
    early_deaths: u32,
    /// When a process is to be started.
    due: Option<Instant>,
}

impl Post {
    fn new(who: Auxiliary, now: Instant) -> Self {
        Self { who, starts: 0, life: None, early_deaths: 0, due: Some(now) }
    }

    /// Its process, if it has one.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.life.as_ref()?.pid
    }

    fn begin(&mut self, generation: u32, now: Instant) {
        self.due = None;
        self.starts += 1;
        self.life = Some(Life { pid: None, generation, since: now, reminder: None, killed_at: None });
    }

    /// Asks the process to leave within `mercy`.
    fn send_away(&mut self, now: Instant, mercy: Duration) {
        let Some(life) = self.life.as_mut().filter(|life| !life.is_leaving()) else { return };
        life.reminder = Some(now + REMINDER);
        life.killed_at = Some(now + mercy);
        if let Some(pid) = life.pid {
            signal(pid, Signal::SIGTERM);
        }
    }

    /// The process has ended. Returns whether it was told to leave, and the delay before the next one.
    fn end(&mut self, end: End, now: Instant) -> (bool, Duration) {
        let Some(life) = self.life.take() else { return (true, Duration::ZERO) };
        let asked = life.is_leaving() || end == End::Exited(0);
        let early = now.duration_since(life.since) < EARLY;
        self.early_deaths = if early && !asked { self.early_deaths + 1 } else { 0 };
        let delay = delay_after(self.early_deaths);
        self.due = Some(now + delay);
        (asked, delay)
    }

    /// The next moment at which something is to be done about it.
    fn deadline(&self, can_fork: bool) -> Option<Instant> {
        let of_life = self.life.iter().flat_map(|life| [life.reminder, life.killed_at]).flatten().min();
        of_life.into_iter().chain(self.due.filter(|_| can_fork)).min()
    }
}

/// A post for each auxiliary process that is configured.
pub(super) fn posts(config: &Config, now: Instant) -> Vec<Post> {
    let mules = config.between.mules.len() as u32;
    [(AuxiliaryKind::Spooler, config.spooler.count()), (AuxiliaryKind::Mule, mules)]
        .into_iter()
        .flat_map(|(kind, count)| (1..=count).map(move |number| Post::new(Auxiliary { kind, number }, now)))
        .collect()
}

impl Master {
    /// The next moment at which something is to be done about an auxiliary process.
    pub(super) fn auxiliary_deadline(&self) -> Option<Instant> {
        let can_fork = self.can_fork() && self.phase == Phase::Serving;
        self.auxiliaries.iter().filter_map(|post| post.deadline(can_fork)).min()
    }

    /// Orders a process for every post that is due, tells those again that were told to leave, kills the late.
    pub(super) fn tend_auxiliaries(&mut self, now: Instant) {
        for post in &mut self.auxiliaries {
            let Some(life) = &mut post.life else { continue };
            let Some(pid) = life.pid else { continue };
            if life.killed_at.is_some_and(|at| at <= now) {
                life.killed_at = None;
                warn!("{} (pid {pid}) did not leave in time: killed", post.who);
                signal(pid, Signal::SIGKILL);
            }
            if life.reminder.is_some_and(|at| at <= now) {
                life.reminder = Some(now + REMINDER);
                signal(pid, Signal::SIGTERM);
            }
        }
        if self.phase != Phase::Serving {
            return;
        }
        let Some(generation) = self.generations.iter().find(|g| g.number == self.current) else { return };
        for post in self.auxiliaries.iter_mut().filter(|post| post.due.is_some_and(|due| due <= now)) {
            post.begin(generation.number, now);
            if let Err(error) = generation.order(Order::Fork(Role::Auxiliary(post.who))) {
                error!("{}: cannot be forked: {error}", post.who);
                post.end(End::Exited(1), now);
            }
        }
    }

    fn post(&mut self, who: Auxiliary) -> Option<&mut Post> {
        self.auxiliaries.iter_mut().find(|post| post.who == who)
    }

    /// An auxiliary process was forked; it may have ended already.
    pub(super) fn auxiliary_forked(&mut self, who: Auxiliary, pid: Pid) {
        if let Some(life) = self.post(who).and_then(|post| post.life.as_mut()) {
            life.pid = Some(pid);
            if life.is_leaving() {
                signal(pid, Signal::SIGTERM);
            }
        }
        self.bury_unannounced(pid);
    }

    /// An auxiliary process could not be forked.
    pub(super) fn auxiliary_not_forked(&mut self, who: Auxiliary, reason: &str) {
        error!("{who}: cannot be forked: {reason}");
        if let Some(post) = self.post(who) {
            post.end(End::Exited(1), Instant::now());
        }
    }

    /// A new generation serves: every auxiliary process of an older one leaves for its successor.
    pub(super) fn renew_auxiliaries(&mut self, now: Instant) {
        let mercy = if self.haste { Duration::ZERO } else { Duration::from_secs(self.config.reload_mercy.into()) };
        for post in &mut self.auxiliaries {
            match &post.life {
                Some(life) if life.generation < self.current => post.send_away(now, mercy),
                Some(_) => {}
                // One that waits out its delay after early deaths deserves a new try with the new application.
                None => post.due = Some(now),
            }
        }
    }

    /// The server stops: every auxiliary process finishes what it has and leaves.
    pub(super) fn dismiss_auxiliaries(&mut self, now: Instant) {
        let mercy = Duration::from_secs(self.config.reload_mercy.into());
        for post in &mut self.auxiliaries {
            post.send_away(now, mercy);
        }
    }

    /// Every auxiliary process that has a process.
    pub(super) fn auxiliary_pids(&self) -> impl Iterator<Item = Pid> {
        self.auxiliaries.iter().filter_map(Post::pid)
    }

    /// Whether an auxiliary process's process id is still to be told by its fork server.
    pub(super) fn awaits_auxiliary(&self) -> bool {
        self.auxiliaries.iter().any(|post| post.life.as_ref().is_some_and(|life| life.pid.is_none()))
    }

    /// A fork server has ended: what it was to fork and has not told of is ordered anew.
    pub(super) fn give_up_auxiliaries_of(&mut self, generation: u32) {
        let now = Instant::now();
        for post in &mut self.auxiliaries {
            if post.life.as_ref().is_some_and(|life| life.pid.is_none() && life.generation == generation) {
                post.end(End::Exited(1), now);
            }
        }
    }

    /// Whether `reaped` was an auxiliary process; if so, it is started again unless the server stops.
    pub(super) fn bury_auxiliary(&mut self, reaped: Reaped) -> bool {
        let Reaped { pid, end, .. } = reaped;
        let now = Instant::now();
        let is_serving = self.phase == Phase::Serving;
        let Some(post) = self.auxiliaries.iter_mut().find(|post| post.pid() == Some(pid)) else { return false };
        let lived = post.life.as_ref().map_or(Duration::ZERO, |life| now.duration_since(life.since));
        let who = post.who;
        let (asked, delay) = post.end(end, now);
        let held = match who.kind {
            AuxiliaryKind::Spooler => self.bury_spooler(who, pid, end),
            AuxiliaryKind::Mule => None,
        };
        match end {
            End::Exited(0) => info!("{who} (pid {pid}) has left"),
            end if asked && !is_serving => info!("{who} (pid {pid}): {end}"),
            end => {
                let lived = lived.as_secs();
                let next = match delay {
                    Duration::ZERO => "starting another".to_owned(),
                    delay => format!("starting another in {} s", delay.as_secs()),
                };
                error!("{who} (pid {pid}) died after {lived} s: {end}; {next}");
            }
        }
        if let Some(held) = held {
            warn!("{who} (pid {pid}) ended while it ran {held}");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(now: Instant) -> Post {
        Post::new(Auxiliary { kind: AuxiliaryKind::Spooler, number: 1 }, now)
    }

    #[test]
    fn early_deaths_in_a_row_wait_longer_and_a_long_life_forgives() {
        let mut now = Instant::now();
        let mut post = post(now);
        let mut delays = Vec::new();
        for _ in 0..7 {
            post.begin(1, now);
            let (asked, delay) = post.end(End::Killed(9), now);
            assert!(!asked);
            delays.push(delay.as_secs());
            now += delay;
            assert_eq!(post.deadline(true), Some(now));
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        post.begin(1, now);
        assert_eq!(post.end(End::Killed(9), now + EARLY), (false, Duration::ZERO));
        assert_eq!(post.starts, 8);
    }

    #[test]
    fn one_that_left_because_it_was_told_to_or_had_done_enough_is_followed_at_once() {
        let now = Instant::now();
        let mut post = post(now);
        post.begin(1, now);
        assert_eq!(post.end(End::Exited(0), now), (true, Duration::ZERO));
        post.begin(1, now);
        post.send_away(now, Duration::from_secs(60));
        assert_eq!(post.deadline(true), Some(now + REMINDER));
        assert_eq!(post.end(End::Killed(9), now), (true, Duration::ZERO));
    }
}
