//! The master's children: one record for each process that it has started or ordered, whatever it is there for, and
//! for each post that is to have a process, when it is to get one.
//!
//! This is bookkeeping without system calls: the loop reports what has happened, and sends the signals that it says.

mod posts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use self::posts::{PostState, Posts, Vacancy, delay_after};
use super::post::Post;
use super::process::{End, Reaped};
use super::reason::{Reason, Why};
use super::timers::{Timer, Timers};
use crate::clock::UnixMicros;
use crate::ids::{ChildId, GenerationNumber, SlotId};
use crate::ipc::{Auxiliary, AuxiliaryKind};

/// A process that dies sooner than this after it was started is replaced with a delay, and so is one that dies before
/// it serves.
pub(super) const EARLY: Duration = Duration::from_secs(1);

/// Ends of processes that are kept although no child is known to have them. The others are orphans of the
/// application's, whom the master, being a subreaper, inherits; while a fork server does not answer they could be many.
const MOST_UNANNOUNCED: usize = 256;

/// How far a process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It was ordered, or loads yet.
    Starting,
    /// It has said that it serves.
    Serving,
    /// It goes on as it did, and leaves when its successor serves.
    Replacing {
        /// Why.
        reason: Reason,
        /// It has said that it serves.
        is_ready: bool,
    },
    /// It was told to leave, or will be as soon as its process id is known.
    Leaving(Why),
    /// It was sent SIGKILL, or will be as soon as its process id is known.
    Killed(Why),
}

/// One process, from the order to start it until it is reaped.
#[derive(Clone, Debug)]
pub(super) struct Child {
    /// Its number; a later child has a higher one.
    pub(super) id: ChildId,
    /// What it is there for.
    pub(super) post: Post,
    /// The generation of its application; `None` for the http router, which has none.
    pub(super) generation: Option<GenerationNumber>,
    /// Its slot on the scoreboard, when it is a worker.
    pub(super) slot: Option<SlotId>,
    /// Its process id; `None` until its fork server has reported it.
    pub(super) pid: Option<Pid>,
    /// When it was ordered.
    pub(super) since: Instant,
    /// The same, by the system's clock.
    pub(super) spawned_at: UnixMicros,
    /// How far it has come.
    pub(super) stage: Stage,
    /// Since when a signal has stopped it.
    pub(super) stopped_since: Option<Instant>,
    /// That it shows no sign of life was logged.
    pub(super) is_called_silent: bool,
}

impl Child {
    /// It serves, and was not ordered to leave.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Serving | Stage::Replacing { is_ready: true, .. })
    }

    /// It was told to leave, or killed.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving(_) | Stage::Killed(_))
    }

    /// It is to be replaced, and was not ordered to leave yet.
    pub(super) fn is_replacing(&self) -> bool {
        matches!(self.stage, Stage::Replacing { .. })
    }

    /// It serves or is about to, with nothing against it: its post needs no other.
    fn is_current(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Serving)
    }
}

/// What follows from a child's having said that it serves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReadyOutcome {
    /// It was told to leave before it could listen, and is to be signalled again.
    pub(super) stop_again: Option<Pid>,
    /// Those that it replaces, which are to be told to leave, and why.
    pub(super) replaced: Vec<(ChildId, Reason)>,
}

/// A child whose process has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// What was known of it.
    pub(super) child: Child,
    /// What its end counts as.
    pub(super) cause: Cause,
    /// After how long another is started; `None` when none is, or one has been already.
    pub(super) next: Option<Duration>,
}

/// What an end counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was asked for.
    Asked(Why),
    /// It was not.
    Crash,
}

/// All children and their posts. None is looked for among all: the loop asks for each of a thousand workers one after
/// another, at a start, at a reload and for every snapshot.
#[derive(Debug)]
pub(super) struct Children {
    posts: Posts,
    /// In the order in which they were started, which is that of their numbers.
    children: BTreeMap<ChildId, Child>,
    /// Those of each post that has any, in the same order.
    by_post: HashMap<Post, Vec<ChildId>>,
    by_pid: HashMap<Pid, ChildId>,
    by_slot: HashMap<SlotId, ChildId>,
    free_slots: BTreeSet<SlotId>,
    last_id: u64,
    /// Processes that ended before their fork server reported them, each with the last child that was ordered by then:
    /// a later order cannot have made it.
    unannounced: Vec<(Reaped, ChildId)>,
}

impl Children {
    /// None yet; `posts` are to have a process from now on, and `slots` worker processes have space on the scoreboard.
    pub(super) fn new(posts: impl IntoIterator<Item = Post>, slots: u32) -> Self {
        Self {
            posts: Posts::new(posts),
            children: BTreeMap::new(),
            by_post: HashMap::new(),
            by_pid: HashMap::new(),
            by_slot: HashMap::new(),
            free_slots: SlotId::first(slots).collect(),
            last_id: 0,
            unannounced: Vec::new(),
        }
    }

