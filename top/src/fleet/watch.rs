//! Watching a fleet: on a screen, or written and judged.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;

use clap::{CommandFactory, error::ErrorKind};
use jiff::tz::TimeZone;

use super::start;
use crate::args::Args;
use crate::report::{self, Batch, End, Format, Phases, Plan};
use crate::source::{Asker, Clock, Poller, Tunnels};
use crate::view::{self, Deliver, Drill, FAST, Face, Feed, FleetScreen, Pace};

/// Shows a fleet, or writes and judges what it does. Returns the exit code.
///
/// # Errors
/// When nothing can be started or shown.
pub(crate) fn watch(args: &Args, tunnels: &Arc<Tunnels>) -> anyhow::Result<u8> {
    let refuse = |message: &str| -> ! { Args::command().error(ErrorKind::ArgumentConflict, message).exit() };
    let single = [
        (args.record.is_some(), "--record"),
        (args.html.is_some(), "--html"),
        (args.baseline.is_some(), "--baseline"),
        (args.control.is_some(), "--control"),
        (args.expect_exit, "--expect-exit"),
    ];
    if let Some((_, option)) = single.iter().find(|(given, _)| *given) {
        refuse(&format!("{option} is of servers that are named one by one, without --fleet, and these are a fleet"));
    }
    let assertions = crate::assertions(args)?;
    if let Some(why) = report::refusal(&assertions) {
        refuse(&why);
    }
    let end = crate::end(args);
    crate::check_judging(args, &assertions, &end);
    let is_plain = args.batch || !matches!(end, End::Never) || !io::stdout().is_terminal();
    let format = match (args.json, args.csv, assertions.is_empty() || args.batch) {
        (true, _, _) => Format::Json,
        (_, true, _) => Format::Csv,
        (_, _, false) => Format::Nothing,
        _ if is_plain => Format::Tables,
        _ => return live(args, tunnels),
    };
    if args.config.is_some() {
        // Only a screen goes by it, but a mistake in it is told all the same.
        crate::configuration(args)?;
    }
    let plan = Plan {
        format,
        batch: Batch { zone: TimeZone::system(), unicode: crate::theme().unicode },
        end,
        expect_exit: false,
        baseline: Vec::new(),
        assertions,
        phases: Phases { warmup: args.warmup.unwrap_or_default(), window: args.window },
        junit: args.junit.clone(),
        markdown: args.markdown.clone(),
        html: None,
    };
    let clock = Clock::start();
    let (sender, events) = mpsc::channel();
    let _source = start(args, tunnels, clock, Box::new(move |batch| sender.send(batch).is_ok()))?;
    report::watch_fleet(&plan, args.frequency, args.timeout, &events, clock)
}

fn live(args: &Args, tunnels: &Arc<Tunnels>) -> anyhow::Result<u8> {
    let config = crate::configuration(args)?;
    let mouse = config.mouse.unwrap_or(true) && !args.no_mouse;
    let (drills, wanted) = mpsc::channel();
    let screen = FleetScreen::new(crate::setup(args, config, None), Some(drills));
    let clock = Clock::start();
    view::run(Face::Fleet(Box::new(screen)), mouse, |deliver| {
        let events = deliver();
        let source = start(args, tunnels, clock, Box::new(move |batch| events(Feed::Fleet(batch))))?;
        look_closely(args, clock, wanted, deliver())?;
        Ok(move |pace| {
            source.set_interval(if pace == Pace::Fast { FAST.min(args.frequency) } else { args.frequency });
        })
    })?;
    Ok(0)
}

/// Starts what reads the server that the screen looks at closely; it ends when the screen does.
fn look_closely(args: &Args, clock: Clock, wanted: Receiver<Drill>, deliver: Deliver) -> io::Result<()> {
    let (interval, timeout) = (args.frequency, args.timeout);
    let deliver = Arc::new(Mutex::new(deliver));
    let look = move || {
        let mut poller: Option<Poller> = None;
        for drill in wanted {
            match drill {
                Drill::Close => poller = None,
                Drill::Pace(pace) => {
                    let interval = if pace == Pace::Fast { FAST.min(interval) } else { interval };
                    poller.iter().for_each(|poller| poller.set_interval(interval));
                }
                Drill::Open { ticket, target, asked } => {
                    let to = || {
                        let deliver = Arc::clone(&deliver);
                        move |feed| {
                            let deliver = deliver.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            deliver(Feed::Drilled(ticket, Box::new(feed)))
                        }
                    };
                    let (polls, told) = (to(), to());
                    let asker = Asker::new(vec![target.clone()], None, timeout);
                    let started =
                        Poller::start(0, target, interval, timeout, clock, move |poll| polls(Feed::Poll(poll)))
                            .and_then(|started| crate::answer_asks(asker, asked, Box::new(told)).map(|()| started));
                    match started {
                        Ok(started) => poller = Some(started),
                        Err(error) => drop(to()(Feed::Notice(format!("it cannot be read: {error}")))),
                    }
                }
            }
        }
        drop(poller);
    };
    thread::Builder::new().name("closely".into()).spawn(look)?;
    Ok(())
}
