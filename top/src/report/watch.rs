//! Watching without a screen: samples in, lines out, until the end that was asked for; then the verdict.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::Batch;
use super::assertion::{Assertion, Verdict};
use super::lines::{csv_header, csv_rows, json_line, number};
use super::window::{Gatherer, Window};
use crate::model::Pool;
use crate::source::Sample;

/// How samples are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Plain tables.
    Tables,
    /// A line of JSON each.
    Json,
    /// Rows of CSV.
    Csv,
    /// Not at all: only the verdict.
    Nothing,
}

/// When watching ends.
#[derive(Debug)]
pub(crate) enum End {
    /// When whoever watches has seen enough, or the recording is over.
    Never,
    /// After so many samples of each server.
    Count(u64),
    /// After so long, counted from the first answer.
    After(Duration),
    /// When a process is gone.
    Exit(u32),
    /// When a command that is started for it ends.
    Command(Vec<String>),
}

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How samples are printed.
    pub(crate) format: Format,
    /// How tables are.
    pub(crate) batch: Batch,
    /// When it ends.
    pub(crate) end: End,
    /// What must hold then.
    pub(crate) assertions: Vec<Assertion>,
    /// Where the verdict goes for CI servers.
    pub(crate) junit: Option<PathBuf>,
    /// Where the verdict goes for people who read CI summaries; it is appended.
    pub(crate) markdown: Option<PathBuf>,
}

/// Nothing could be measured.
const NOT_MEASURED: u8 = 2;
/// How often ends that give no notice are looked for.
const BEAT: Duration = Duration::from_millis(50);

/// Watches until the end. `last_look` reads every server once more, so that the window ends when the watching does.
/// Returns the exit code: 0, 1 when an assertion fails, 2 when there was nothing to measure.
///
/// # Errors
/// When output cannot be written, or the command cannot be started.
pub(crate) fn watch(
    plan: &Plan,
    pools: &mut [Pool],
    samples: &Receiver<Sample>,
    last_look: impl FnOnce() -> Vec<Sample>,
) -> anyhow::Result<u8> {
    let mut watch = Watch { plan, pools, total: Gatherer::default(), steps: Vec::new(), printed: 0, out_closed: false };
    if let End::Exit(pid) = plan.end {
        anyhow::ensure!(!is_gone(pid), "--until-exit {pid}: there is no such process");
    }
    watch.steps.resize_with(watch.pools.len(), Gatherer::default);
    if plan.format == Format::Csv {
        watch.print(&csv_header())?;
    }
    let mut void = watch.until_the_end(samples)?;
    if !matches!(plan.end, End::Never | End::Count(_)) {
        for sample in last_look() {
            watch.take(sample)?;
        }
    }
    if plan.assertions.is_empty() {
        return Ok(if watch.printed == 0 && watch.total.window().readings == 0 { NOT_MEASURED } else { 0 });
    }
    let window = watch.total.window();
    void = void.or_else(|| nothing_counts(&plan.assertions, window, watch.total.seen(), watch.pools));
    let judgements = plan.assertions.iter().map(|assertion| assertion.judge(window)).collect();
    let verdict = Verdict { judgements, void };
    watch.tell(&verdict)?;
    Ok(verdict.exit_code())
}

/// Whether a process has ended; one that only waits to be reaped has.
fn is_gone(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The name before the state is in parentheses, and may hold any character.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, Some('Z' | 'X') | None)
}

/// Why a window says nothing about the server.
fn nothing_counts(assertions: &[Assertion], window: &Window, seen: usize, pools: &[Pool]) -> Option<String> {
    if seen < pools.len() {
        let silent = pools.iter().find(|pool| pool.current.is_none())?;
        let reason = silent.trouble.as_ref().map_or("no answer", |trouble| trouble.message.as_str());
        return Some(format!("{}: {reason}", silent.label));
    }
    if window.restarts > 0 && !assertions.iter().any(|assertion| assertion.metric.name == "restarts") {
        return Some("a server was restarted while it was watched".to_owned());
    }
    (window.readings == 0).then(|| "fewer than two answers, so there is nothing between them".to_owned())
}

struct Watch<'a> {
    plan: &'a Plan,
    pools: &'a mut [Pool],
    /// Everything since the first answers.
    total: Gatherer,
    /// By server: what its next line tells of.
    steps: Vec<Gatherer>,
    printed: u64,
    out_closed: bool,
}

