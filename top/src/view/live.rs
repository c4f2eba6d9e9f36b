//! The live screen: samples, keys and signals come in from threads of their own; a frame goes out when one of them changed
//! something, and never otherwise.
//!
//! The thread that read a sample also draws it. Handed to another thread, it would wake another processor and be fetched
//! from the first one's cache: a fifth of what a refresh costs. The screen and its terminal are behind one lock, which is
//! taken for as long as a frame takes, never while a server is waited for.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Context as _;
use crossterm::event::{self, Event as TerminalEvent, KeyEvent, KeyEventKind, MouseEvent};
use ratatui::buffer::Buffer;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::actions::Outcome;
use super::fleet::FleetScreen;
use super::playback::Pace;
use super::screen::Screen;
use super::terminal::Tty;
use crate::source::fleet::FleetEvent;
use crate::source::{Clock, ControlReply, Poll};

/// Keys and signals that may wait, and that are taken in between two frames.
const BATCH: usize = 8;

/// What a polling thread has for the screen.
#[derive(Debug)]
pub(crate) enum Feed {
    /// A sample.
    Poll(Poll),
    /// What a server says on its control socket.
    ControlReply(ControlReply),
    /// What the sources of a fleet tell.
    Fleet(Vec<FleetEvent>),
    /// What comes of the server of a fleet that is looked at, by the ticket that it was opened with.
    Drilled(u64, Box<Feed>),
    /// Something that the user has to know, in a line.
    Notice(String),
    /// There will be no more: a recording is over.
    End,
}

/// Takes what a polling thread has, and shows it; `false` when nobody wants any more.
pub(crate) type Deliver = Box<dyn Fn(Feed) -> bool + Send>;

enum Event {
    Terminal(TerminalEvent),
    Signal(i32),
    /// The terminal takes or gives no more: it is gone.
    Gone(io::Error),
}

/// What is shown.
#[derive(Debug)]
pub(crate) enum Face {
    /// Servers, each with all that it tells.
    Pools(Box<Screen>),
    /// A fleet.
    Fleet(Box<FleetScreen>),
}

impl Face {
    fn draw(&mut self, buf: &mut Buffer) {
        match self {
            Self::Pools(screen) => screen.draw(buf),
            Self::Fleet(screen) => screen.draw(buf),
        }
    }

    fn press(&mut self, key: KeyEvent) -> Outcome {
        match self {
            Self::Pools(screen) => screen.press(key),
            Self::Fleet(screen) => screen.press(key),
        }
    }

    fn mouse(&mut self, event: MouseEvent) -> Outcome {
        match self {
            Self::Pools(screen) => screen.mouse(event),
            Self::Fleet(screen) => screen.mouse(event),
        }
    }

    /// Takes in what a polling thread has; returns whether there is something new to draw.
    fn take(&mut self, feed: Feed) -> bool {
        match (self, feed) {
            (Self::Pools(screen), Feed::Poll(poll)) => screen.ingest(poll),
            (Self::Pools(screen), Feed::ControlReply(told)) => screen.told(told),
            (Self::Pools(screen), Feed::Notice(notice)) => {
                screen.notice(notice);
                true
            }
            (Self::Pools(screen), Feed::End) => {
                screen.end();
                true
            }
            (Self::Fleet(screen), Feed::Fleet(events)) => screen.take(events, Clock::local()),
            (Self::Fleet(screen), Feed::Drilled(ticket, feed)) => screen.take_drilled(ticket, *feed),
            _ => false,
        }
    }
}

/// A screen and the terminal that it is shown on.
#[derive(Debug)]
struct Live {
    screen: Face,
    tty: Tty,
    /// There is more to show than is shown.
    stale: bool,
}

impl Live {
    fn draw(&mut self) -> io::Result<()> {
        self.stale = false;
        self.tty.draw(|buf| self.screen.draw(buf))
    }
}

/// What all threads share; there is nothing in it once the user has left.
#[derive(Debug)]
struct Shared {
    live: Mutex<Option<Live>>,
    /// Threads that have something to show and are not done with it.
    showing: AtomicUsize,
}

