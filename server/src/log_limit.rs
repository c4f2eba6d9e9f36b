//! Limits the log lines that clients, and other users of the machine, can cause: of each kind a process writes [`BURST`] in
//! [`WINDOW`], and then one line with the number of the others.
//!
//! Only for such lines: `if log_limit::allows(kind) { warn!(…) }`. A loop that wakes at least once a second while a report
//! is [due](next_report) calls [`report`]. A process that leaves calls [`finish`], so that no count is lost.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;

use crate::clock::MonotonicNanos;

/// Lines of one kind in a [`WINDOW`].
const BURST: u64 = 20;
/// How long a window is, from its first line on.
const WINDOW: Duration = Duration::from_secs(10);
/// Nothing is due.
const NEVER: u64 = u64::MAX;

/// What a line says. Lines of one kind share a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// A request was refused with this status.
    Refused(u16),
    /// What came on a uwsgi socket was no request, and its connection was closed without an answer.
    NoPacket,
    /// Neither memory nor a temporary file had space for a request body: its client got 503.
    BodyNotKept,
    /// A temporary file had no space for a response: its worker waits for the client.
    ResponseNotKept,
    /// A client took its response more slowly than `response-min-rate`: its connection was closed.
    SlowResponse,
    /// A rule for requests or responses cannot be followed.
    Rule,
    /// A process that is not one of this server's workers connected to the address of the links.
    NoWorker,
    /// A request was slow (`slow-request`).
    SlowRequest,
    /// Slow requests were lost.
    SlowRequestsLost,
    /// A client's TLS failed (`ssl-verbose`).
    Tls,
}

impl fmt::Display for LineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "requests refused with {status}"),
            Self::NoPacket => f.write_str("uwsgi packets refused"),
            Self::BodyNotKept => f.write_str("request bodies that cannot be kept"),
            Self::ResponseNotKept => f.write_str("responses that cannot be kept for slow clients"),
            Self::SlowResponse => f.write_str("connections closed (response-min-rate)"),
            Self::Rule => f.write_str("rules that cannot be followed"),
            Self::NoWorker => f.write_str("processes refused as workers"),
            Self::SlowRequest => f.write_str("slow requests (slow-request), which the stats may still have"),
            Self::SlowRequestsLost => f.write_str("lost slow requests"),
            Self::Tls => f.write_str("failures of TLS"),
        }
    }
}

/// The lines of one kind since the first of them, for [`WINDOW`].
#[derive(Clone, Copy, Debug)]
struct Window {
    kind: LineKind,
    began: MonotonicNanos,
    /// Those that were written, and those that were not.
    lines: u64,
}

/// The windows of all kinds; there are as many as there are kinds.
#[derive(Debug, Default)]
struct Windows(Vec<Window>);

impl Windows {
    const fn new() -> Self {
        Self(Vec::new())
    }

    /// Counts a line. Returns whether it may be written.
    fn allows(&mut self, kind: LineKind, now: MonotonicNanos) -> bool {
        if let Some(window) = self.0.iter_mut().find(|window| window.kind == kind) {
            window.lines += 1;
            return window.lines <= BURST;
        }
        self.0.push(Window { kind, began: now, lines: 1 });
        true
    }

    /// Removes the windows that are over, and returns those with lines that were not written.
    fn take(&mut self, is_over: impl Fn(&Window) -> bool) -> Vec<Window> {
        self.0.extract_if(.., |window| is_over(window)).filter(|window| window.rest() > 0).collect()
    }

    /// When the next window with lines that were not written is over.
    fn next_due(&self) -> Option<MonotonicNanos> {
        self.0.iter().filter(|window| window.rest() > 0).map(Window::end).min()
    }
}

impl Window {
    /// Lines that were not written.
    fn rest(&self) -> u64 {
        self.lines.saturating_sub(BURST)
    }

    fn end(&self) -> MonotonicNanos {
        self.began.after_nanos(WINDOW.as_nanos() as u64)
    }
}

static WINDOWS: Mutex<Windows> = Mutex::new(Windows::new());
/// [`Windows::next_due`], to be read without the lock.
static DUE: AtomicU64 = AtomicU64::new(NEVER);

fn windows() -> MutexGuard<'static, Windows> {
    WINDOWS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a line of this kind. Returns whether it may be written.
#[cold]
pub(crate) fn allows(kind: LineKind) -> bool {
    let now = MonotonicNanos::now();
    report_over(|window| window.end() <= now);
    let mut windows = windows();
    let allowed = windows.allows(kind, now);
    set_due(&windows);
    allowed
}

/// When [`report`] must be called next; `None` while every line was written.
pub(crate) fn next_report() -> Option<MonotonicNanos> {
    let due = DUE.load(Relaxed);
    (due != NEVER).then(|| MonotonicNanos::from_nanos(due))
}

/// Logs the number of lines that were not written, for each window that is over.
#[inline]
pub(crate) fn report(now: MonotonicNanos) {
    if now.as_nanos() >= DUE.load(Relaxed) {
        report_over(|window| window.end() <= now);
    }
}

/// Logs the number of lines that were not written, for all windows: the process leaves.
pub(crate) fn finish() {
    report_over(|_| true);
}

#[cold]
fn report_over(is_over: impl Fn(&Window) -> bool) {
    let now = MonotonicNanos::now();
    let over = {
        let mut windows = windows();
        let over = windows.take(is_over);
        set_due(&windows);
        over
    };
    for window in over {
        let seconds = now.since(window.began).as_secs().max(1);
        warn!("{}: … and {} more in {seconds} s", window.kind, grouped(window.rest()));
    }
}

fn set_due(windows: &Windows) {
    DUE.store(windows.next_due().map_or(NEVER, MonotonicNanos::as_nanos), Relaxed);
}

/// A number with a comma between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> MonotonicNanos {
        MonotonicNanos::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn kinds_have_windows_of_their_own() {
        let mut windows = Windows::new();
        let [bad, large] = [400, 413].map(LineKind::Refused);
        let written = (0..100).filter(|_| windows.allows(bad, at(1))).count();
        assert_eq!(written as u64, BURST);
        assert!(windows.allows(large, at(3)), "another kind is not kept back");
        assert_eq!(windows.next_due(), Some(at(11)));
        assert!(windows.take(|window| window.end() <= at(10)).is_empty());
        let over = windows.take(|window| window.end() <= at(11));
        assert_eq!(over.iter().map(|window| (window.kind, window.rest())).collect::<Vec<_>>(), [(bad, 100 - BURST)]);
        assert_eq!(windows.next_due(), None, "all lines of the other kind were written");
        assert!(windows.allows(bad, at(12)));
    }

    #[test]
    fn numbers_are_read_in_thousands() {
        assert_eq!([1, 999, 1_000, 4_812, 1_234_567].map(grouped), ["1", "999", "1,000", "4,812", "1,234,567"]);
    }

    proptest! {
        #[test]
        fn no_line_is_lost_and_few_are_written(steps in prop::collection::vec((0..3u16, 0..4u64), 0..400)) {
            let mut windows = Windows::new();
            let (mut now, mut written, mut told) = (0, 0, 0);
            for (kind, seconds) in &steps {
                now += seconds;
                told += windows.take(|window| window.end() <= at(now)).iter().map(Window::rest).sum::<u64>();
                written += u64::from(windows.allows(LineKind::Refused(*kind), at(now)));
            }
            told += windows.take(|_| true).iter().map(Window::rest).sum::<u64>();
            prop_assert_eq!(written + told, steps.len() as u64);
            prop_assert!(written <= 3 * BURST * (now / WINDOW.as_secs() + 1));
        }
    }
}
