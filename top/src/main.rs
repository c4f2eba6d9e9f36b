//! `rtop`: shows pools of rwsgi or uWSGI workers, live, in a terminal; and, without a terminal, turns what they tell
//! into tables, JSON, CSV, assertions and exit codes.

mod args;
mod config;
#[cfg(test)]
mod docs;
mod format;
mod model;
mod report;
mod source;
mod view;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, error::ErrorKind};
use jiff::tz::TimeZone;

use args::Args;
use model::Pool;
use report::{Assertion, End, Format, Plan};
use source::{Clock, Player, Poller, Reader, Recorder, Recording, Sample, fetch};
use view::{FAST, Feed, Pace, Screen, Setup, Theme};

/// Nothing could be measured, or nothing could be shown.
const NOT_MEASURED: u8 = 2;

fn main() -> ExitCode {
    let mut args = Args::parse();
    args.targets.append(&mut args.address);
    run(&args).map_or_else(
        |error| {
            let _ = writeln!(io::stderr(), "rtop: {error:#}");
            ExitCode::from(NOT_MEASURED)
        },
        ExitCode::from,
    )
}

fn run(args: &Args) -> anyhow::Result<u8> {
    if let Some(text) = printed(args)? {
        return match io::stdout().write_all(&text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
            _ => Ok(0),
        };
    }
    let refuse = |kind, message: &str| -> ! { Args::command().error(kind, message).exit() };
    if args.targets.is_empty() && args.replay.is_none() {
        refuse(ErrorKind::MissingRequiredArgument, "no stats server is named; for example: rtop 127.0.0.1:9191");
    }
    let assertions = assertions(args)?;
    let end = end(args);
    if !assertions.is_empty() && matches!(end, End::Never) && args.replay.is_none() {
        let message = "--assert needs to know for how long: --for 30s, --until-exit PID, -n COUNT, or -- COMMAND";
        refuse(ErrorKind::MissingRequiredArgument, message);
    }
    if assertions.is_empty() && (args.junit.is_some() || args.markdown.is_some()) {
        refuse(
            ErrorKind::MissingRequiredArgument,
            "--junit and --markdown tell what came of --assert, and there is none",
        );
    }
    let format = match (args.json, args.csv, assertions.is_empty() || args.batch) {
        (true, _, _) => Some(Format::Json),
        (_, true, _) => Some(Format::Csv),
        (_, _, false) => Some(Format::Nothing),
        _ if args.batch || !matches!(end, End::Never) || !io::stdout().is_terminal() => Some(Format::Tables),
        _ => None,
    };
    let tap = Tap::open(args)?;
    let code = match format {
        Some(format) => {
            let batch = report::Batch { zone: TimeZone::system(), theme: theme() };
            let (junit, markdown) = (args.junit.clone(), args.markdown.clone());
            watch(args, &Plan { format, batch, end, assertions, junit, markdown }, &tap)?
        }
        None => live(args, &tap)?,
    };
    tap.close()?;
    Ok(code)
}

/// What is asked for about rtop itself.
fn printed(args: &Args) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    if args.list_metrics {
        report::list_metrics(&mut text)?;
    } else if args.print_config {
        text = config::default_text().into_bytes();
    } else if let Some(shell) = args.completions {
        clap_complete::generate(shell, &mut Args::command(), "rtop", &mut text);
    } else if args.json_schema {
        text = format!("{:#}\n", report::json_schema()).into_bytes();
    } else if args.man {
        clap_mangen::Man::new(Args::command()).render(&mut text)?;
    } else {
        return Ok(None);
    }
    Ok(Some(text))
}

fn assertions(args: &Args) -> anyhow::Result<Vec<Assertion>> {
    let mut assertions = args.assertions.clone();
    if let Some(path) = &args.assert_file {
        let text = fs::read_to_string(path).with_context(|| format!("--assert-file {}", path.display()))?;
        let more = report::parse_file(&text).with_context(|| format!("--assert-file {}", path.display()))?;
        assertions.extend(more);
    }
    Ok(assertions)
}

fn end(args: &Args) -> End {
    if let Some(count) = args.count {
        End::Count(count)
    } else if let Some(duration) = args.duration {
        End::After(duration)
    } else if let Some(pid) = args.until_exit {
        End::Exit(pid)
    } else if !args.command.is_empty() {
        End::Command(args.command.clone())
    } else {
        End::Never
    }
}

fn theme() -> Theme {
    Theme::from_environment(|name| std::env::var(name).ok())
}

fn pools(args: &Args) -> Vec<Pool> {
    args.targets.iter().map(|target| Pool::new(target.to_string(), target.node())).collect()
}

type Deliver = Box<dyn Fn(Sample) -> bool + Send>;

