//! The commands of `cron` and its like: when each is due, and its running processes. No system calls.

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rwsgi_config::CronConfig;
use rwsgi_stats::Snapshot;

use super::timetable::Schedule;
use crate::clock::UnixMicros;
use crate::ipc::schedule::{Cron, When};

/// The commands.
#[derive(Debug, Default)]
pub(super) struct Crons(pub(super) Vec<Command>);

#[derive(Debug)]
pub(super) struct Command {
    pub(super) config: CronConfig,
    schedule: Schedule,
    /// Those that run.
    runs: Vec<Run>,
    /// How often it was started.
    starts: u64,
    /// The last minute (of unix time) in which it was due while it still ran, and was not to.
    missed: Option<u64>,
    /// A reload has taken it away: it is kept until it has ended.
    is_over: bool,
}

#[derive(Debug)]
struct Run {
    pid: Pid,
    started: Instant,
    /// Unix seconds.
    started_at: u64,
    /// `cron-harakiri`.
    killed_at: Option<Instant>,
}

impl Crons {
    /// From now on these are to be run. Those that stay keep their times and what runs.
    pub(super) fn renew(&mut self, commands: &[CronConfig]) {
        let mut before = std::mem::take(&mut self.0);
        for config in commands {
            let known = before.iter().position(|known| !known.is_over && known.config == *config);
            self.0.push(known.map_or_else(|| Command::new(config), |index| before.remove(index)));
        }
        self.0.extend(
            before.into_iter().filter(|known| !known.runs.is_empty()).map(|known| Command { is_over: true, ..known }),
        );
    }

    /// The places of those that are to be started.
    pub(super) fn due(&mut self, now: Instant, unix: UnixMicros, is_first: bool) -> Vec<usize> {
        let mut due = Vec::new();
        for (place, command) in self.0.iter_mut().enumerate().filter(|(_, command)| !command.is_over) {
            if !command.schedule.tick(now, unix, is_first) {
                continue;
            }
            if command.config.unique && !command.runs.is_empty() {
                command.missed = Some(unix.as_secs() / 60);
            } else {
                due.push(place);
            }
        }
        due
    }

    /// A command was started.
    pub(super) fn started(&mut self, place: usize, pid: Pid, now: Instant, unix: UnixMicros, harakiri: Option<u32>) {
        let Some(command) = self.0.get_mut(place) else { return };
        command.starts += 1;
        let limit = command.config.harakiri.or(harakiri).filter(|seconds| *seconds > 0);
        let killed_at = limit.map(|seconds| now + Duration::from_secs(seconds.into()));
        command.runs.push(Run { pid, started: now, started_at: unix.as_secs(), killed_at });
    }

    /// A process has ended: its command, since when it ran, and the place of the command when it is to be started again
    /// at once, for it was due in this minute. `None` when it was none.
    pub(super) fn ended(&mut self, pid: Pid, unix: UnixMicros) -> Option<(String, Instant, Option<usize>)> {
        let is_it = |run: &Run| run.pid == pid;
        let place = self.0.iter().position(|command| command.runs.iter().any(is_it))?;
        let command = &mut self.0[place];
        let run = command.runs.extract_if(.., |run| is_it(run)).next()?;
        let is_due = command.missed.take().is_some_and(|minute| minute == unix.as_secs() / 60);
        let again = (is_due && !command.is_over && command.runs.is_empty()).then_some(place);
        let text = command.config.command.clone();
        self.0.retain(|command| !(command.is_over && command.runs.is_empty()));
        Some((text, run.started, again))
    }

    /// Those that have run for too long, each once.
    pub(super) fn late(&mut self, now: Instant) -> Vec<(String, Pid)> {
        let mut late = Vec::new();
        for Command { config, runs, .. } in &mut self.0 {
            let overdue = runs.iter_mut().filter(|run| run.killed_at.is_some_and(|at| at <= now));
            late.extend(overdue.map(|run| {
                run.killed_at = None;
                (config.command.clone(), run.pid)
            }));
        }
        late
    }