impl Shared {
    /// Shows what a polling thread has; `false` when the user has left, or after a panic, which has given the terminal back.
    fn take(&self, feed: Feed) -> io::Result<bool> {
        self.showing.fetch_add(1, Ordering::SeqCst);
        let mut live = self.live.lock();
        // Of several servers that answer at once, the last one's thread draws for all.
        let last = self.showing.fetch_sub(1, Ordering::SeqCst) == 1;
        let Ok(Some(live)) = live.as_deref_mut().map(Option::as_mut) else { return Ok(false) };
        live.stale |= live.screen.take(feed);
        if live.stale && last {
            live.draw()?;
        }
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the terminal back when the user leaves, whatever the polling threads are at.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.lock().take();
    }
}

/// Shows `screen` until the user leaves; `mouse` asks the terminal for clicks. `start` begins the polling: it is given
/// what makes places to deliver to, and gives back what changes the pace.
///
/// # Errors
/// When the terminal cannot be used.
pub(crate) fn run<P: Fn(Pace)>(
    screen: Face,
    mouse: bool,
    start: impl FnOnce(&dyn Fn() -> Deliver) -> anyhow::Result<P>,
) -> anyhow::Result<()> {
    let (sender, events) = mpsc::sync_channel(BATCH);
    // Before the terminal is measured, so that no change of its size is missed.
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT, SIGWINCH]).context("cannot watch for signals")?;
    let signal = sender.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for number in &mut signals {
            if signal.send(Event::Signal(number)).is_err() {
                return;
            }
        }
    })?;
    let tty = Tty::take(mouse).context("cannot use the terminal")?;
    let mut live = Live { screen, tty, stale: false };
    live.draw()?;
    let shared = Arc::new(Shared { live: Mutex::new(Some(live)), showing: AtomicUsize::new(0) });
    let closing = Closing(&shared);
    let keyboard = sender.clone();
    thread::Builder::new().name("keyboard".into()).spawn(move || read_terminal(&keyboard))?;
    let pace = start(&|| {
        let (shared, sender) = (Arc::clone(&shared), sender.clone());
        Box::new(move |feed| {
            shared.take(feed).unwrap_or_else(|error| {
                // Nobody to tell: the user has left meanwhile.
                let _ = sender.send(Event::Gone(error));
                false
            })
        })
    })?;
    while let Ok(first) = events.recv() {
        let mut shown = shared.lock();
        let Some(live) = shown.as_mut() else { break };
        // What has come in the meantime is taken in together, and drawn once.
        for event in std::iter::once(first).chain(events.try_iter().take(BATCH)) {
            let outcome = match event {
                Event::Terminal(TerminalEvent::Key(key)) if key.kind != KeyEventKind::Release => live.screen.press(key),
                Event::Terminal(TerminalEvent::Mouse(event)) => live.screen.mouse(event),
                // Another size is a signal, too.
                Event::Terminal(_) => Outcome::Nothing,
                Event::Signal(SIGWINCH) => {
                    live.tty.fit()?;
                    Outcome::Draw
                }
                Event::Signal(SIGCONT) => Outcome::Redraw,
                Event::Signal(SIGTSTP) => Outcome::Suspend,
                Event::Signal(number) => {
                    drop(shown);
                    drop(closing);
                    // Whoever waits for us sees that the signal ended us.
                    let _ = low_level::emulate_default_handler(number);
                    return Ok(());
                }
                Event::Gone(error) => return Err(error).context("the terminal is gone"),
            };
            live.stale |= outcome != Outcome::Nothing;
            match outcome {
                Outcome::Nothing | Outcome::Draw => {}
                Outcome::Quit => return Ok(()),
                Outcome::Suspend => live.tty.lend(|| {
                    let _ = low_level::emulate_default_handler(SIGTSTP);
                })?,
                Outcome::Redraw => live.tty.retake()?,
                Outcome::Pace(change) => pace(change),
            }
        }
        if live.stale {
            live.draw()?;
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
