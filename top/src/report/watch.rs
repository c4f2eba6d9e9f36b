//! Watching without a screen: samples in, lines out, until the end that was asked for; then the verdict.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use super::Batch;
use super::ending::{Until, is_gone};
use super::html::Page;
use super::judge::{Baseline, Judge, Phases};
use super::lines::{csv_header, csv_rows, json_line};
use super::output::Files;
use super::timeline::Track;
use super::verdict::Verdict;
use super::window::Steps;
use crate::model::Pool;
use crate::source::{Clock, EndedBy, Ending, Entry, Poll, Recorder, RecordingError, Run};
use rwsgi_assertions::Assertion;
use rwsgi_assertions::Window;

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
    /// After so long, counted from the first answer of all servers.
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
    /// The servers are meant to be gone at the end.
    pub(crate) expect_exit: bool,
    /// What must hold then.
    pub(crate) assertions: Vec<Assertion>,
    /// Of what part, and in which pieces.
    pub(crate) phases: Phases,
    /// What a recording has of each assertion's metric; empty without one.
    pub(crate) baseline: Vec<Result<Baseline, String>>,
    /// Where the verdict goes for CI servers.
    pub(crate) junit: Option<PathBuf>,
    /// Where the verdict goes for people who read CI summaries; it is appended.
    pub(crate) markdown: Option<PathBuf>,
    /// Where the page about the run goes.
    pub(crate) html: Option<PathBuf>,
}

/// Nothing could be measured.
pub(super) const NOT_MEASURED: u8 = 2;
/// How often ends that give no notice are looked for.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// Watches what comes live until the end. `last_look` reads every server once more, so that the window ends when the watching
/// does. Whatever is judged is recorded, when that was asked for. Returns the exit code: 0, 1 when an assertion fails, 2 when
/// there was nothing to measure.
///
/// # Errors
/// When output cannot be written, or the command cannot be started.
pub(crate) fn watch(
    plan: &Plan,
    pools: &mut [Pool],
    run: &Run,
    record: Option<Recorder>,
    polls: &Receiver<Entry>,
    clock: Clock,
    last_look: impl FnOnce() -> Vec<Poll>,
) -> anyhow::Result<u8> {
    if let End::Exit(pid) = plan.end {
        anyhow::ensure!(!is_gone(pid), "--until-exit {pid}: there is no such process");
    }
    let signals = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        flag::register_usize(signal, Arc::clone(&signals), signal as usize).context("cannot watch for signals")?;
    }
    let mut watch = Watch::new(plan, pools, run, record)?;
    let why = watch.until_the_end(polls, &signals)?;
    let closed = || "standard output was closed before the end".to_owned();
    let why = why.or_else(|| (watch.out_closed && !plan.assertions.is_empty()).then(closed));
    let by = match plan.end {
        End::Count(_) => EndedBy::Count,
        _ if plan.expect_exit => EndedBy::Exit,
        _ => EndedBy::Time,
    };
    let ending = Ending { at: clock.at(), by, why };
    let signal = signals.load(Ordering::SeqCst);
    // What was answered before the end counts, also when it waited for a slow reader of the output.
    for entry in polls.try_iter() {
        let later = matches!(&entry, Entry::Poll(poll) if poll.at > ending.at);
        watch.enter(entry)?;
        if later {
            break;
        }
    }
    if signal == 0 && !watch.out_closed && !matches!(plan.end, End::Never | End::Count(_)) {
        for poll in last_look() {
            watch.take(poll)?;
        }
    }
    watch.write(|recorder| recorder.end(&ending));
    if signal != 0 {
        // Whoever waits for us sees that the signal ended us.
        low_level::emulate_default_handler(signal as i32).context("cannot end as the signal says")?;
    }
    watch.conclude(&ending)
}

/// Goes through a recording as [`watch`] does through what comes live.
///
/// # Errors
/// When output cannot be written.
pub(crate) fn replay(plan: &Plan, pools: &mut [Pool], entries: &Receiver<Entry>) -> anyhow::Result<u8> {
    // Which run it is of, it says itself.
    let run = Run { interval: Some(Duration::ZERO), targets: Vec::new() };
    let mut watch = Watch::new(plan, pools, &run, None)?;
    watch.until_the_end(entries, &AtomicUsize::new(0))?;
    let ending = watch.ending.take();
    let counted = watch.pools.iter().filter_map(|pool| pool.current.as_ref()).map(|sample| sample.at).max();
    let counted = Ending { at: counted.unwrap_or_default(), by: EndedBy::Count, why: None };
    let enough = matches!(plan.end, End::Count(_)) && watch.left.iter().all(|left| *left == 0);
    let ending = match (ending, watch.runs) {
        (_, 2..) => {
            watch.judge.void(format!("the recording holds {} runs, and a verdict is on one", watch.runs));
            counted
        }
        (Some(ending), _) => ending,
        (None, _) if enough => counted,
        (None, _) => {
            watch.judge.void("the recording does not say how it ended: it was cut short".to_owned());
            counted
        }
    };
    watch.conclude(&ending)
}

