//! The last exception of a thread's application.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;

use super::text::SharedText;
use crate::clock::UnixMicros;

/// Space for the frames of a traceback, a line each, in words of eight bytes.
const TRACEBACK_WORDS: usize = 128;

/// The last exception that a thread's application raised.
#[repr(C)]
pub struct ExceptionCell {
    sequence: AtomicU64,
    when: AtomicU64,
    kind: SharedText<16>,
    message: SharedText<48>,
    traceback: SharedText<TRACEBACK_WORDS>,
    request: SharedText<48>,
}

/// What is shown of an exception.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExceptionReport {
    /// When it was raised.
    pub when: UnixMicros,
    /// Class name.
    pub kind: String,
    /// Its text.
    pub message: String,
    /// File, line and function of the innermost frames, the innermost first.
    pub traceback: Vec<String>,
    /// Method and URI of the request.
    pub request: String,
}

impl ExceptionCell {
    /// Replaces the exception.
    pub fn store(&self, report: &ExceptionReport) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Relaxed);
        fence(Release);
        self.when.store(report.when.as_micros(), Relaxed);
        self.kind.store(report.kind.as_bytes());
        self.message.store(report.message.as_bytes());
        self.traceback.store(frames_that_fit(&report.traceback).as_bytes());
        self.request.store(report.request.as_bytes());
        self.sequence.store(sequence.wrapping_add(2), Release);
    }

    /// The exception; `None` when nothing was ever raised, or when it is just being written.
    pub fn load(&self) -> Option<ExceptionReport> {
        let before = self.sequence.load(Acquire);
        if before == 0 {
            return None;
        }
        let report = ExceptionReport {
            when: UnixMicros::from_micros(self.when.load(Relaxed)),
            kind: self.kind.load_text(),
            message: self.message.load_text(),
            traceback: self.traceback.load_text().lines().map(str::to_owned).collect(),
            request: self.request.load_text(),
        };
        fence(Acquire);
        (before.is_multiple_of(2) && before == self.sequence.load(Relaxed)).then_some(report)
    }
}

/// The frames as lines, as many whole ones as there is space for; the innermost in any case, cut if it must be.
fn frames_that_fit(frames: &[String]) -> String {
    let mut lines = String::new();
    for frame in frames {
        // A name may hold anything, but a line is a frame.
        let frame = frame.replace(['\n', '\r'], " ");
        if !lines.is_empty() && lines.len() + 1 + frame.len() > TRACEBACK_WORDS * 8 {
            break;
        }
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(&frame);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeroed() -> Box<ExceptionCell> {
        Box::new(ExceptionCell {
            sequence: AtomicU64::new(0),
            when: AtomicU64::new(0),
            kind: SharedText::empty(),
            message: SharedText::empty(),
            traceback: SharedText::empty(),
            request: SharedText::empty(),
        })
    }

    #[test]
    fn the_last_exception_replaces_the_one_before() {
        let cell = zeroed();
        assert_eq!(cell.load(), None);
        for kind in ["ValueError", "KeyError"] {
            cell.store(&ExceptionReport { kind: kind.into(), ..ExceptionReport::default() });
        }
        assert_eq!(cell.load().unwrap().kind, "KeyError");
    }

    #[test]
    fn a_traceback_keeps_the_innermost_frames_that_fit_whole() {
        let kept = |traceback: Vec<String>| {
            let cell = zeroed();
            cell.store(&ExceptionReport { traceback, ..ExceptionReport::default() });
            cell.load().unwrap().traceback
        };
        let frame = |number: usize, length: usize| format!("{number}{}", "x".repeat(length - 1));
        assert_eq!(kept(vec!["a.py:1 in f".into(), "b.py:2 in\ng".into()]), ["a.py:1 in f", "b.py:2 in g"]);
        assert_eq!(kept(vec![]), Vec::<String>::new());
        let three: Vec<_> = (0..3).map(|number| frame(number, 400)).collect();
        assert_eq!(kept(three.clone()), three[..2]);
        assert_eq!(kept(vec![frame(0, 5_000), frame(1, 9)]), [frame(0, TRACEBACK_WORDS * 8)]);
    }
}
