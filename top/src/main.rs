//! `rtop`: shows pools of rwsgi or uWSGI workers, live, in a terminal; and, without a terminal, turns what they tell
//! into tables, JSON, CSV, assertions and exit codes.

mod args;
mod config;
#[cfg(test)]
mod docs;
mod exporter;
mod fleet;
mod format;
mod model;
mod report;
mod source;
mod view;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, error::ErrorKind};
use jiff::tz::TimeZone;

use args::Args;
use model::Pool;
use report::{Baseline, Destination, End, Format, Phases, Plan, Sampling};
use rwsgi_assertions::Assertion;
use rwsgi_stats::control::MemoryRequest;
use source::{
    Ask, Asker, Clock, ControlError, ControlEvent, ControlReply, EndedBy, Ending, Entry, Fetcher, Player, Poll, Poller,
    Recorder, Recording, Run, Tunnels,
};
use view::{Deliver, FAST, Face, Feed, Pace, Screen, Setup, Theme};

/// Nothing could be measured, or nothing could be shown.
const NOT_MEASURED: u8 = 2;

fn main() -> ExitCode {
    let mut args = Args::parse();
    args.places.append(&mut args.address);
    let tunnels = Arc::new(Tunnels::new(args.ssh_config.clone()));
    run(&mut args, &tunnels).map_or_else(
        |error| {
            let _ = writeln!(io::stderr(), "rtop: {error:#}");
            ExitCode::from(NOT_MEASURED)
        },
        ExitCode::from,
    )
}

fn run(args: &mut Args, tunnels: &Arc<Tunnels>) -> anyhow::Result<u8> {
    if let Some(text) = printed(args)? {
        return match io::stdout().write_all(&text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
            _ => Ok(0),
        };
    }
    let refuse = |kind, message: &str| -> ! { Args::command().error(kind, message).exit() };
    if args.places.is_empty() && args.replay.is_none() {
        refuse(ErrorKind::MissingRequiredArgument, "no stats server is named; for example: rtop 127.0.0.1:9191");
    }
    let twice = args.places.iter().enumerate().find(|(number, place)| args.places[..*number].contains(place));
    if let Some((_, place)) = twice {
        // Its numbers would count twice, and a recording knows servers by their names.
        refuse(ErrorKind::ArgumentConflict, &format!("{place} is named twice"));
    }
    if args.servers {
        return fleet::list(args, tunnels);
    }
    let asks_once = args.stacks || args.memory.is_some() || args.profile.is_some() || args.exporter.is_some();
    if args.replay.is_none() && !asks_once && fleet::is_fleet(args) {
        return fleet::watch(args, tunnels);
    }
    args.targets = fleet::targets(args, tunnels)?;
    let args = &*args;
    if let Some(listen) = &args.exporter {
        match exporter::run(listen, &args.targets, args.timeout, args.metrics_compat)? {}
    }
    if args.stacks {
        let theme = if io::stdout().is_terminal() { theme() } else { Theme::default() };
        let paint = |part, text: &str| view::painted(&theme, part, text);
        report::stacks(&args.targets, args.control.as_deref(), args.timeout, args.worker, args.json, &paint)?;
        return Ok(0);
    }
    if let Some(what) = args.memory {
        let [target] = args.targets.as_slice() else {
            refuse(ErrorKind::TooManyValues, "--memory is of one server, and several are named")
        };
        let is_action = matches!(what, MemoryRequest::TraceStart | MemoryRequest::TraceStop);
        if is_action && (args.read_only || configuration(args)?.read_only.unwrap_or(false)) {
            refuse(
                ErrorKind::ArgumentConflict,
                "--memory trace-start and trace-stop change the server, and rtop only looks (read-only)",
            );
        }
        report::memory(target, args.control.as_deref(), args.timeout, args.worker, what, args.json)?;
        return Ok(0);
    }
    if let Some(sampling) = sampling(args) {
        let [target] = args.targets.as_slice() else {
            refuse(ErrorKind::TooManyValues, "--profile is of one server, and several are named")
        };
        if args.output.is_none() && !args.json && !args.batch && io::stdout().is_terminal() {
            return live(args);
        }
        let to = Destination { file: args.output.as_deref(), json: args.json };
        report::profile(target, args.control.as_deref(), args.timeout, &sampling, to)?;
        return Ok(0);
    }
    let assertions = assertions(args)?;
    let end = end(args);
    check_judging(args, &assertions, &end);
    let format = match (args.json, args.csv, (assertions.is_empty() && args.html.is_none()) || args.batch) {
        (true, _, _) => Some(Format::Json),
        (_, true, _) => Some(Format::Csv),
        (_, _, false) => Some(Format::Nothing),
        _ if args.batch || !matches!(end, End::Never) || !io::stdout().is_terminal() => Some(Format::Tables),
        _ => None,
    };
    let Some(format) = format else { return live(args) };
    if args.config.is_some() {
        // Only a screen goes by it, but a mistake in it is told all the same.
        configuration(args)?;
    }
    let phases = Phases { warmup: args.warmup.unwrap_or_default(), window: args.window };
    let plan = Plan {
        format,
        batch: report::Batch { zone: TimeZone::system(), unicode: theme().unicode },
        end,
        expect_exit: args.expect_exit,
        baseline: baseline(args, &assertions, phases.warmup)?,
        assertions,
        phases,
        junit: args.junit.clone(),
        markdown: args.markdown.clone(),
        html: args.html.clone(),
    };
    watch(args, &plan)
}

