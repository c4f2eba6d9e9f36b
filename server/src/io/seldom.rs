//! Lines that a flood of clients could repeat: one a second, with a count of the rest.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::clock::MonotonicNanos;

/// Counts what is logged once a second at most.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    /// The second after the last line's, monotonic.
    next: AtomicU64,
    /// What was not logged since.
    left_out: AtomicU64,
}

/// How many were left out, to follow the line; nothing when there were none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut(u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} more since the last such line)"),
        }
    }
}

impl Seldom {
    /// Counts one. `None` when it is not to be logged.
    #[cold]
    pub(crate) fn count(&self) -> Option<LeftOut> {
        let second = MonotonicNanos::now().as_nanos() / 1_000_000_000;
        if self.next.load(Relaxed) > second {
            self.left_out.fetch_add(1, Relaxed);
            return None;
        }
        self.next.store(second + 1, Relaxed);
        Some(LeftOut(self.left_out.swap(0, Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_a_count() {
        let log = Seldom::default();
        assert_eq!(log.count().map(|left| left.to_string()), Some(String::new()));
        log.next.store(u64::MAX, Relaxed);
        assert!((0..5).all(|_| log.count().is_none()));
        log.next.store(0, Relaxed);
        assert_eq!(log.count(), Some(LeftOut(5)));
    }
}
