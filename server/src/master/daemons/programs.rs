//! What becomes of each program: bookkeeping without system calls. The loop reports what has happened, and does what this
//! says.

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rwsgi_config::DaemonConfig;

/// A program that ends sooner than this after its start is started again with a delay.
const EARLY: Duration = Duration::from_secs(3);
/// The longest delay, unless the program's `max_throttle` says another.
const LONGEST_DELAY: u32 = 300;
/// How often pidfiles are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether anything is left of a group of which the leader is gone.
const LEFT: Duration = Duration::from_millis(100);
/// After how long what has survived SIGKILL is not waited for any more.
const UNKILLABLE: Duration = Duration::from_secs(2);

/// How far a program has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is started when all that a reload ends have left.
    Held,
    /// It is started then.
    Due(Instant),
    /// It runs as a child of ours, and ends with the server.
    Running(Pid),
    /// It was started, and its pidfile does not name a process yet.
    Unconfirmed {
        /// What was started, until that has ended.
        child: Option<Pid>,
        /// How often its pidfile was looked at.
        looks: u32,
    },
    /// Its pidfile names this process.
    Known(Pid),
}

/// A program that is to run.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) config: DaemonConfig,
    pub(super) stage: Stage,
    /// How often it was started.
    pub(super) starts: u64,
    /// When it was started last, by the monotonic clock and in unix seconds.
    started: Option<(Instant, u64)>,
    early_ends: u32,
}

impl Program {
    fn new(config: DaemonConfig) -> Self {
        Self { config, stage: Stage::Held, starts: 0, started: None, early_ends: 0 }
    }

    /// Its process, as far as it is known.
    pub(super) fn pid(&self) -> Option<Pid> {
        match self.stage {
            Stage::Held | Stage::Due(_) => None,
            Stage::Running(pid) | Stage::Known(pid) => Some(pid),
            Stage::Unconfirmed { child, .. } => child,
        }
    }

    /// When it was started last, unix seconds; 0 for never.
    pub(super) fn started_at(&self) -> u64 {
        self.started.map_or(0, |(_, unix)| unix)
    }

    fn is_due(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::Due(at) if at <= now)
    }

    /// It has ended: it is started again, after a delay of one second more for each early end in a row. Returns the
    /// delay.
    fn start_again(&mut self, now: Instant) -> Duration {
        let is_early = self.started.is_none_or(|(started, _)| now.saturating_duration_since(started) < EARLY);
        self.early_ends = if is_early { self.early_ends.saturating_add(1) } else { 0 };
        let most = self.config.max_throttle.unwrap_or(LONGEST_DELAY);
        let delay = Duration::from_secs(self.early_ends.min(most).into());
        self.stage = Stage::Due(now + delay);
        delay
    }
}

/// A group of processes that was told to leave.
#[derive(Debug)]
struct Leaving {
    command: String,
    /// Its leader.
    pid: Pid,
    /// When it is killed, and then when it is given up.
    deadline: Instant,
    is_killed: bool,
}

/// What a look at a pidfile comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing to say.
    AsBefore,
    /// It names another process.
    Changed(Pid),
    /// The program was given all its looks, and still runs in the foreground.
    NotDaemonized,
    /// It is gone, and started again after this.
    Gone(Duration),
}

/// A program that is to be signalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) command: String,
    pub(super) pid: Pid,
    pub(super) signal: i32,
}

/// What ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) command: String,
    /// The server ends with it.
    pub(super) is_control: bool,
    /// After how long it is started again; `None` for one that is known by its pidfile, or has left.
    pub(super) next: Option<Duration>,
}

/// All programs.
#[derive(Debug, Default)]
pub(super) struct Programs {
    pub(super) list: Vec<Program>,
    leaving: Vec<Leaving>,
    next_look: Option<Instant>,
    /// The server stops: none is started any more.
    is_held: bool,
}

