//! The vassals and what becomes of each: bookkeeping without system calls.
//!
//! ```text
//! (Waiting ─▶) BeforeStart ─▶ Running ─▶ Stopping ─▶ AfterStop ─▶ gone, or Waiting
//! ```
//!
//! Only a vassal with a socket of its own waits; only where hooks are configured is there a time before the start and
//! after the stop. A vassal that dies by itself goes from Running to AfterStop, and the next scan finds its file again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::Pid;

use super::ids::{Moment, VassalId};
use super::throttle::Throttle;
use crate::vassal::Report;

/// A user and a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A vassal's file, as a scan has found it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) id: VassalId,
    pub(super) modified: SystemTime,
    pub(super) owner: Owner,
}

/// How far a vassal has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is started when somebody connects to its socket.
    Waiting,
    /// The start hook runs.
    BeforeStart(Pid),
    Running(Pid),
    /// It was told to stop, or is not connected any more.
    Stopping {
        pid: Pid,
        kill_at: Instant,
        then: Then,
        /// It was told to, rather than found to be gone.
        is_asked: bool,
    },
    /// The stop hook runs.
    AfterStop(Pid, Then),
}

/// What becomes of a vassal that has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Remove,
    /// It waits for the next connection.
    Wait,
}

/// One vassal.
#[derive(Debug)]
pub(super) struct Vassal {
    pub(super) id: VassalId,
    pub(super) owner: Owner,
    pub(super) modified: SystemTime,
    /// The socket whose first connection starts it.
    pub(super) on_demand: Option<String>,
    pub(super) stage: Stage,
    /// Its present process, counted over all vassals.
    pub(super) run: u64,
    /// When that was started.
    run_at: Option<Instant>,
    /// Its last heartbeat.
    beat_at: Option<Instant>,
    /// When heartbeats were found missing.
    missed_at: Option<Instant>,
    /// What it has reported, and when, as the stats document has it.
    pub(super) record: rwsgi_stats::Vassal,
}

impl Vassal {
    /// The process that is or was started for it.
    pub(super) fn pid(&self) -> Option<Pid> {
        match self.stage {
            Stage::Running(pid) | Stage::Stopping { pid, .. } => Some(pid),
            _ => None,
        }
    }

    fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
        self.record.pid = self.pid().map_or(-1, Pid::as_raw);
    }
}

/// What is to be done about a file that a scan has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Nothing,
    /// It is new: a vassal is to be started for it.
    Add,
    Reload,
    /// It has another owner, and so the vassal must not go on.
    Stop,
}

/// What follows from the end of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was nobody's.
    Unknown,
    /// The start hook is over: the vassal is to be started.
    Hook(VassalId),
    /// The vassal is over; it waits this long if it has died early, or just after its start.
    Vassal(VassalId, Then, Option<Duration>),
    /// The stop hook is over.
    StopHook(VassalId, Then),
}

/// All vassals. What comes in once for each of a thousand vassals, such as a file that a scan has found or a heartbeat, is
/// not looked for among all of them.
#[derive(Debug)]
pub(super) struct Vassals {
    list: BTreeMap<VassalId, Vassal>,
    /// Whose each present process is.
    runs: HashMap<u64, VassalId>,
    /// `None` when early deaths do not matter.
    pub(super) throttle: Option<Throttle>,
    is_tyrant: bool,
    last_run: u64,
    /// Those that have ended just after their start: not before then are they started again.
    pauses: BTreeMap<VassalId, Instant>,
    /// None is to be killed before that; see [`Self::next_kill`].
    next_kill: Option<Instant>,
}

/// The least time between two starts of a vassal, and that for heartbeats to be read.
const PAUSE: Duration = Duration::from_secs(1);

impl Vassals {
    pub(super) fn new(throttle: Option<Throttle>, is_tyrant: bool) -> Self {
        Self {
            list: BTreeMap::new(),
            runs: HashMap::new(),
            throttle,
            is_tyrant,
            last_run: 0,
            pauses: BTreeMap::new(),
            next_kill: None,
        }
    }

