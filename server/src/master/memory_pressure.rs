//! The memory of all workers together: `cheaper-rss-limit-soft` and `cheaper-rss-limit-hard`.

use super::state::Master;
use crate::procfs;

/// What the workers' memory allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressure {
    /// Any number of workers.
    None,
    /// No more workers than there are.
    NoMore,
    /// One worker less.
    Fewer,
}

impl Master {
    /// Adds up the workers' resident memory and compares it with the limits, if there are any. Workers that leave do not
    /// count: their memory is about to be free.
    pub(super) fn memory_pressure(&self) -> Pressure {
        let cheaper = &self.config.cheaper;
        if cheaper.rss_limit_soft == 0 && cheaper.rss_limit_hard == 0 {
            return Pressure::None;
        }
        let staying = self.children.workers().filter(|child| !child.is_leaving());
        let resident = staying.filter_map(|child| procfs::memory_of(child.pid?).ok()).map(|size| size.resident).sum();
        judge(resident, cheaper.rss_limit_soft, cheaper.rss_limit_hard)
    }
}

/// Both limits are bytes, and 0 is none.
fn judge(resident: u64, soft: u64, hard: u64) -> Pressure {
    let reaches = |limit: u64| limit > 0 && resident >= limit;
    match (reaches(hard), reaches(soft)) {
        (true, _) => Pressure::Fewer,
        (false, true) => Pressure::NoMore,
        (false, false) => Pressure::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hard_limit_takes_workers_and_the_soft_one_keeps_their_number() {
        let at = |resident| judge(resident, 100, 200);
        assert_eq!(
            [at(99), at(100), at(199), at(200)],
            [Pressure::None, Pressure::NoMore, Pressure::NoMore, Pressure::Fewer]
        );
        assert_eq!(judge(1 << 40, 0, 0), Pressure::None);
    }
}
