//! Names of vassals, and moments of their lives.

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

impl std::fmt::Display for VassalId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}
