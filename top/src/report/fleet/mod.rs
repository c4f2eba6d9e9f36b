//! Watching a fleet without a screen: events of its sources in, a frame out after each sweep, until the end that was asked
//! for; then the verdict.

mod lines;
mod steps;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

pub(crate) use self::lines::json_schema;
use self::lines::{csv_header, csv_rows, json_line, table};
use self::steps::Steps;
use super::ending::{Until, is_gone};
use super::judge::Judge;
use super::output::Files;
use super::watch::{End, Format, NOT_MEASURED, Plan, TICK};
use crate::model::fields::Clock as DayClock;
use crate::model::fleet::Fleet;
use crate::model::outliers::Outliers;
use crate::model::{FleetTotals, server_rows};
use crate::source::fleet::FleetEvent;
use crate::source::{Clock, EndedBy, Ending, LocalMicros, Monotonic};
use rwsgi_assertions::Assertion;

/// What these assertions are, that cannot be judged over a fleet, and what to write instead.
pub(crate) fn refusal(assertions: &[Assertion]) -> Option<String> {
    if let Some(assertion) = assertions.iter().find(|assertion| assertion.needs_baseline()) {
        return Some(format!("'{}': a baseline is a recording, and a fleet has none", assertion.text));
    }
    let plain = assertions.iter().find(|assertion| assertion.servers.is_none())?;
    Some(format!(
        "'{}' is of one server, or of several put together; over a fleet write '{}'",
        plain.text,
        plain.of_servers_instead()
    ))
}

/// Watches a fleet that is polled at `interval` until the end. Returns the exit code, as for one server.
///
/// # Errors
/// When output cannot be written, or the command cannot be started.
pub(crate) fn watch_fleet(
    plan: &Plan,
    interval: Duration,
    timeout: Duration,
    events: &Receiver<Vec<FleetEvent>>,
    clock: Clock,
) -> anyhow::Result<u8> {
    if let End::Exit(pid) = plan.end {
        anyhow::ensure!(!is_gone(pid), "--until-exit {pid}: there is no such process");
    }
    let signals = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        flag::register_usize(signal, Arc::clone(&signals), signal as usize).context("cannot watch for signals")?;
    }
    let mut watch = FleetWatch::new(plan, interval)?;
    let why = watch.until_the_end(events, &signals)?;
    let signal = signals.load(Ordering::SeqCst);
    if signal == 0 && !watch.out_closed && !matches!(plan.end, End::Never | End::Count(_)) {
        // What happened since the last sweep is in the next one.
        watch.one_more(events, interval + timeout)?;
    }
    let by = if matches!(plan.end, End::Count(_)) { EndedBy::Count } else { EndedBy::Time };
    let closed = || "standard output was closed before the end".to_owned();
    let why = why.or_else(|| (watch.out_closed && !plan.assertions.is_empty()).then(closed));
    let ending = Ending { at: clock.at(), by, why };
    if signal != 0 {
        // Whoever waits for us sees that the signal ended us.
        low_level::emulate_default_handler(signal as i32).context("cannot end as the signal says")?;
    }
    watch.conclude(&ending)
}

struct FleetWatch<'a> {
    plan: &'a Plan,
    fleet: Fleet,
    outliers: Outliers,
    judge: Judge,
    steps: Steps,
    files: Files,
    /// How many frames are still wanted.
    left: u64,
    printed: u64,
    /// A server has answered.
    answered: bool,
    out_closed: bool,
    said: std::collections::BTreeSet<String>,
}

impl<'a> FleetWatch<'a> {
    fn new(plan: &'a Plan, interval: Duration) -> anyhow::Result<Self> {
        let judge = Judge::of_fleet(&plan.assertions, plan.phases, interval);
        let files = Files::open(plan.junit.as_deref(), plan.markdown.as_deref(), None)?;
        let left = if let End::Count(count) = plan.end { count } else { u64::MAX };
        let mut watch = Self {
            plan,
            fleet: Fleet::default(),
            outliers: Outliers::default(),
            judge,
            steps: Steps::new(&plan.assertions),
            files,
            left,
            printed: 0,
            answered: false,
            out_closed: false,
            said: std::collections::BTreeSet::new(),
        };
        if plan.format == Format::Csv {
            watch.print(&csv_header())?;
        }
        Ok(watch)
    }