/// Starts a thread for each target.
fn start_pollers(args: &Args, tap: &Tap, clock: Clock, deliver: impl Fn() -> Deliver) -> anyhow::Result<Vec<Poller>> {
    let start = |(index, target): (usize, &source::Target)| {
        let deliver = tap.through(target.to_string(), deliver());
        Poller::start(index, target.clone(), args.frequency, args.timeout, clock, deliver)
    };
    Ok(args.targets.iter().enumerate().map(start).collect::<io::Result<_>>()?)
}

fn live(args: &Args, tap: &Tap) -> anyhow::Result<u8> {
    let path = args.config.clone().or_else(|| config::path(|name| std::env::var(name).ok()));
    if let Some(path) = args.config.as_deref().filter(|path| !path.exists()) {
        anyhow::bail!("--config {}: there is no such file", path.display());
    }
    let config = config::read(path.as_deref())?;
    let mouse = config.mouse.unwrap_or(true) && !args.no_mouse;
    let setup = Setup {
        theme: Theme { palette: args.theme.unwrap_or(config.theme), own: config.colors, ..theme() },
        zone: TimeZone::system(),
        keys: config.keys,
        thresholds: config.thresholds,
        columns: config.columns,
        sort: config.sort,
        interval: if args.replay.is_some() { None } else { Some(args.frequency) },
    };
    if let Some(path) = &args.replay {
        let screen = Screen::new(replayed_pools(path)?, setup);
        let recording = Recording::open(path)?;
        view::run(screen, mouse, |deliver| {
            let (sample, end) = (deliver(), deliver());
            let player = Player::start(recording, move |played| match played {
                Some(played) => sample(Feed::Sample(played)),
                None => end(Feed::End),
            })?;
            Ok(move |pace| {
                if let Pace::Replay(speed) = pace {
                    player.set_speed(speed);
                }
            })
        })?;
        return Ok(0);
    }
    let screen = Screen::new(pools(args), setup);
    view::run(screen, mouse, |deliver| {
        let pollers = start_pollers(args, tap, Clock::start(), || {
            let deliver = deliver();
            Box::new(move |sample| deliver(Feed::Sample(sample)))
        })?;
        Ok(move |pace| {
            let interval = if pace == Pace::Fast { FAST.min(args.frequency) } else { args.frequency };
            pollers.iter().for_each(|poller| poller.set_interval(interval));
        })
    })?;
    Ok(0)
}

fn watch(args: &Args, plan: &Plan, tap: &Tap) -> anyhow::Result<u8> {
    if let Some(path) = &args.replay {
        let mut pools = replayed_pools(path)?;
        let recording = Recording::open(path)?;
        // Bounded: a recording of weeks does not go into memory.
        let (sender, samples) = mpsc::sync_channel(16);
        thread::spawn(move || recording.into_iter().try_for_each(|sample| sender.send(sample)));
        return report::watch(plan, &mut pools, &samples, Vec::new);
    }
    let (sender, samples) = mpsc::channel();
    let clock = Clock::start();
    let _pollers = start_pollers(args, tap, clock, || {
        let sender = sender.clone();
        Box::new(move |sample| sender.send(sample).is_ok())
    })?;
    report::watch(plan, &mut pools(args), &samples, || {
        let last = |(index, target)| Sample {
            target: index,
            at: clock.at(),
            taken: Clock::local(),
            outcome: fetch(target, args.timeout, &mut Reader::default()),
        };
        args.targets.iter().enumerate().map(last).collect()
    })
}

/// The servers of a recording, which only the whole of it names.
fn replayed_pools(path: &Path) -> anyhow::Result<Vec<Pool>> {
    let mut recording = Recording::open(path)?;
    recording.by_ref().for_each(drop);
    Ok(recording.targets.into_iter().map(|label| Pool::new(label, None)).collect())
}

/// What copies every sample into a recording on its way, when one was asked for.
struct Tap(Option<Arc<Mutex<Tapped>>>);

struct Tapped {
    recorder: Recorder,
    /// The first that went wrong; nothing is written after it, and it is told at the end.
    failure: Option<source::RecordingError>,
}

impl Tap {
    fn open(args: &Args) -> anyhow::Result<Self> {
        let Some(path) = &args.record else { return Ok(Self(None)) };
        let recorder = Recorder::open(path)?;
        Ok(Self(Some(Arc::new(Mutex::new(Tapped { recorder, failure: None })))))
    }

    fn through(&self, label: String, deliver: Deliver) -> Deliver {
        let Some(tapped) = self.0.clone() else { return deliver };
        Box::new(move |sample| {
            let mut tapped = tapped.lock().unwrap_or_else(PoisonError::into_inner);
            if tapped.failure.is_none() {
                tapped.failure = tapped.recorder.write(&label, &sample).err();
            }
            drop(tapped);
            deliver(sample)
        })
    }

    fn close(&self) -> anyhow::Result<()> {
        let Some(tapped) = &self.0 else { return Ok(()) };
        let failure = tapped.lock().unwrap_or_else(PoisonError::into_inner).failure.take();
        failure.map_or(Ok(()), |failure| Err(failure).context("the recording is not whole"))
    }
}