    /// All of them, in the order in which they were started.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Child> {
        let all = self.children.values();
        #[cfg(test)]
        let all = all.inspect(|_| tests::VISITED.set(tests::VISITED.get() + 1));
        all
    }

    /// Those of a post, in the order in which they were started.
    pub(super) fn of(&self, post: Post) -> impl DoubleEndedIterator<Item = &Child> {
        self.by_post.get(&post).into_iter().flatten().filter_map(|id| self.children.get(id))
    }

    /// Every worker's process.
    pub(super) fn workers(&self) -> impl DoubleEndedIterator<Item = &Child> {
        self.iter().filter(|child| matches!(child.post, Post::Worker(_)))
    }

    /// The child of this number.
    pub(super) fn get(&self, id: ChildId) -> Option<&Child> {
        self.children.get(&id)
    }

    fn get_mut(&mut self, id: ChildId) -> Option<&mut Child> {
        self.children.get_mut(&id)
    }

    /// The child with this process id.
    pub(super) fn with_pid(&self, pid: Pid) -> Option<&Child> {
        self.get(*self.by_pid.get(&pid)?)
    }

    /// The worker's process that has this slot.
    pub(super) fn in_slot(&self, slot: SlotId) -> Option<&Child> {
        self.get(*self.by_slot.get(&slot)?)
    }

    /// The fork server of a generation: of several, the first that was not told to leave.
    pub(super) fn fork_server(&self, generation: GenerationNumber) -> Option<&Child> {
        let all = self.of(Post::ForkServer).filter(|child| child.generation == Some(generation));
        all.min_by_key(|child| child.is_leaving())
    }

    /// Whether a process was ordered from the fork server of a generation that it has not reported yet.
    pub(super) fn awaits_report(&self, generation: GenerationNumber) -> bool {
        let mut all = self.iter().filter(|child| child.generation == Some(generation));
        all.any(|child| child.pid.is_none() && child.post != Post::ForkServer)
    }

    /// Whether no process is left.
    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// What is known of a post.
    pub(super) fn post(&self, post: Post) -> &PostState {
        self.posts.get(post)
    }

    /// Has a post filled now, whatever delay it waits out; from now on it is to have a process.
    pub(super) fn fill(&mut self, post: Post, timers: &mut Timers) {
        self.posts.set_wanted(post, true);
        self.posts.set_due(post, timers);
    }

    /// Has a post that is due wait for so long from now.
    pub(super) fn postpone(&mut self, post: Post, delay: Duration, now: Instant, timers: &mut Timers) {
        if self.posts.get(post).vacancy != Vacancy::None {
            self.posts.set_filled(post, timers);
            self.posts.set_due_after(post, delay, now, timers);
        }
    }

    /// From now on the post is to have no process: the caller signals one that it has.
    pub(super) fn abandon(&mut self, post: Post, timers: &mut Timers) {
        self.posts.set_wanted(post, false);
        self.posts.set_filled(post, timers);
    }

    /// The time has come that [`Timer::Start`] was set for.
    pub(super) fn is_due(&mut self, post: Post) {
        self.posts.time_has_come(post);
    }

    /// Posts for which a process is to be started now.
    pub(super) fn due(&self) -> Vec<Post> {
        let is_free = |post: &Post| post.overlaps() || self.of(*post).next().is_none();
        self.posts.due().filter(is_free).collect()
    }

    /// Begins a process for a post; `None` when it is a worker's and every slot is taken.
    pub(super) fn begin(
        &mut self,
        post: Post,
        generation: Option<GenerationNumber>,
        now: Instant,
        spawned_at: UnixMicros,
        timers: &mut Timers,
    ) -> Option<ChildId> {
        let slot = match post {
            Post::Worker(_) => Some(self.free_slots.pop_first()?),
            _ => None,
        };
        self.last_id += 1;
        let id = ChildId::new(self.last_id);
        let child = Child {
            id,
            post,
            generation,
            slot,
            pid: None,
            since: now,
            spawned_at,
            stage: Stage::Starting,
            stopped_since: None,
            is_called_silent: false,
        };
        self.children.insert(id, child);
        self.by_post.entry(post).or_default().push(id);
        self.by_slot.extend(slot.map(|slot| (slot, id)));
        self.posts.set_filled(post, timers);
        self.posts.count_start(post);
        Some(id)
    }

    /// A child has this process id: the signal that it is to be sent, if it was told to leave before.
    #[must_use]
    pub(super) fn announce(&mut self, id: ChildId, pid: Pid) -> Option<Signal> {
        let child = self.children.get_mut(&id)?;
        child.pid = Some(pid);
        self.by_pid.insert(pid, id);
        match child.stage {
            Stage::Leaving(_) => Some(Signal::SIGTERM),
            Stage::Killed(_) => Some(Signal::SIGKILL),
            _ => None,
        }
    }

    /// A process is stopped since then, or goes on. Returns whether it is a child's.
    pub(super) fn set_stopped(&mut self, pid: Pid, since: Option<Instant>) -> bool {
        let child = self.by_pid.get(&pid).and_then(|id| self.children.get_mut(id));
        child.map(|child| child.stopped_since = since).is_some()
    }

    /// That a child shows no sign of life is logged, or that it does again.
    pub(super) fn call_silent(&mut self, id: ChildId, is_silent: bool) {
        if let Some(child) = self.get_mut(id) {
            child.is_called_silent = is_silent;
        }
    }

    /// A process has ended that is no child's yet: kept as long as a fork server could still report it.
    pub(super) fn keep_unannounced(&mut self, reaped: Reaped) {
        if self.unannounced.len() == MOST_UNANNOUNCED {
            self.unannounced.remove(0);
        }
        self.unannounced.push((reaped, ChildId::new(self.last_id)));
        self.forget_unannounced();
    }

    /// The end of a child that was announced just now, if it came before.
    pub(super) fn take_unannounced(&mut self, id: ChildId) -> Option<Reaped> {
        let pid = self.get(id)?.pid?;
        let is_its = |(reaped, last): &(Reaped, ChildId)| reaped.pid == pid && id <= *last;
        let index = self.unannounced.iter().position(is_its);
        let taken = index.map(|index| self.unannounced.swap_remove(index).0);
        self.forget_unannounced();
        taken
    }

    /// Forgets ends that no fork server can report any more: every order from before them was answered.
    fn forget_unannounced(&mut self) {
        if self.unannounced.is_empty() {
            return;
        }
        let oldest = self.iter().find(|child| child.pid.is_none()).map(|child| child.id);
        self.unannounced.retain(|(_, last)| oldest.is_some_and(|oldest| oldest <= *last));
    }

    /// A child says that it serves.
    pub(super) fn mark_ready(&mut self, id: ChildId) -> ReadyOutcome {
        let Some(child) = self.get_mut(id) else { return ReadyOutcome::default() };
        let mut outcome = ReadyOutcome::default();
        match &mut child.stage {
            stage @ Stage::Starting => *stage = Stage::Serving,
            Stage::Replacing { is_ready, .. } => *is_ready = true,
            Stage::Leaving(_) => outcome.stop_again = child.pid,
            Stage::Serving | Stage::Killed(_) => {}
        }
        let post = child.post;
        let reason = |child: &Child| match child.stage {
            Stage::Replacing { reason, .. } => reason,
            _ => Reason::Reload,
        };
        let replaced = self.of(post).filter(|child| child.id < id && !child.is_leaving());
        outcome.replaced = replaced.map(|child| (child.id, reason(child))).collect();
        outcome
    }

    /// A child serves beside the others of its post, which stay. Whether this is news.
    pub(super) fn mark_serving(&mut self, id: ChildId) -> bool {
        let child = self.get_mut(id).filter(|child| child.stage == Stage::Starting);
        child.map(|child| child.stage = Stage::Serving).is_some()
    }

    /// Whether a post has a process, or is about to have one, with nothing against it.
    pub(super) fn is_filled(&self, post: Post) -> bool {
        self.of(post).any(Child::is_current)
    }

    /// Has a child replaced: it leaves when its successor serves. Whether this is news: it may be about to leave
    /// already.
    pub(super) fn replace(&mut self, id: ChildId, reason: Reason, timers: &mut Timers) -> bool {
        let Some(child) = self.get_mut(id).filter(|child| child.is_current()) else { return false };
        child.stage = Stage::Replacing { reason, is_ready: child.stage == Stage::Serving };
        let post = child.post;
        if self.posts.get(post).is_wanted && !self.of(post).any(Child::is_current) {
            // A post that waits out a delay after early deaths keeps it.
            self.posts.set_due_unless_later(post, timers);
        }
        true
    }

    /// A child that was to be replaced goes on after all. Whether this is news.
    pub(super) fn keep(&mut self, id: ChildId, timers: &mut Timers) -> bool {
        let Some(child) = self.get_mut(id) else { return false };
        let Stage::Replacing { is_ready, .. } = child.stage else { return false };
        child.stage = if is_ready { Stage::Serving } else { Stage::Starting };
        let post = child.post;
        self.posts.set_filled(post, timers);
        true
    }

    /// Has a child leave within `grace`. Returns the process to signal, if it was not signalled before.
    #[must_use]
    pub(super) fn dismiss(
        &mut self,
        id: ChildId,
        why: Why,
        grace: Duration,
        now: Instant,
        timers: &mut Timers,
    ) -> Option<Pid> {
        let child = self.get_mut(id).filter(|child| !child.is_leaving())?;
        child.stage = Stage::Leaving(why);
        timers.set_earlier(Timer::Kill(id), now + grace);
        child.pid
    }

    /// Has a child killed: its process, if it is known.
    #[must_use]
    pub(super) fn kill(&mut self, id: ChildId, why: Why, timers: &mut Timers) -> Option<Pid> {
        timers.cancel(Timer::Kill(id));
        let child = self.get_mut(id)?;
        child.stage = Stage::Killed(why);
        child.pid
    }

    /// The time has come that [`Timer::Kill`] was set for. As [`Self::kill`], for the reason that the child was given.
    #[must_use]
    pub(super) fn kill_late(&mut self, id: ChildId, timers: &mut Timers) -> Option<Pid> {
        let why = match self.get(id)?.stage {
            Stage::Leaving(why) => why,
            Stage::Replacing { reason, .. } => Why::For(reason),
            // The timer is set for the others alone.
            Stage::Starting | Stage::Serving | Stage::Killed(_) => return None,
        };
        self.kill(id, why, timers)
    }

    /// A child's process has ended.
    pub(super) fn reap(&mut self, id: ChildId, end: End, now: Instant, timers: &mut Timers) -> Option<Ended> {
        let child = self.remove(id, timers)?;
        let is_asked = child.is_leaving();
        let is_short = now.saturating_duration_since(child.since) < EARLY;
        let is_early = !is_asked
            && match child.post {
                // The router and the emperor do not say when they serve, and a mule may stay in a hook for as long as it runs.
                Post::HttpRouter | Post::Emperor | Post::Auxiliary(Auxiliary { kind: AuxiliaryKind::Mule, .. }) => {
                    is_short
                }
                // A clean exit of one that served is one that was told to leave by hand, or has done enough.
                _ => !child.is_ready() || is_short && end != End::Exited(0),
            };
        let early_deaths = self.posts.count_end(child.post, is_early);
        let cause = match child.stage {
            Stage::Leaving(why) | Stage::Killed(why) => Cause::Asked(why),
            Stage::Replacing { reason: reason @ Reason::Harakiri, .. } => Cause::Asked(Why::For(reason)),
            _ => Cause::Crash,
        };
        let next = self.refill(child.post, delay_after(early_deaths), now, timers);
        Some(Ended { child, cause, next })
    }

    /// A child that was ordered will have no process, through no fault of its own: its post is due as it was.
    pub(super) fn forget_order(&mut self, id: ChildId, now: Instant, timers: &mut Timers) {
        if let Some(child) = self.remove(id, timers) {
            self.refill(child.post, Duration::ZERO, now, timers);
        }
    }

    /// The fork server of this generation is gone, and all that it has reported is known: the same for what it had not
    /// reported of.
    pub(super) fn forget_orders(&mut self, generation: GenerationNumber, now: Instant, timers: &mut Timers) {
        let is_lost = |child: &&Child| {
            child.pid.is_none() && child.post != Post::ForkServer && child.generation == Some(generation)
        };
        let lost: Vec<_> = self.iter().filter(is_lost).map(|child| child.id).collect();
        for id in lost {
            self.forget_order(id, now, timers);
        }
    }

    fn remove(&mut self, id: ChildId, timers: &mut Timers) -> Option<Child> {
        let child = self.children.remove(&id)?;
        timers.cancel(Timer::Kill(id));
        timers.cancel(Timer::UserHarakiri(id));
        if let Some(of_post) = self.by_post.get_mut(&child.post) {
            of_post.retain(|other| *other != id);
            if of_post.is_empty() {
                self.by_post.remove(&child.post);
            }
        }
        if let Some(pid) = child.pid.filter(|pid| self.by_pid.get(pid) == Some(&id)) {
            self.by_pid.remove(&pid);
        }
        if let Some(slot) = child.slot {
            self.by_slot.remove(&slot);
            self.free_slots.insert(slot);
        }
        self.forget_unannounced();
        Some(child)
    }

    /// Has a post filled again that has just lost a process, if need be; returns the delay.
    fn refill(&mut self, post: Post, delay: Duration, now: Instant, timers: &mut Timers) -> Option<Duration> {
        if !self.posts.get(post).is_wanted || self.of(post).any(Child::is_current) {
            return None;
        }
        // What is due already was so for a reason of its own.
        self.posts.set_due_after(post, delay, now, timers);
        Some(delay)
    }
}