/// Refuses assertions that nobody can judge, and what says how they are judged where there are none.
fn check_judging(args: &Args, assertions: &[Assertion], end: &End) {
    let refuse = |kind, message: &str| -> ! { Args::command().error(kind, message).exit() };
    if !assertions.is_empty() && matches!(end, End::Never) && args.replay.is_none() {
        let message = "--assert needs to know for how long: --for 30s, --until-exit PID, -n COUNT, or -- COMMAND";
        refuse(ErrorKind::MissingRequiredArgument, message);
    }
    if args.html.is_some() && matches!(end, End::Never) && args.replay.is_none() {
        let message = "--html needs to know for how long: --for 30s, --until-exit PID, -n COUNT, or -- COMMAND";
        refuse(ErrorKind::MissingRequiredArgument, message);
    }
    if assertions.is_empty() && (args.junit.is_some() || args.markdown.is_some()) {
        refuse(
            ErrorKind::MissingRequiredArgument,
            "--junit and --markdown tell what came of --assert, and there is none",
        );
    }
    let judges = args.baseline.is_some() || args.window.is_some() || args.warmup.is_some() || args.expect_exit;
    if assertions.is_empty() && judges {
        refuse(
            ErrorKind::MissingRequiredArgument,
            "--warmup, --window, --baseline and --expect-exit say how --assert is judged, and there is none",
        );
    }
    if args.baseline.is_none()
        && let Some(assertion) = assertions.iter().find(|assertion| assertion.needs_baseline())
    {
        let message = format!("'{}' needs --baseline FILE, a recording to compare with", assertion.text);
        refuse(ErrorKind::MissingRequiredArgument, &message);
    }
    if args.expect_exit && args.until_exit.is_none() && args.command.is_empty() {
        refuse(ErrorKind::MissingRequiredArgument, "--expect-exit goes with --until-exit PID or -- COMMAND");
    }
}

/// What --profile asks for.
fn sampling(args: &Args) -> Option<Sampling> {
    let by = args.profile_by.unwrap_or_default();
    args.profile.map(|duration| Sampling { duration, rate: args.rate, by })
}

/// What the recording to compare with has of each assertion's metric; empty without one.
fn baseline(args: &Args, assertions: &[Assertion], warmup: Duration) -> anyhow::Result<Vec<Result<Baseline, String>>> {
    let Some(path) = &args.baseline else { return Ok(Vec::new()) };
    let recording = Recording::open(path).context("--baseline")?;
    let mut pools = replayed_pools(&recording);
    Ok(report::baseline(assertions, warmup, recording, &mut pools))
}