    /// In the order of their monitors and names.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Vassal> {
        self.list.values()
    }

    pub(super) fn get(&self, id: &VassalId) -> Option<&Vassal> {
        self.list.get(id)
    }

    fn get_mut(&mut self, id: &VassalId) -> Option<&mut Vassal> {
        self.list.get_mut(id)
    }

    /// The vassal whose present process this is.
    pub(super) fn of_run(&self, run: u64) -> Option<&Vassal> {
        self.list.get(self.runs.get(&run)?)
    }

    /// What is to be done about a file.
    pub(super) fn judge(&mut self, seen: &Seen, now: Moment) -> Verdict {
        let is_tyrant = self.is_tyrant;
        let Some(vassal) = self.list.get_mut(&seen.id) else {
            let waits = self.throttle.as_mut().is_some_and(|throttle| throttle.holds(&seen.id, seen.modified, now));
            let pauses = self.pauses.get(&seen.id).is_some_and(|until| *until > now.at);
            return if waits || pauses { Verdict::Nothing } else { Verdict::Add };
        };
        if is_tyrant && vassal.owner != seen.owner {
            return Verdict::Stop;
        }
        if vassal.modified == seen.modified {
            return Verdict::Nothing;
        }
        match vassal.stage {
            Stage::Running(_) => Verdict::Reload,
            // It reads its file when it is started.
            Stage::Waiting | Stage::BeforeStart(_) => {
                vassal.set_modified(seen.modified);
                Verdict::Nothing
            }
            // The next scan finds it again.
            Stage::Stopping { .. } | Stage::AfterStop(..) => Verdict::Nothing,
        }
    }

    /// A new vassal, which waits.
    pub(super) fn add(&mut self, seen: Seen, on_demand: Option<String>, monitor: &str) {
        let modified = unix(seen.modified);
        let record = rwsgi_stats::Vassal {
            id: seen.id.name.clone(),
            pid: -1,
            born: modified,
            last_mod: modified,
            on_demand: on_demand.clone().unwrap_or_default(),
            uid: seen.owner.uid,
            gid: seen.owner.gid,
            monitor: monitor.to_owned(),
            ..rwsgi_stats::Vassal::default()
        };
        let vassal = Vassal {
            id: seen.id.clone(),
            owner: seen.owner,
            modified: seen.modified,
            on_demand,
            stage: Stage::Waiting,
            run: 0,
            run_at: None,
            beat_at: None,
            missed_at: None,
            record,
        };
        self.list.insert(seen.id, vassal);
    }

    /// The start hook runs.
    pub(super) fn hook_runs(&mut self, id: &VassalId, pid: Pid) {
        if let Some(vassal) = self.get_mut(id) {
            vassal.set_stage(Stage::BeforeStart(pid));
        }
    }

    /// The stop hook runs.
    pub(super) fn stop_hook_runs(&mut self, id: &VassalId, pid: Pid, then: Then) {
        if let Some(vassal) = self.get_mut(id) {
            vassal.set_stage(Stage::AfterStop(pid, then));
        }
    }

    /// A process was started for it; returns the number of the run.
    pub(super) fn started(&mut self, id: &VassalId, pid: Pid, now: Moment) -> u64 {
        self.last_run += 1;
        let run = self.last_run;
        if let Some(vassal) = self.list.get_mut(id) {
            self.runs.remove(&vassal.run);
            self.runs.insert(run, id.clone());
            vassal.run = run;
            (vassal.run_at, vassal.beat_at, vassal.missed_at) = (Some(now.at), None, None);
            let record = &mut vassal.record;
            if record.first_run == 0 {
                record.first_run = now.unix;
            }
            record.last_run = now.unix;
            (record.ready, record.accepting, record.loyal, record.last_heartbeat, record.cursed) = (0, 0, 0, 0, 0);
            vassal.set_stage(Stage::Running(pid));
        }
        run
    }

    /// It was told to reload, for its file has changed, or for another reason.
    pub(super) fn reloaded(&mut self, id: &VassalId, modified: Option<SystemTime>, now: Moment) {
        if let Some(vassal) = self.get_mut(id) {
            if let Some(modified) = modified {
                vassal.set_modified(modified);
            }
            let record = &mut vassal.record;
            record.respawns += 1;
            record.last_run = now.unix;
            (record.ready, record.accepting) = (0, 0);
        }
    }

    /// It is to stop. Returns whether it is to be told: it was not before, and has a process.
    pub(super) fn stop(&mut self, id: &VassalId, then: Then, tolerance: Duration, now: Moment) -> bool {
        let Some(vassal) = self.get_mut(id) else { return false };
        match vassal.stage {
            Stage::Running(pid) => {
                vassal.record.cursed = now.unix;
                vassal.set_stage(Stage::Stopping { pid, kill_at: now.at + tolerance, then, is_asked: true });
                self.look_at(now.at + tolerance);
                true
            }
            Stage::Stopping { pid, kill_at, is_asked, .. } if then == Then::Remove => {
                let kill_at = kill_at.min(now.at + tolerance);
                vassal.set_stage(Stage::Stopping { pid, kill_at, then, is_asked });
                self.look_at(kill_at);
                false
            }
            Stage::AfterStop(hook, _) if then == Then::Remove => {
                vassal.set_stage(Stage::AfterStop(hook, then));
                false
            }
            _ => false,
        }
    }

    /// Its process has closed the connection: it has ended, or is about to. Returns whether that is news.
    pub(super) fn lost(&mut self, id: &VassalId, tolerance: Duration, now: Moment) -> bool {
        let Some(vassal) = self.get_mut(id) else { return false };
        let Stage::Running(pid) = vassal.stage else { return false };
        vassal.record.cursed = now.unix;
        let then = vassal.after_its_end();
        vassal.set_stage(Stage::Stopping { pid, kill_at: now.at + tolerance, then, is_asked: false });
        self.look_at(now.at + tolerance);
        true
    }

    /// It is gone.
    pub(super) fn remove(&mut self, id: &VassalId) {
        if let Some(vassal) = self.list.remove(id) {
            self.runs.remove(&vassal.run);
        }
    }

    /// It waits for a connection.
    pub(super) fn wait(&mut self, id: &VassalId) {
        if let Some(vassal) = self.get_mut(id) {
            vassal.record.cursed = 0;
            vassal.set_stage(Stage::Waiting);
        }
    }

    /// Takes what a vassal has reported. Returns whether it asks to be stopped.
    pub(super) fn heard(&mut self, id: &VassalId, report: Report, now: Moment) -> bool {
        let Some(vassal) = self.list.get_mut(id) else { return false };
        let record = &mut vassal.record;
        match report {
            Report::Ready => (record.ready, record.last_ready) = (1, now.unix),
            Report::Accepting => (record.accepting, record.last_accepting) = (1, now.unix),
            Report::Loyal => {
                (record.loyal, record.last_loyal) = (1, now.unix);
                if let Some(throttle) = &mut self.throttle {
                    throttle.forgive(id);
                }
            }
            Report::Heartbeat => {
                record.last_heartbeat = now.unix;
                (vassal.beat_at, vassal.missed_at) = (Some(now.at), None);
            }
            Report::Stop => return true,
        }
        false
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, pid: Pid, now: Moment) -> Ended {
        for vassal in self.list.values_mut() {
            match vassal.stage {
                Stage::BeforeStart(hook) if hook == pid => return Ended::Hook(vassal.id.clone()),
                Stage::AfterStop(hook, then) if hook == pid => return Ended::StopHook(vassal.id.clone(), then),
                Stage::Running(own) | Stage::Stopping { pid: own, .. } if own == pid => {
                    let id = vassal.id.clone();
                    let (is_asked, then) = match vassal.stage {
                        Stage::Stopping { is_asked, then, .. } => (is_asked, then),
                        _ => (false, vassal.after_its_end()),
                    };
                    let is_early = !is_asked && vassal.record.loyal == 0;
                    // Until its file is found again, or it is started again.
                    vassal.set_stage(Stage::Waiting);
                    let wait = match &mut self.throttle {
                        Some(throttle) if is_early => Some(throttle.count(&id, vassal.modified, now)),
                        _ => {
                            let until = vassal.run_at.filter(|_| !is_asked).map(|at| at + PAUSE);
                            let until = until.filter(|until| *until > now.at);
                            self.pauses.extend(until.map(|until| (id.clone(), until)));
                            until.map(|until| until - now.at)
                        }
                    };
                    return Ended::Vassal(id, then, wait);
                }
                _ => {}
            }
        }
        Ended::Unknown
    }

    /// Vassals that are to be killed by now: they have not stopped, or their heart does not beat. Each is told of once.
    pub(super) fn overdue(
        &mut self,
        heartbeat: Duration,
        tolerance: Duration,
        now: Moment,
    ) -> Vec<(VassalId, Pid, bool)> {
        self.pauses.retain(|_, until| *until > now.at);
        let mut overdue = Vec::new();
        let mut next: Option<Instant> = None;
        let mut look_at = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for vassal in self.list.values_mut() {
            match &mut vassal.stage {
                Stage::Stopping { pid, kill_at, .. } => {
                    if *kill_at <= now.at {
                        // If that does not help, it is tried again.
                        *kill_at = now.at + tolerance.max(Duration::from_secs(1));
                        overdue.push((vassal.id.clone(), *pid, false));
                    }
                    look_at(*kill_at);
                }
                Stage::Running(pid) if vassal.beat_at.is_some_and(|beat| beat + heartbeat < now.at) => {
                    // Those that came while the emperor itself could not run have still to be read.
                    let missed = *vassal.missed_at.get_or_insert(now.at);
                    if missed + PAUSE <= now.at {
                        vassal.beat_at = None;
                        overdue.push((vassal.id.clone(), *pid, true));
                    } else {
                        look_at(missed + PAUSE);
                    }
                }
                _ => {}
            }
        }
        self.next_kill = next;
        overdue
    }

    /// When [`Self::overdue`] is to be asked next, at the latest; whether hearts beat it sees when a scan asks it.
    pub(super) fn next_kill(&self) -> Option<Instant> {
        self.next_kill
    }

    fn look_at(&mut self, at: Instant) {
        self.next_kill = Some(self.next_kill.map_or(at, |next| next.min(at)));
    }
}

impl Vassal {
    /// What becomes of it when its process ends by itself.
    fn after_its_end(&self) -> Then {
        if self.on_demand.is_some() { Then::Wait } else { Then::Remove }
    }

    fn set_modified(&mut self, modified: SystemTime) {
        self.modified = modified;
        self.record.last_mod = unix(modified);
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