    /// When something is to be done: a command may be due, or one has run for too long.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let commands = self.0.iter().filter(|command| !command.is_over);
        let looks = commands.map(|command| command.schedule.deadline().unwrap_or(now));
        let limits = self.0.iter().flat_map(|command| &command.runs).filter_map(|run| run.killed_at);
        looks.chain(limits).min()
    }

    /// Adds them to a reading of the server.
    pub(super) fn describe(&self, snapshot: &mut Snapshot) {
        for Command { config, runs, starts, .. } in self.0.iter().filter(|command| !command.is_over) {
            let CronConfig { minute, hour, day, month, week, ref command, unique, harakiri: _ } = *config;
            let last = runs.last();
            snapshot.crons.push(rwsgi_stats::Cron {
                minute,
                hour,
                day,
                month,
                week,
                command: command.clone(),
                unique: u8::from(unique),
                pid: last.map_or(-1, |run| run.pid.as_raw()),
                started_at: last.map_or(0, |run| run.started_at),
                raised: Some(*starts),
                legion: None,
            });
        }
    }
}

impl Command {
    fn new(config: &CronConfig) -> Self {
        let CronConfig { minute, hour, day, month, week, .. } = *config;
        let schedule = Schedule::new(When::Cron(Cron { minute, hour, day, month, week }));
        Self { config: config.clone(), schedule, runs: Vec::new(), starts: 0, missed: None, is_over: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(command: &str) -> CronConfig {
        let command = command.to_owned();
        CronConfig { minute: -1, hour: -1, day: -1, month: -1, week: -1, command, unique: true, harakiri: None }
    }

    /// The beginning of a minute.
    const MINUTE: UnixMicros = UnixMicros::from_micros(1_700_000_040 * 1_000_000);

    fn later(unix: UnixMicros, seconds: u64) -> UnixMicros {
        UnixMicros::from_micros(unix.as_micros() + seconds * 1_000_000)
    }

    #[test]
    fn a_unique_command_that_still_runs_is_started_when_it_ends_within_the_minute() {
        for (ends_after, again) in [(10, Some(0)), (65, None)] {
            let (mut crons, now) = (Crons::default(), Instant::now());
            crons.renew(&[config("x")]);
            assert_eq!(crons.due(now, MINUTE, true), [0]);
            crons.started(0, Pid::from_raw(7), now, MINUTE, None);
            let (next, unix) = (crons.deadline(now).unwrap(), later(MINUTE, 60));
            assert!(crons.due(next, unix, false).is_empty(), "it runs");
            let (_, started, due) = crons.ended(Pid::from_raw(7), later(unix, ends_after)).unwrap();
            assert_eq!((started, due), (now, again));
            assert!(crons.ended(Pid::from_raw(7), unix).is_none());
        }
    }

    #[test]
    fn others_run_beside_each_other() {
        let (mut crons, now) = (Crons::default(), Instant::now());
        crons.renew(&[CronConfig { unique: false, ..config("x") }]);
        assert_eq!(crons.due(now, MINUTE, true), [0]);
        crons.started(0, Pid::from_raw(7), now, MINUTE, None);
        assert_eq!(crons.due(crons.deadline(now).unwrap(), later(MINUTE, 60), false), [0]);
    }

    #[test]
    fn what_takes_too_long_is_late_once_and_its_own_limit_goes_first() {
        let (mut crons, now) = (Crons::default(), Instant::now());
        crons.renew(&[
            config("all"),
            CronConfig { harakiri: Some(5), ..config("own") },
            CronConfig { harakiri: Some(0), ..config("none") },
        ]);
        for place in 0..3 {
            crons.started(place, Pid::from_raw(7 + place as i32), now, MINUTE, Some(9));
        }
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(crons.late(after(4)), []);
        assert_eq!(crons.late(after(5)), [("own".to_owned(), Pid::from_raw(8))]);
        assert_eq!(crons.late(after(99)), [("all".to_owned(), Pid::from_raw(7))]);
        assert_eq!(crons.late(after(999)), []);
    }

    #[test]
    fn a_reload_keeps_what_stays_and_waits_for_what_goes() {
        let (mut crons, now) = (Crons::default(), Instant::now());
        crons.renew(&[config("stays"), config("goes")]);
        for place in 0..2 {
            crons.started(place, Pid::from_raw(7 + place as i32), now, MINUTE, None);
        }
        crons.renew(&[config("new"), config("stays")]);
        let mut snapshot = Snapshot::default();
        crons.describe(&mut snapshot);
        let shown: Vec<_> = snapshot.crons.iter().map(|cron| (cron.command.as_str(), cron.pid)).collect();
        assert_eq!(shown, [("new", -1), ("stays", 7)]);
        assert_eq!(crons.due(now, MINUTE, false), [] as [usize; 0], "the minute of a reload has had its turn");
        assert_eq!(crons.ended(Pid::from_raw(8), MINUTE).unwrap().0, "goes");
        assert_eq!(crons.0.len(), 2);
    }
}