impl Programs {
    /// From now on these are to run. Those that end with the server leave first, within `grace`; those that are known by
    /// their pidfile go on. Returns which are to be signalled.
    pub(super) fn renew(&mut self, programs: &[DaemonConfig], grace: Duration, now: Instant) -> Vec<Told> {
        let mut before = std::mem::take(&mut self.list);
        let told = before.iter().filter_map(|program| self.tell(program, true, grace, now)).collect();
        for config in programs {
            let is_it =
                |known: &Program| known.config.command == config.command && known.config.pidfile == config.pidfile;
            let known = before.iter().position(is_it).map(|index| before.swap_remove(index));
            let mut program = Program::new(config.clone());
            if let Some(known) = known {
                (program.starts, program.started) = (known.starts, known.started);
                if config.pidfile.is_some() {
                    (program.stage, program.early_ends) = (known.stage, known.early_ends);
                }
            }
            self.list.push(program);
        }
        self.release(now);
        told
    }

    /// The server is about to stop: none is started any more.
    pub(super) fn hold(&mut self) {
        self.is_held = true;
        for program in self.list.iter_mut().filter(|program| matches!(program.stage, Stage::Due(_))) {
            program.stage = Stage::Held;
        }
    }

    /// The server stops. Returns which are to be signalled.
    pub(super) fn stop(&mut self, grace: Duration, now: Instant) -> Vec<Told> {
        let before = std::mem::take(&mut self.list);
        before.iter().filter_map(|program| self.tell(program, false, grace, now)).collect()
    }

    /// What a program is to be sent that is to leave, or to learn that the server does.
    fn tell(&mut self, program: &Program, is_reload: bool, grace: Duration, now: Instant) -> Option<Told> {
        /// What those that go on are told of a reload, unless they have chosen another signal.
        const SIGHUP: i32 = 1;
        let DaemonConfig { ref command, stop_signal, reload_signal, .. } = program.config;
        let (pid, signal) = match program.stage {
            Stage::Running(pid) => {
                let deadline = now + grace;
                self.leaving.push(Leaving { command: command.clone(), pid, deadline, is_killed: false });
                (pid, if is_reload && reload_signal > 0 { reload_signal } else { stop_signal })
            }
            Stage::Known(pid) if program.config.notify => (
                pid,
                match (is_reload, reload_signal) {
                    (false, _) => stop_signal,
                    (true, 0) => SIGHUP,
                    (true, signal) => signal,
                },
            ),
            _ => return None,
        };
        Some(Told { command: command.clone(), pid, signal })
    }

    /// When none is left that leaves, the others may start.
    fn release(&mut self, now: Instant) {
        if self.leaving.is_empty() && !self.is_held {
            for program in self.list.iter_mut().filter(|program| program.stage == Stage::Held) {
                program.stage = Stage::Due(now);
            }
        }
    }

    /// Those that are to be started, by their places.
    pub(super) fn due(&self, now: Instant) -> Vec<usize> {
        let due = self.list.iter().enumerate().filter(|(_, program)| program.is_due(now));
        due.map(|(place, _)| place).collect()
    }

    /// A program was started.
    pub(super) fn started(&mut self, place: usize, pid: Pid, now: Instant, unix: u64) {
        let Some(program) = self.list.get_mut(place) else { return };
        program.starts += 1;
        program.started = Some((now, unix));
        program.stage = match program.config.pidfile {
            None => Stage::Running(pid),
            Some(_) => Stage::Unconfirmed { child: Some(pid), looks: 0 },
        };
    }

    /// A program could not be started. Returns when it is tried again.
    pub(super) fn not_started(&mut self, place: usize, now: Instant) -> Duration {
        let Some(program) = self.list.get_mut(place) else { return Duration::ZERO };
        program.started = None;
        program.start_again(now)
    }

    /// The pidfile of a program that was to be started names a living process: that is it.
    pub(super) fn adopted(&mut self, place: usize, pid: Pid) {
        if let Some(program) = self.list.get_mut(place) {
            program.stage = Stage::Known(pid);
        }
    }