    fn until_the_end(
        &mut self,
        events: &Receiver<Vec<FleetEvent>>,
        signals: &AtomicUsize,
    ) -> anyhow::Result<Option<String>> {
        let mut until = Until::new(&self.plan.end);
        loop {
            match events.recv_timeout(TICK) {
                Ok(events) => self.take(events)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(Some("what reads the servers has ended".to_owned())),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.out_closed || signals.load(Ordering::SeqCst) != 0 || self.left == 0 {
                return Ok(None);
            }
            if let Some(why) = until.is_over(self.judge.has_begun())? {
                return Ok(why);
            }
        }
    }

    /// Takes in what comes up to the end of the next sweep, and waits no longer for it than that takes.
    fn one_more(&mut self, events: &Receiver<Vec<FleetEvent>>, longest: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + longest;
        let sweeps = |fleet: &Fleet| fleet.swept().map_or(0, |(_, sweeps)| sweeps);
        let before = sweeps(&self.fleet);
        while sweeps(&self.fleet) == before {
            match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(events) => self.take(events)?,
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn take(&mut self, events: Vec<FleetEvent>) -> anyhow::Result<()> {
        for event in events {
            let swept = if let FleetEvent::Sweep(at) = &event { Some(*at) } else { None };
            if let FleetEvent::Source(source, Some(why)) = &event {
                // Said once; a source that is away for an hour does not fill the log.
                let text = crate::format::one_line(&format!("{source}: {why}"));
                if self.said.insert(text.clone()) {
                    writeln!(io::stderr(), "rtop: {text}")?;
                }
            }
            self.answered |= matches!(event, FleetEvent::Sample(..) | FleetEvent::Figures(..));
            let answered = if let FleetEvent::Sample(id, _) = &event { Some(*id) } else { None };
            self.fleet.take(event);
            if let Some(id) = answered {
                self.steps.answered(&self.fleet, id);
            }
            if let Some(at) = swept.filter(|_| self.left > 0) {
                self.sweep(at)?;
            }
        }
        Ok(())
    }

    /// A sweep is over: judged, and printed but for the first, which only begins the window that rates need.
    fn sweep(&mut self, at: Monotonic) -> anyhow::Result<()> {
        let taken = Clock::local();
        self.outliers.advance(&self.fleet, at);
        self.steps.sweep(&self.fleet, &self.outliers, &mut self.judge, at, taken);
        if self.fleet.swept().is_none_or(|(_, sweeps)| sweeps < 2) {
            return Ok(());
        }
        self.left -= 1;
        let text = self.frame(at, taken);
        self.print(&text)?;
        self.printed += 1;
        Ok(())
    }

    fn frame(&self, at: Monotonic, taken: LocalMicros) -> String {
        let rows = || server_rows(&self.fleet, &self.outliers, at);
        match self.plan.format {
            Format::Nothing => String::new(),
            Format::Csv => csv_rows(&rows(), taken),
            Format::Json => {
                let rows = rows();
                let totals = FleetTotals::of(&self.fleet, &rows);
                json_line(&self.fleet, &self.outliers, &rows, &totals, (at, taken))
            }
            Format::Tables => {
                let rows = rows();
                let totals = FleetTotals::of(&self.fleet, &rows);
                let batch = &self.plan.batch;
                let clock = DayClock { now: taken.0 / 1_000_000, zone: batch.zone.clone() };
                table(&self.fleet, &self.outliers, rows, &totals, &clock, batch.unicode)
            }
        }
    }

    fn print(&mut self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // The reader has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.out_closed = true,
            written => written.context("cannot write to standard output")?,
        }
        Ok(())
    }

    /// The verdict, told; or, without assertions, whether there was anything.
    fn conclude(mut self, ending: &Ending) -> anyhow::Result<u8> {
        if self.plan.assertions.is_empty() {
            return Ok(if self.printed == 0 || !self.answered { NOT_MEASURED } else { 0 });
        }
        for (source, why) in self.fleet.troubles() {
            self.judge.void(format!("{source}: {why}"));
        }
        let empty = Judge::of_fleet(&[], super::Phases::default(), Duration::ZERO);
        let verdict = std::mem::replace(&mut self.judge, empty).finish(ending);
        let zone = &self.plan.batch.zone;
        let files = std::mem::take(&mut self.files);
        // One that cannot be written takes none of the others away.
        let junit = files.junit.map_or(Ok(()), |file| file.write(&verdict.junit(zone)?));
        let markdown = files.markdown.map_or(Ok(()), |file| file.write(&verdict.markdown(zone)));
        let text = if self.plan.format == Format::Json { verdict.json() } else { verdict.table(zone) };
        // CSV stays CSV.
        if self.plan.format == Format::Csv {
            io::stderr().write_all(text.as_bytes())?;
        } else {
            self.print(&text)?;
        }
        junit.and(markdown)?;
        Ok(verdict.exit_code())
    }
}