impl Watch<'_> {
    /// Takes samples in until the end; returns why nothing counts, when that is known already.
    fn until_the_end(&mut self, samples: &Receiver<Sample>) -> anyhow::Result<Option<String>> {
        let mut begun: Option<(Instant, Option<Child>)> = None;
        let mut wanted = match self.plan.end {
            End::Count(count) => count * self.pools.len() as u64,
            _ => u64::MAX,
        };
        let patience = Instant::now() + Duration::from_secs(10);
        loop {
            if begun.is_none() && self.total.seen() == self.pools.len() {
                begun = Some((Instant::now(), self.start_command()?));
            }
            let timeout = match (&self.plan.end, &begun) {
                (End::Never | End::Count(_), _) => Duration::MAX,
                (_, None) => patience.saturating_duration_since(Instant::now()),
                (End::After(duration), Some((start, _))) => duration.saturating_sub(start.elapsed()),
                (End::Exit(_) | End::Command(_), Some(_)) => BEAT,
            };
            let sample = if timeout == Duration::MAX {
                samples.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                samples.recv_timeout(timeout)
            };
            match sample {
                Ok(sample) => {
                    if self.take(sample)? {
                        wanted = wanted.saturating_sub(1);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if begun.is_none() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if wanted == 0 || self.out_closed {
                return Ok(None);
            }
            let Some((start, child)) = &mut begun else { continue };
            match (&self.plan.end, child) {
                (End::After(duration), _) if start.elapsed() >= *duration => return Ok(None),
                (End::Exit(pid), _) if is_gone(*pid) => return Ok(None),
                (End::Command(command), Some(child)) => {
                    if let Some(status) = child.try_wait().context("waiting for the command")? {
                        let failed = || format!("'{}' ended with {status}", command.join(" "));
                        return Ok((!status.success()).then(failed));
                    }
                }
                _ => {}
            }
        }
    }

    fn start_command(&self) -> anyhow::Result<Option<Child>> {
        let End::Command(command) = &self.plan.end else { return Ok(None) };
        let Some((program, arguments)) = command.split_first() else { return Ok(None) };
        let child = Command::new(program).args(arguments).spawn();
        Ok(Some(child.with_context(|| format!("cannot start '{program}'"))?))
    }

    /// Takes a sample in and prints it; returns whether it counts as one of those that were asked for.
    fn take(&mut self, sample: Sample) -> anyhow::Result<bool> {
        let target = sample.target;
        let Some(pool) = self.pools.get_mut(target) else { return Ok(false) };
        let known = pool.current.is_some();
        let quiet = pool.trouble.clone();
        let fresh = pool.ingest(sample);
        self.total.push(target, pool, fresh);
        self.steps[target].push(target, pool, fresh);
        if let Some(trouble) = &pool.trouble {
            // Said once; a server that is away for an hour does not fill the log.
            if quiet.is_none_or(|before| before.message != trouble.message) {
                writeln!(io::stderr(), "rtop: {}: {}", pool.label, trouble.message)?;
            }
            return Ok(true);
        }
        // The first reading of a server only begins the window that rates need.
        let Some(reading) = pool.current.as_ref().filter(|_| known) else { return Ok(false) };
        let text = match self.plan.format {
            Format::Tables => self.plan.batch.table(pool, reading),
            Format::Json => json_line(pool, reading, self.steps[target].window()),
            Format::Csv => csv_rows(pool, reading),
            Format::Nothing => String::new(),
        };
        self.steps[target].begin_again();
        self.print(&text)?;
        self.printed += 1;
        Ok(true)
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

    fn tell(&mut self, verdict: &Verdict) -> anyhow::Result<()> {
        let window = self.total.window();
        let seconds = window.seconds;
        if window.failures > 0 {
            let all = window.failures + window.readings;
            writeln!(io::stderr(), "rtop: {} of {all} readings failed", window.failures)?;
        }
        let text = match self.plan.format {
            Format::Json => {
                let judgements = verdict.judgements.iter().map(|judgement| {
                    json!({
                        "assert": judgement.assertion.text,
                        "metric": judgement.assertion.metric.name,
                        "actual": judgement.actual.ok().map(number),
                        "holds": judgement.holds,
                    })
                });
                let judgements: Vec<_> = judgements.collect();
                let line = json!({"seconds": seconds, "exit": verdict.exit_code(), "void": verdict.void, "assertions": judgements});
                format!("{line}\n")
            }
            _ => verdict.table(),
        };
        // CSV stays CSV.
        if self.plan.format == Format::Csv {
            io::stderr().write_all(text.as_bytes())?;
        } else {
            self.print(&text)?;
        }
        let write = |path: &Path, file: io::Result<File>, text: &str| {
            let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
            written.with_context(|| format!("cannot write {}", path.display()))
        };
        if let Some(path) = &self.plan.junit {
            write(path, File::create(path), &verdict.junit(seconds))?;
        }
        if let Some(path) = &self.plan.markdown {
            write(path, OpenOptions::new().create(true).append(true).open(path), &verdict.markdown())?;
        }
        Ok(())
    }
}
