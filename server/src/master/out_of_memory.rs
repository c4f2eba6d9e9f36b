//! Processes that the kernel kills for want of memory (the OOM killer): it says so only by a count in the control group.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tracing::{error, warn};

use super::process::End;
use super::state::Master;
use super::timers::Timer;
use crate::ids::GenerationNumber;
use crate::procfs;

/// How often the count is looked at, so that a process that is not reaped here is not taken for a worker that is killed later.
/// What is new at a look is told at the next.
const INTERVAL: Duration = Duration::from_secs(10);

/// What is known of the count.
#[derive(Debug, Default)]
pub(super) struct OomWatch {
    /// Kills that were logged, or were there before the server.
    seen: Option<u64>,
    /// The count at the last regular look.
    looked: u64,
}

impl OomWatch {
    /// Takes up to `most` of the kills that are new; `None` where the kernel does not say.
    fn take(&mut self, count: Option<u64>, most: u64) -> u64 {
        let Some(count) = count else { return 0 };
        let seen = self.seen.get_or_insert(count);
        let new = count.saturating_sub(*seen).min(most);
        // Where the process was moved to another group, that one's count may be lower.
        *seen = (*seen + new).min(count);
        new
    }

    /// Takes the kills that are nobody's of the server's: nobody has taken them since the last look. A process that is killed
    /// may take a while to end.
    fn take_of_nobody(&mut self, count: u64) -> u64 {
        let seen = self.seen.get_or_insert(count);
        let of_nobody = self.looked.min(count).saturating_sub(*seen);
        *seen = (*seen + of_nobody).min(count);
        self.looked = count;
        of_nobody
    }
}

impl Master {
    /// Begins to look, where there is something to see.
    pub(super) fn watch_out_of_memory(&mut self, now: Instant) {
        if let Some(count) = self.control_group.oom_kills() {
            let of_nobody = self.oom.take_of_nobody(count);
            if of_nobody > 0 {
                let limit = self.memory_limit();
                warn!(
                    "the kernel has killed {of_nobody} process(es) of the container for want of memory ({limit}), none of them a \
                     worker: programs that the application or an operator has started"
                );
            }
            self.timers.set(Timer::OutOfMemory, now + INTERVAL);
        }
    }

    /// A process of ours was ended unasked: says so when it was the kernel, for want of memory.
    pub(super) fn explain_kill(&mut self, what: &str, end: End) {
        if end == End::Killed(Signal::SIGKILL as i32) && self.oom.take(self.control_group.oom_kills(), 1) > 0 {
            let limit = self.memory_limit();
            error!(
                "{what} was killed by the kernel for want of memory ({limit}): give the container more, or run fewer workers; \
                 reload-on-rss replaces workers that grow before it comes to this"
            );
        }
    }

    /// Warns of a limit in percent that a worker of this generation is above from the first.
    pub(super) fn doubt_share(&self, generation: GenerationNumber) {
        let Some(percent) = self.config.container.reload_on_rss else { return };
        let size = self.children.fork_server(generation).and_then(|child| procfs::memory_of(child.pid?).ok());
        let (Some(size), Some(share)) = (size, self.config.reload_on_rss) else { return };
        if size.resident >= share {
            warn!(
                "reload-on-rss = {percent} is {} MB for each worker, and the application has {} MB as soon as it is loaded: every \
                 worker is replaced again and again; run fewer workers, or give the container more memory",
                share >> 20,
                size.resident >> 20
            );
        }
    }

    fn memory_limit(&self) -> String {
        match self.control_group.memory_limit() {
            Some(limit) => format!("its control group may use {} MB", limit >> 20),
            None => "the machine has no more; its control group has no limit".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_explains_one_death_and_those_before_the_server_none() {
        let mut watch = OomWatch::default();
        assert_eq!(watch.take(Some(7), 1), 0, "they were there before");
        assert_eq!(watch.take(Some(7), 1), 0);
        assert_eq!([watch.take(Some(9), 1), watch.take(Some(9), 1), watch.take(Some(9), 1)], [1, 1, 0]);
        assert_eq!((watch.take(Some(12), 3), watch.take(Some(12), 1)), (3, 0));
        assert_eq!((watch.take(None, 1), watch.take(Some(2), 1), watch.take(Some(3), 1)), (0, 0, 1));
    }

    #[test]
    fn a_kill_is_nobodys_only_when_no_process_of_the_server_has_ended_by_it_until_the_next_look() {
        let mut watch = OomWatch::default();
        assert_eq!(watch.take_of_nobody(7), 0, "they were there before");
        assert_eq!(watch.take_of_nobody(8), 0, "a worker that is about to end may be it");
        assert_eq!((watch.take(Some(8), 1), watch.take_of_nobody(8)), (1, 0), "it was");
        assert_eq!([watch.take_of_nobody(10), watch.take_of_nobody(10), watch.take_of_nobody(10)], [0, 2, 0]);
        assert_eq!((watch.take_of_nobody(1), watch.take_of_nobody(2), watch.take_of_nobody(2)), (0, 0, 1));
    }
}
