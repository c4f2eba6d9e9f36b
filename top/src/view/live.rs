//! The loop of the live screen: samples, keys and signals come in on one channel; a frame goes out when one of them
//! changed something, and never otherwise.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use crossterm::event::{self, Event as TerminalEvent, KeyEventKind};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::keys;
use super::screen::{Outcome, Screen};
use super::terminal::Tty;
use crate::source::Sample;

/// How often a fast screen is read.
const FAST: Duration = Duration::from_millis(100);

/// What the live screen is told from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Between two readings.
    pub(crate) interval: Duration,
    /// Ask the terminal for clicks.
    pub(crate) mouse: bool,
}

enum Event {
    Sample(Sample),
    Terminal(TerminalEvent),
    Signal(i32),
    /// The terminal gives no more events: it is gone.
    Gone(io::Error),
}

/// Shows `screen` until the user leaves. `start` begins the reading: it gets what takes samples, and gives back what
/// changes the pace.
///
/// # Errors
/// When the terminal cannot be used.
pub(crate) fn run<P: Fn(Duration)>(
    mut screen: Screen,
    options: Options,
    start: impl FnOnce(&dyn Fn() -> Box<dyn Fn(Sample) -> bool + Send>) -> anyhow::Result<P>,
) -> anyhow::Result<()> {
    let (sender, events) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT]).context("cannot watch for signals")?;
    let signal = sender.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for number in &mut signals {
            if signal.send(Event::Signal(number)).is_err() {
                return;
            }
        }
    })?;
    let mut tty = Tty::take(options.mouse).context("cannot use the terminal")?;
    tty.draw(|frame| screen.draw(frame))?;
    let keyboard = sender.clone();
    thread::Builder::new().name("keyboard".into()).spawn(move || read_terminal(&keyboard))?;
    let pace = start(&|| {
        let sender = sender.clone();
        Box::new(move |sample| sender.send(Event::Sample(sample)).is_ok())
    })?;
    for event in events {
        let outcome = match event {
            Event::Sample(sample) => {
                if screen.ingest(sample) {
                    Outcome::Draw
                } else {
                    Outcome::Nothing
                }
            }
            Event::Terminal(TerminalEvent::Key(key)) if key.kind != KeyEventKind::Release => {
                keys::action_of(key).map_or(Outcome::Nothing, |action| screen.act(action))
            }
            Event::Terminal(TerminalEvent::Resize(..)) => Outcome::Draw,
            Event::Terminal(_) => Outcome::Nothing,
            Event::Signal(SIGCONT) => Outcome::Redraw,
            Event::Signal(SIGTSTP) => Outcome::Suspend,
            Event::Signal(number) => {
                drop(tty);
                // Whoever waits for us sees that the signal ended us.
                let _ = low_level::emulate_default_handler(number);
                return Ok(());
            }
            Event::Gone(error) => return Err(error).context("the terminal is gone"),
        };
        match outcome {
            Outcome::Nothing => continue,
            Outcome::Quit => return Ok(()),
            Outcome::Suspend => tty.lend(|| {
                let _ = low_level::emulate_default_handler(SIGTSTP);
            })?,
            Outcome::Redraw => tty.retake()?,
            Outcome::Pace => pace(if screen.fast { FAST.min(options.interval) } else { options.interval }),
            Outcome::Draw => {}
        }
        tty.draw(|frame| screen.draw(frame))?;
    }
    Ok(())
}

fn read_terminal(events: &Sender<Event>) {
    loop {
        let event = match event::read() {
            Ok(event) => Event::Terminal(event),
            Err(error) => Event::Gone(error),
        };
        let gone = matches!(event, Event::Gone(_));
        if events.send(event).is_err() || gone {
            return;
        }
    }
}