    /// A process has ended; `None` when it was no program's.
    pub(super) fn ended(&mut self, pid: Pid, now: Instant) -> Option<Ended> {
        if let Some(left) = self.leaving.iter().find(|leaving| leaving.pid == pid) {
            return Some(Ended { command: left.command.clone(), is_control: false, next: None });
        }
        let program = self.list.iter_mut().find(|program| program.pid() == Some(pid))?;
        let mut ended = Ended { command: program.config.command.clone(), is_control: false, next: None };
        match &mut program.stage {
            Stage::Running(_) => {
                ended.is_control = program.config.control;
                ended.next = Some(program.start_again(now));
                if self.is_held {
                    (program.stage, ended.next) = (Stage::Held, None);
                }
            }
            Stage::Unconfirmed { child, .. } => *child = None,
            // The next look at its pidfile finds that out.
            _ => {}
        }
        Some(ended)
    }

    /// Those whose pidfiles are to be looked at now, by their places.
    pub(super) fn places_to_look_at(&mut self, now: Instant) -> Vec<usize> {
        let is_known = |program: &Program| matches!(program.stage, Stage::Unconfirmed { .. } | Stage::Known(_));
        let places: Vec<usize> = (0..self.list.len()).filter(|place| is_known(&self.list[*place])).collect();
        if places.is_empty() {
            self.next_look = None;
            return places;
        }
        if self.next_look.is_some_and(|next| next > now) {
            return Vec::new();
        }
        let is_first = self.next_look.is_none();
        self.next_look = Some(now + LOOK);
        if is_first { Vec::new() } else { places }
    }

    /// A program's pidfile names this living process, or none.
    pub(super) fn looked(&mut self, place: usize, named: Option<Pid>, now: Instant) -> Look {
        let Some(program) = self.list.get_mut(place).filter(|_| !self.is_held) else { return Look::AsBefore };
        match (&mut program.stage, named) {
            (Stage::Known(pid), Some(named)) if *pid == named => Look::AsBefore,
            (Stage::Unconfirmed { child, .. }, Some(named)) => {
                let is_news = *child != Some(named);
                program.stage = Stage::Known(named);
                if is_news { Look::Changed(named) } else { Look::AsBefore }
            }
            (stage @ Stage::Known(_), Some(named)) => {
                *stage = Stage::Known(named);
                Look::Changed(named)
            }
            (Stage::Unconfirmed { child, looks }, None) => {
                *looks += 1;
                match child {
                    _ if *looks < program.config.frequency => Look::AsBefore,
                    Some(_) => {
                        *looks = 0;
                        Look::NotDaemonized
                    }
                    None => Look::Gone(program.start_again(now)),
                }
            }
            (Stage::Known(_), None) => Look::Gone(program.start_again(now)),
            _ => Look::AsBefore,
        }
    }

    /// Looks at those that leave: `is_left` says whether anything is left of a group. Returns those that are to be
    /// killed.
    pub(super) fn see_off(&mut self, is_left: impl Fn(Pid) -> bool, now: Instant) -> Vec<(String, Pid)> {
        let is_waited_for = |leaving: &Leaving| is_left(leaving.pid) && !(leaving.is_killed && leaving.deadline <= now);
        self.leaving.retain(is_waited_for);
        let mut late = Vec::new();
        for leaving in self.leaving.iter_mut().filter(|leaving| !leaving.is_killed && leaving.deadline <= now) {
            (leaving.is_killed, leaving.deadline) = (true, now + UNKILLABLE);
            late.push((leaving.command.clone(), leaving.pid));
        }
        self.release(now);
        late
    }

    /// From now on none has any more time to leave.
    pub(super) fn end_grace(&mut self, now: Instant) {
        for leaving in self.leaving.iter_mut().filter(|leaving| !leaving.is_killed) {
            leaving.deadline = now;
        }
    }

    /// Whether none is left that leaves.
    pub(super) fn have_left(&self) -> bool {
        self.leaving.is_empty()
    }

    /// When something is to be done.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let starts = self.list.iter().filter_map(|program| match program.stage {
            Stage::Due(at) => Some(at),
            _ => None,
        });
        let left = (!self.leaving.is_empty()).then_some(now + LEFT);
        starts.chain(left).chain(self.next_look).min()
    }
}
