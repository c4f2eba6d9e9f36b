//! Names of vassals, and moments of their lives.

use std::cmp::Ordering;
use std::time::Instant;

use crate::clock::UnixMicros;

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    /// Unix seconds.
    pub(super) unix: u64,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { at: Instant::now(), unix: UnixMicros::now().as_secs() }
    }
}

/// A vassal: the monitor that has found it, and the name of its file there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct VassalId {
    pub(super) monitor: usize,
    pub(super) name: String,
}

impl Ord for VassalId {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        COMPARED.with(|compared| compared.set(compared.get() + 1));
        (self.monitor, &self.name).cmp(&(other.monitor, &other.name))
    }
}

impl PartialOrd for VassalId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
thread_local! {
    /// How often names were compared: what it costs to find vassals.
    pub(super) static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl std::fmt::Display for VassalId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}