struct Watch<'a> {
    plan: &'a Plan,
    pools: &'a mut [Pool],
    judge: Judge,
    recorder: Option<Recorder>,
    /// By server: its name in a recording, as it was typed.
    names: &'a [String],
    /// By server: what its next line tells of.
    lines: Vec<(Steps, Window)>,
    /// By server: what the page shows; empty when there will be none.
    tracks: Vec<Track>,
    files: Files,
    /// By server: how many samples are still wanted.
    left: Vec<u64>,
    printed: u64,
    out_closed: bool,
    /// Runs that a recording held.
    runs: usize,
    /// How a recording says that it ended.
    ending: Option<Ending>,
    /// The recording could not be written.
    unrecorded: bool,
}

impl<'a> Watch<'a> {
    fn new(plan: &'a Plan, pools: &'a mut [Pool], run: &'a Run, recorder: Option<Recorder>) -> anyhow::Result<Self> {
        let labels = pools.iter().map(|pool| pool.label.clone());
        let judge = Judge::new(&plan.assertions, &plan.baseline, labels, plan.phases, run.interval.unwrap_or_default());
        let mut lines = Vec::new();
        lines.resize_with(pools.len(), Default::default);
        let files = Files::open(plan.junit.as_deref(), plan.markdown.as_deref(), plan.html.as_deref())?;
        let mut tracks = Vec::new();
        if files.html.is_some() {
            tracks.resize_with(pools.len(), Track::default);
        }
        let left = if let End::Count(count) = plan.end { count } else { u64::MAX };
        let mut watch = Self {
            plan,
            judge,
            recorder,
            names: &run.targets,
            lines,
            tracks,
            files,
            left: vec![left; pools.len()],
            printed: 0,
            out_closed: false,
            runs: 0,
            ending: None,
            unrecorded: false,
            pools,
        };
        if plan.format == Format::Csv {
            watch.print(&csv_header())?;
        }
        Ok(watch)
    }