/// What is asked for about rtop itself.
fn printed(args: &Args) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    if args.list_metrics {
        rwsgi_assertions::list_metrics(&mut text)?;
    } else if args.print_config {
        text = config::default_text().into_bytes();
    } else if let Some(shell) = args.completions {
        clap_complete::generate(shell, &mut Args::command(), "rtop", &mut text);
    } else if args.json_schema {
        let schema = if fleet::is_fleet(args) { report::fleet_json_schema() } else { report::json_schema() };
        text = format!("{schema:#}\n").into_bytes();
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
    let live = |target: &source::Target| {
        let mut pool = Pool::new(target.to_string(), target.node());
        pool.room = Some(source::room);
        pool
    };
    args.targets.iter().map(live).collect()
}

type DeliverPoll = Box<dyn Fn(Poll) -> bool + Send>;

/// Starts a thread for each target.
fn start_pollers(args: &Args, clock: Clock, deliver: impl Fn() -> DeliverPoll) -> anyhow::Result<Vec<Poller>> {
    let start = |(index, target): (usize, &source::Target)| {
        Poller::start(index, target.clone(), args.frequency, args.timeout, clock, deliver())
    };
    Ok(args.targets.iter().enumerate().map(start).collect::<io::Result<_>>()?)
}

/// What is written of this run into a recording.
fn this_run(args: &Args) -> Run {
    Run { interval: Some(args.frequency), targets: args.targets.iter().map(ToString::to_string).collect() }
}

fn recorder(args: &Args) -> anyhow::Result<Option<Recorder>> {
    Ok(args.record.as_ref().map(|path| Recorder::begin(path, &this_run(args))).transpose()?)
}

fn configuration(args: &Args) -> anyhow::Result<config::Config> {
    let path = args.config.clone().or_else(|| config::path(|name| std::env::var(name).ok()));
    if let Some(path) = args.config.as_deref().filter(|path| !path.exists()) {
        anyhow::bail!("--config {}: there is no such file", path.display());
    }
    Ok(config::read(path.as_deref())?)
}

/// How a screen is set up, by the configuration and the command line.
fn setup(args: &Args, config: config::Config, asks: Option<mpsc::Sender<Ask>>) -> Setup {
    Setup {
        theme: Theme { palette: args.theme.unwrap_or(config.theme), own: config.colors, ..theme() },
        zone: TimeZone::system(),
        keys: config.keys,
        thresholds: config.thresholds,
        columns: config.columns,
        sort: config.sort,
        interval: if args.replay.is_some() { None } else { Some(args.frequency) },
        asks,
        read_only: args.read_only || config.read_only.unwrap_or(false),
        control_named: args.control.is_some(),
    }
}

