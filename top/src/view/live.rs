//! The loop of the live screen: samples, keys and signals come in on one channel; a frame goes out when one of them
//! changed something, and never otherwise.

use std::io;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use anyhow::Context as _;
use crossterm::event::{self, Event as TerminalEvent, KeyEventKind};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::screen::{Outcome, Pace, Screen};
use super::terminal::Tty;
use crate::source::Sample;

/// Events that may wait, and that are taken in between two frames. Bounded: a recording that is played faster than it can
/// be drawn waits for the screen, and does not go into memory: a large pool's sample is more than a hundred kilobytes.
const BATCH: usize = 8;

/// What reading threads put into the channel.
#[derive(Debug)]
pub(crate) enum Feed {
    /// A sample.
    Sample(Sample),
    /// There will be no more: a recording is over.
    End,
}

/// Takes what a reading thread has; `false` when nobody wants any more.
pub(crate) type Deliver = Box<dyn Fn(Feed) -> bool + Send>;

enum Event {
    Feed(Feed),
    Terminal(TerminalEvent),
    Signal(i32),
    /// The terminal gives no more events: it is gone.
    Gone(io::Error),
}

/// Shows `screen` until the user leaves; `mouse` asks the terminal for clicks. `start` begins the reading: it is given
/// what makes places to deliver to, and gives back what changes the pace.
///
/// # Errors
/// When the terminal cannot be used.
pub(crate) fn run<P: Fn(Pace)>(
    mut screen: Screen,
    mouse: bool,
    start: impl FnOnce(&dyn Fn() -> Deliver) -> anyhow::Result<P>,
) -> anyhow::Result<()> {
    let (sender, events) = mpsc::sync_channel(BATCH);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT]).context("cannot watch for signals")?;
    let signal = sender.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for number in &mut signals {
            if signal.send(Event::Signal(number)).is_err() {
                return;
            }
        }
    })?;
    let mut tty = Tty::take(mouse).context("cannot use the terminal")?;
    tty.draw(|buf| screen.draw(buf))?;
    let keyboard = sender.clone();
    thread::Builder::new().name("keyboard".into()).spawn(move || read_terminal(&keyboard))?;
    let pace = start(&|| {
        let sender = sender.clone();
        Box::new(move |feed| sender.send(Event::Feed(feed)).is_ok())
    })?;
    while let Ok(first) = events.recv() {
        // What has come in the meantime is taken in together, and drawn once.
        let mut changed = false;
        for event in std::iter::once(first).chain(events.try_iter().take(BATCH)) {
            let outcome = match event {
                Event::Feed(Feed::Sample(sample)) => {
                    if screen.ingest(sample) {
                        Outcome::Draw
                    } else {
                        Outcome::Nothing
                    }
                }
                Event::Feed(Feed::End) => {
                    screen.end();
                    Outcome::Draw
                }
                Event::Terminal(TerminalEvent::Key(key)) if key.kind != KeyEventKind::Release => screen.press(key),
                Event::Terminal(TerminalEvent::Mouse(event)) => screen.mouse(event),
                Event::Terminal(TerminalEvent::Resize(width, height)) => {
                    tty.resize(width, height)?;
                    Outcome::Draw
                }
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
            changed |= outcome != Outcome::Nothing;
            match outcome {
                Outcome::Nothing | Outcome::Draw => {}
                Outcome::Quit => return Ok(()),
                Outcome::Suspend => tty.lend(|| {
                    let _ = low_level::emulate_default_handler(SIGTSTP);
                })?,
                Outcome::Redraw => tty.retake()?,
                Outcome::Pace(change) => pace(change),
            }
        }
        if changed {
            tty.draw(|buf| screen.draw(buf))?;
        }
    }
    Ok(())
}

fn read_terminal(events: &SyncSender<Event>) {
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
