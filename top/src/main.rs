//! `rtop`: shows pools of rwsgi or uWSGI workers, live, in a terminal; and, without a terminal, as plain text.
#![allow(dead_code)]

mod args;
mod format;
mod model;
mod report;
mod source;
mod view;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc;

use clap::{CommandFactory, Parser, error::ErrorKind};
use jiff::tz::TimeZone;

use args::Args;
use model::Pool;
use source::{Clock, Poller, Sample, Target};
use view::{Screen, Theme};

/// Nothing could be measured.
const NOT_MEASURED: u8 = 2;

fn main() -> ExitCode {
    let mut args = Args::parse();
    args.targets.append(&mut args.address);
    if args.targets.is_empty() {
        let message = "no stats server is named; for example: rtop 127.0.0.1:9191\n";
        Args::command().error(ErrorKind::MissingRequiredArgument, message).exit();
    }
    let shown =
        if args.batch || args.count.is_some() || !io::stdout().is_terminal() { batch(&args) } else { live(&args) };
    shown.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "rtop: {error:#}");
        ExitCode::from(NOT_MEASURED)
    })
}

fn theme() -> Theme {
    Theme::from_environment(|name| std::env::var(name).ok())
}

fn pools(targets: &[Target]) -> Vec<Pool> {
    targets.iter().map(|target| Pool::new(target.to_string(), target.host().map(str::to_owned))).collect()
}

/// Starts a thread for each target.
fn start_pollers(args: &Args, deliver: impl Fn() -> Box<dyn Fn(Sample) -> bool + Send>) -> anyhow::Result<Vec<Poller>> {
    let clock = Clock::start();
    let targets = args.targets.iter().enumerate();
    let start = |(index, target): (usize, &Target)| {
        Poller::start(index, target.clone(), args.frequency, args.timeout, clock, deliver())
    };
    Ok(targets.map(start).collect::<io::Result<_>>()?)
}

fn live(args: &Args) -> anyhow::Result<ExitCode> {
    let screen = Screen::new(pools(&args.targets), theme(), TimeZone::system());
    let options = view::Options { interval: args.frequency, mouse: !args.no_mouse };
    view::run(screen, options, |deliver| {
        let pollers = start_pollers(args, deliver)?;
        Ok(move |interval| pollers.iter().for_each(|poller| poller.set_interval(interval)))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn batch(args: &Args) -> anyhow::Result<ExitCode> {
    let (sender, samples) = mpsc::channel();
    let pollers = start_pollers(args, || {
        let sender = sender.clone();
        Box::new(move |sample| sender.send(sample).is_ok())
    })?;
    let batch = report::Batch { zone: TimeZone::system(), theme: theme() };
    let mut pools = pools(&args.targets);
    let (mut printed, mut failed) = (0, 0);
    // The first reading of each server only begins the window that rates need.
    let mut tables_left = args.count.map(|count| count * pools.len() as u64);
    for sample in samples {
        let pool = &mut pools[sample.target];
        let known = pool.current.is_some();
        if !pool.ingest(sample) {
            let message = pool.trouble.as_ref().map_or("", |trouble| trouble.message.as_str());
            writeln!(io::stderr(), "rtop: {}: {message}", pool.label)?;
            failed += 1;
        } else if let (true, Some(reading)) = (known, &pool.current) {
            let mut out = io::stdout().lock();
            match out.write_all(batch.table(pool, reading).as_bytes()).and_then(|()| out.flush()) {
                // The reader has seen enough, as `head` does.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                written => written?,
            }
            printed += 1;
        } else {
            continue;
        }
        if let Some(left) = &mut tables_left {
            *left -= 1;
            if *left == 0 {
                break;
            }
        }
    }
    drop(pollers);
    Ok(if printed == 0 && failed > 0 { ExitCode::from(NOT_MEASURED) } else { ExitCode::SUCCESS })
}