fn live(args: &Args) -> anyhow::Result<u8> {
    let config = configuration(args)?;
    let (asks, asked) = mpsc::channel();
    let mouse = config.mouse.unwrap_or(true) && !args.no_mouse;
    let asks = args.replay.is_none().then_some(asks);
    let setup = setup(args, config, asks);
    if let Some(path) = &args.replay {
        let recording = Recording::open(path)?;
        let screen = Screen::new(replayed_pools(&recording), setup);
        view::run(Face::Pools(Box::new(screen)), mouse, |deliver| {
            let (poll, end) = (deliver(), deliver());
            let player = Player::start(recording, move |played| match played {
                Some(played) => poll(Feed::Poll(played)),
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
    let mut screen = Screen::new(pools(args), setup);
    if let Some(sampling) = sampling(args) {
        screen.profile(sampling);
    }
    let clock = Clock::start();
    let tap = Tap(recorder(args)?.map(|recorder| Arc::new(Mutex::new(Some(recorder)))));
    view::run(Face::Pools(Box::new(screen)), mouse, |deliver| {
        let pollers = start_pollers(args, clock, || {
            let (tap, deliver) = (tap.clone(), deliver());
            let labels: Vec<String> = args.targets.iter().map(ToString::to_string).collect();
            Box::new(move |poll| {
                if let Some(why) = labels.get(poll.target).and_then(|label| tap.write(|to| to.poll(label, &poll))) {
                    deliver(Feed::Notice(why));
                }
                deliver(Feed::Poll(poll))
            })
        })?;
        answer_asks(Asker::new(args.targets.clone(), args.control.clone(), args.timeout), asked, deliver())?;
        Ok(move |pace| {
            let interval = if pace == Pace::Fast { FAST.min(args.frequency) } else { args.frequency };
            pollers.iter().for_each(|poller| poller.set_interval(interval));
        })
    })?;
    tap.write(|recorder| recorder.end(&Ending { at: clock.at(), by: EndedBy::Count, why: None }));
    Ok(if tap.has_failed() { NOT_MEASURED } else { 0 })
}

/// Starts what asks the servers' control sockets for the screen; it ends when the screen does.
fn answer_asks(asker: Asker, asked: mpsc::Receiver<Ask>, deliver: Deliver) -> io::Result<()> {
    let asker = Arc::new(asker);
    let deliver = Arc::new(Mutex::new(deliver));
    let answer = move || {
        for ask in asked {
            let to = Arc::clone(&deliver);
            let tell = move |told| to.lock().unwrap_or_else(PoisonError::into_inner)(Feed::ControlReply(told));
            let (target, ticket) = (ask.target, ask.ticket);
            if let Err(error) = asker.ask(ask, tell.clone()) {
                tell(ControlReply { target, ticket, said: ControlEvent::Answer(Err(ControlError::Broken(error))) });
            }
        }
    };
    thread::Builder::new().name("asks".into()).spawn(answer)?;
    Ok(())
}

fn watch(args: &Args, plan: &Plan) -> anyhow::Result<u8> {
    if let Some(path) = &args.replay {
        let recording = Recording::open(path)?;
        let mut pools = replayed_pools(&recording);
        // Bounded: a recording of weeks does not go into memory.
        let (sender, entries) = mpsc::sync_channel(16);
        thread::spawn(move || recording.into_iter().try_for_each(|entry| sender.send(entry)));
        return report::replay(plan, &mut pools, &entries);
    }
    let (sender, polls) = mpsc::channel();
    let clock = Clock::start();
    let record = recorder(args)?;
    let _pollers = start_pollers(args, clock, || {
        let sender = sender.clone();
        Box::new(move |poll| sender.send(Entry::Poll(poll)).is_ok())
    })?;
    report::watch(plan, &mut pools(args), &this_run(args), record, &polls, clock, || last_look(args, clock))
}

/// Reads every server once more, all at the same time.
fn last_look(args: &Args, clock: Clock) -> Vec<Poll> {
    thread::scope(|scope| {
        let look = |(target, server): (usize, &source::Target)| {
            let mut fetcher = Fetcher::new(server.clone(), args.timeout);
            scope.spawn(move || {
                let outcome = fetcher.fetch();
                Poll { target, at: clock.at(), taken: Clock::local(), outcome }
            })
        };
        let looks: Vec<_> = args.targets.iter().enumerate().map(look).collect();
        looks.into_iter().filter_map(|look| look.join().ok()).collect()
    })
}

/// The servers of a recording.
fn replayed_pools(recording: &Recording) -> Vec<Pool> {
    recording.targets.iter().map(|label| Pool::new(label.clone(), None)).collect()
}

/// What copies every sample of a live screen into a recording, when one was asked for; nothing, once that has failed.
#[derive(Clone)]
struct Tap(Option<Arc<Mutex<Option<Recorder>>>>);

impl Tap {
    /// Writes; returns what went wrong, the first time.
    fn write(&self, entry: impl FnOnce(&mut Recorder) -> Result<(), source::RecordingError>) -> Option<String> {
        let mut recorder = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let error = entry(recorder.as_mut()?).err()?;
        *recorder = None;
        Some(format!("{error}; nothing more is recorded"))
    }

    fn has_failed(&self) -> bool {
        self.0.as_ref().is_some_and(|tap| tap.lock().unwrap_or_else(PoisonError::into_inner).is_none())
    }
}
