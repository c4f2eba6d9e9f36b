//! What is to be done at a time although nothing happens.
//!
//! Each timer is set for one moment at most, and is gone when it has fired: its user sets it again if needed. So
//! nothing stays due, and the loop sleeps when nothing is to be done.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::post::Post;
use crate::ids::ChildId;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Timer {
    /// A process is to be started for this post.
    Start(Post),
    /// This child is killed, for it has not left by itself.
    Kill(ChildId),
    /// The application wants this child ended (`uwsgi.set_user_harakiri`).
    UserHarakiri(ChildId),
    /// This mule has handled a signal for too long (`mule-harakiri`).
    MuleHarakiri(ChildId),
    /// A request could have run longer than `harakiri`.
    Requests,
    /// The workers' memory and age are looked at.
    Sizes,
    /// The load is looked at, for `cheaper` and `idle`.
    Load,
    /// A job could have run longer than `spooler-harakiri`.
    Jobs,
    /// Backlogs that raise an alarm when they are full.
    Backlogs,
    /// The threads in requests are sampled.
    Profile,
    /// Processes that may show no sign of life are looked at.
    Silence,
    /// A request in progress could be slow by now (`slow-request`).
    SlowRequests,
    /// The application's timers and crons are looked at.
    Timetable,
    /// Programs beside the server are looked at.
    Daemons,
    /// Commands of `cron` are looked at.
    Crons,
    /// The supervisor wants a keep-alive.
    WatchdogSign,
    /// The supervisor is sent the status line.
    Status,
    /// `drain-delay` is over.
    Drained,
    /// What has not stopped is killed.
    StopLate,
    /// How full the server is, for `ready-saturation`.
    Saturation,
    /// Processes that the kernel has killed for want of memory are counted.
    OutOfMemory,
    /// What only the start needed, or something rare, is given back to the system.
    GiveBack,
    /// A canary was not kept in time.
    Canary,
    /// A worker has not obeyed in time.
    WorkerOrders,
    /// A fork server that a worker has forked is not ready in time.
    Refork,
}

/// All timers that are set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// When each is due.
    set: HashMap<Timer, Instant>,
    /// The same in order. A set rather than a heap: a timer that is taken back leaves nothing behind to be recognised.
    order: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Sets a timer, in the place of when it was set for before.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(timer);
        self.set.insert(timer, at);
        self.order.insert((at, timer));
    }

    /// Sets a timer, unless it is due sooner already.
    pub(super) fn set_earlier(&mut self, timer: Timer, at: Instant) {
        if self.at(timer).is_none_or(|earlier| earlier > at) {
            self.set(timer, at);
        }
    }

    /// Takes a timer back.
    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.set.remove(&timer) {
            self.order.remove(&(at, timer));
        }
    }

    /// When a timer is due, if it is set.
    pub(super) fn at(&self, timer: Timer) -> Option<Instant> {
        self.set.get(&timer).copied()
    }

    /// When the next timer is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the timers that are due by `now`, in order. What is set while they are seen to is for the next time.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Timer> {
        let mut due = Vec::new();
        while let Some((at, timer)) = self.order.pop_first() {
            if at > now {
                self.order.insert((at, timer));
                break;
            }
            self.set.remove(&timer);
            due.push(timer);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_timer_fires_once_at_the_last_moment_that_it_was_set_for() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        timers.set(Timer::Load, after(1));
        timers.set(Timer::Sizes, after(2));
        timers.set(Timer::Load, after(3));
        timers.set_earlier(Timer::Load, after(4));
        timers.cancel(Timer::Jobs);
        assert_eq!(timers.next(), Some(after(2)));
        assert_eq!(timers.take_due(after(2)), [Timer::Sizes]);
        assert_eq!(timers.take_due(after(9)), [Timer::Load]);
        assert_eq!((timers.next(), timers.take_due(after(99))), (None, vec![]));
    }

    proptest! {
        /// Compared with a plain list of what is set.
        #[test]
        fn what_is_set_fires_in_order_and_what_is_not_does_not(
            steps in proptest::collection::vec((0..4u8, 0..4usize, 0..8u64), 0..60),
        ) {
            let kinds = [Timer::Requests, Timer::Sizes, Timer::Load, Timer::Jobs];
            let (mut timers, mut model, start) = (Timers::default(), Vec::<(Instant, Timer)>::new(), Instant::now());
            for (what, kind, seconds) in steps {
                let (timer, at) = (kinds[kind], start + Duration::from_secs(seconds));
                let known = model.iter().position(|(_, known)| *known == timer);
                match what {
                    0 => {
                        timers.set(timer, at);
                        known.map(|known| model.remove(known));
                        model.push((at, timer));
                    }
                    1 => {
                        timers.set_earlier(timer, at);
                        if known.is_none_or(|known| model[known].0 > at) {
                            known.map(|known| model.remove(known));
                            model.push((at, timer));
                        }
                    }
                    2 => {
                        timers.cancel(timer);
                        known.map(|known| model.remove(known));
                    }
                    _ => {
                        let mut due: Vec<_> = model.extract_if(.., |(moment, _)| *moment <= at).collect();
                        due.sort_unstable();
                        let due: Vec<_> = due.into_iter().map(|(_, timer)| timer).collect();
                        prop_assert_eq!(timers.take_due(at), due);
                    }
                }
                prop_assert_eq!(timers.next(), model.iter().map(|(at, _)| *at).min());
                prop_assert_eq!(timers.at(timer), model.iter().find(|(_, known)| *known == timer).map(|(at, _)| *at));
            }
        }
    }
}