    /// Takes entries in until the end; returns why nothing counts, when that is known already.
    fn until_the_end(&mut self, entries: &Receiver<Entry>, signals: &AtomicUsize) -> anyhow::Result<Option<String>> {
        let mut until = Until::new(&self.plan.end);
        loop {
            match entries.recv_timeout(TICK) {
                Ok(entry) => self.enter(entry)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.out_closed || signals.load(Ordering::SeqCst) != 0 || self.left.iter().all(|left| *left == 0) {
                return Ok(None);
            }
            if let Some(why) = until.is_over(self.judge.has_begun())? {
                return Ok(why);
            }
        }
    }

    fn enter(&mut self, entry: Entry) -> anyhow::Result<()> {
        match entry {
            Entry::Poll(poll) => return self.take(poll),
            Entry::Run(run) => {
                self.runs += 1;
                match run.interval {
                    Some(interval) => self.judge.set_interval(interval),
                    None => self.judge.void(
                        "the recording is of an older rtop, which wrote neither the poll interval nor the end"
                            .to_owned(),
                    ),
                }
            }
            Entry::End(ending) => self.ending = Some(ending),
            Entry::Damage(damage) => {
                writeln!(io::stderr(), "rtop: {damage}")?;
                self.judge.void(damage.to_string());
            }
        }
        Ok(())
    }

    /// Takes a sample in, records it and prints it.
    fn take(&mut self, poll: Poll) -> anyhow::Result<()> {
        let target = poll.target;
        if self.left.get(target).is_none_or(|left| *left == 0) {
            return Ok(());
        }
        if let (Some(recorder), Some(name)) = (&mut self.recorder, self.names.get(target)) {
            let written = recorder.poll(name, &poll);
            self.recorded(written);
        }
        let Some(pool) = self.pools.get_mut(target) else { return Ok(()) };
        let (at, taken) = (poll.at, poll.taken);
        let known = pool.current.is_some();
        let quiet = pool.trouble.clone();
        pool.ingest(poll);
        if let Some(track) = self.tracks.get_mut(target) {
            track.take(pool, at, taken);
        }
        if let Some(trouble) = &pool.trouble {
            self.judge.failed(target, &trouble.message);
            // Said once; a server that is away for an hour does not fill the log.
            if quiet.is_none_or(|before| before.message != trouble.message) {
                writeln!(io::stderr(), "rtop: {}: {}", pool.label, trouble.message)?;
            }
            self.left[target] = self.left[target].saturating_sub(1);
            return Ok(());
        }
        let is_early = self.judge.push(target, pool, taken);
        let is_before = self.waits_for_answers() || self.judges() && is_early;
        let pool = &self.pools[target];
        let (steps, window) = &mut self.lines[target];
        if let Some(step) = steps.step(pool, taken).filter(|_| self.plan.format == Format::Json) {
            window.then(&step.whole);
        }
        // The first sample of a server only begins the window that rates need.
        let Some(sample) = pool.current.as_ref().filter(|_| known) else { return Ok(()) };
        self.left[target] = self.left[target].saturating_sub(u64::from(!is_before));
        let text = match self.plan.format {
            Format::Tables => self.plan.batch.table(pool, sample),
            Format::Json => json_line(pool, sample, &std::mem::take(window)),
            Format::Csv => csv_rows(pool, sample),
            Format::Nothing => String::new(),
        };
        self.print(&text)?;
        self.printed += 1;
        Ok(())
    }

    fn judges(&self) -> bool {
        !self.plan.assertions.is_empty() || self.files.html.is_some()
    }

    /// Whether a server is still to answer for the first time, and nothing is judged before.
    fn waits_for_answers(&self) -> bool {
        self.judges() && self.pools.iter().zip(&self.left).any(|(pool, left)| pool.current.is_none() && *left > 0)
    }

    fn write(&mut self, entry: impl FnOnce(&mut Recorder) -> Result<(), RecordingError>) {
        if let Some(recorder) = &mut self.recorder {
            let written = entry(recorder);
            self.recorded(written);
        }
    }

    /// What could not be recorded is told at once, and nothing is recorded after it.
    fn recorded(&mut self, written: Result<(), RecordingError>) {
        if let Err(error) = written {
            let _ = writeln!(io::stderr(), "rtop: {error}; nothing more is recorded");
            self.recorder = None;
            self.unrecorded = true;
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
        let (samples, failures) = self.judge.counted();
        let unrecorded = if self.unrecorded { NOT_MEASURED } else { 0 };
        let asserts = !self.plan.assertions.is_empty();
        if asserts && failures > 0 {
            writeln!(io::stderr(), "rtop: {failures} of {} samples failed", failures + samples)?;
        }
        let watched = self.judge.watched();
        let no_servers = Judge::new(&[], &[], std::iter::empty(), Phases::default(), Duration::ZERO);
        let verdict = std::mem::replace(&mut self.judge, no_servers).finish(ending);
        let zone = &self.plan.batch.zone;
        let files = std::mem::take(&mut self.files);
        // One that cannot be written takes none of the others away.
        let page = files.html.map_or(Ok(()), |file| {
            let page = Page {
                verdict: &verdict,
                watched: &watched,
                pools: self.pools,
                tracks: &self.tracks,
                samples: (samples, failures),
                zone,
            };
            file.write(&page.html())
        });
        let junit = files.junit.map_or(Ok(()), |file| file.write(&verdict.junit(zone)?));
        let markdown = files.markdown.map_or(Ok(()), |file| file.write(&verdict.markdown(zone)));
        let status = if asserts {
            self.tell(&verdict)?;
            verdict.exit_code()
        } else if self.printed == 0 && samples == 0 {
            NOT_MEASURED
        } else {
            0
        };
        page.and(junit).and(markdown)?;
        Ok(status.max(unrecorded))
    }

    /// The verdict, as it was asked for.
    fn tell(&mut self, verdict: &Verdict) -> anyhow::Result<()> {
        let zone = &self.plan.batch.zone;
        let text = if self.plan.format == Format::Json { verdict.json() } else { verdict.table(zone) };
        // CSV stays CSV.
        if self.plan.format == Format::Csv {
            io::stderr().write_all(text.as_bytes())?;
        } else {
            self.print(&text)?;
        }
        Ok(())
    }
}

/// What a recording has of each assertion's metric, or why it is not known.
pub(crate) fn baseline(
    assertions: &[Assertion],
    warmup: Duration,
    recording: impl Iterator<Item = Entry>,
    pools: &mut [Pool],
) -> Vec<Result<Baseline, String>> {
    // Held against anything, so that it is measured.
    let assertions: Vec<Assertion> = assertions.iter().map(Assertion::against_anything).collect();
    let labels = pools.iter().map(|pool| pool.label.clone());
    let phases = Phases { warmup, window: None };
    let mut judge = Judge::new(&assertions, &[], labels, phases, Duration::ZERO);
    let (mut ending, mut runs) = (None, 0);
    for entry in recording {
        match entry {
            Entry::Run(run) => {
                runs += 1;
                judge.set_interval(run.interval.unwrap_or(Duration::MAX / 8));
            }
            Entry::End(end) => ending = Some(end),
            Entry::Damage(damage) => judge.void(damage.to_string()),
            Entry::Poll(poll) => {
                let (target, taken) = (poll.target, poll.taken);
                let Some(pool) = pools.get_mut(target) else { continue };
                pool.ingest(poll);
                match &pool.trouble {
                    Some(trouble) => judge.failed(target, &trouble.message),
                    None => {
                        let _ = judge.push(target, pool, taken);
                    }
                }
            }
        }
    }
    if runs != 1 {
        judge.void(format!("it holds {runs} runs, and a baseline is one"));
    }
    let Some(ending) = ending else {
        return vec![Err("it does not say how it ended: it was cut short".to_owned()); assertions.len()];
    };
    let verdict = judge.finish(&ending);
    let void = verdict.void;
    let measured = verdict.judgements.into_iter().map(|judgement| match (&void, judgement.actual) {
        (Some(void), _) => Err(void.clone()),
        (None, actual) => actual.map(|measured| Baseline {
            value: measured.value,
            counts_exceptions: measured.note.is_some(),
            servers: pools.len(),
        }),
    });
    measured.collect()
}
