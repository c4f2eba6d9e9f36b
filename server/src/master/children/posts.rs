//! For each post, whether it is to have a process and when it is to get one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::post::Post;
use super::super::timers::{Timer, Timers};

/// The first delay after an early death; it doubles with each in a row.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Whether a process is to be started for a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Vacancy {
    /// It has one, or is to have none.
    None,
    /// When [`Timer::Start`] fires.
    Later,
    /// As soon as that can be done.
    Now,
}

/// What is known of a post beyond its processes.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct PostState {
    /// It is meant to have a process.
    pub(in super::super) is_wanted: bool,
    /// Whether one is to be started.
    pub(in super::super) vacancy: Vacancy,
    /// How often one was started.
    pub(in super::super) starts: u64,
    /// Early deaths in a row.
    early_deaths: u32,
}

/// How long to wait before a process is started again that has died early so many times in a row.
pub(super) fn delay_after(early_deaths: u32) -> Duration {
    match early_deaths {
        0 => Duration::ZERO,
        deaths => FIRST_DELAY.saturating_mul(1 << (deaths - 1).min(5)).min(LONGEST_DELAY),
    }
}

/// Every post of the server.
#[derive(Debug)]
pub(super) struct Posts {
    all: BTreeMap<Post, PostState>,
    /// Those that are to be filled now: the loop asks after each event.
    due: BTreeSet<Post>,
}

/// Of a post that the server does not have.
const NOTHING: PostState = PostState { is_wanted: false, vacancy: Vacancy::None, starts: 0, early_deaths: 0 };

impl Posts {
    pub(super) fn new(posts: impl IntoIterator<Item = Post>) -> Self {
        let all = posts.into_iter().map(|post| (post, PostState { is_wanted: true, ..NOTHING })).collect();
        Self { all, due: BTreeSet::new() }
    }

    pub(super) fn get(&self, post: Post) -> &PostState {
        self.all.get(&post).unwrap_or(&NOTHING)
    }

    pub(super) fn due(&self) -> impl Iterator<Item = Post> {
        self.due.iter().copied()
    }

    pub(super) fn set_wanted(&mut self, post: Post, is_wanted: bool) {
        self.change(post, |state| state.is_wanted = is_wanted);
    }

    pub(super) fn set_due(&mut self, post: Post, timers: &mut Timers) {
        timers.cancel(Timer::Start(post));
        self.change(post, |state| state.vacancy = Vacancy::Now);
    }

    /// Due now, but for a post that is to be filled later.
    pub(super) fn set_due_unless_later(&mut self, post: Post, timers: &mut Timers) {
        if self.get(post).vacancy != Vacancy::Later {
            self.set_due(post, timers);
        }
    }

    /// Due after `delay`, but for a post that is to be filled sooner.
    pub(super) fn set_due_after(&mut self, post: Post, delay: Duration, now: Instant, timers: &mut Timers) {
        if delay.is_zero() {
            return self.set_due(post, timers);
        }
        if self.get(post).vacancy != Vacancy::Now {
            timers.set_earlier(Timer::Start(post), now + delay);
            self.change(post, |state| state.vacancy = Vacancy::Later);
        }
    }

    pub(super) fn set_filled(&mut self, post: Post, timers: &mut Timers) {
        timers.cancel(Timer::Start(post));
        self.change(post, |state| state.vacancy = Vacancy::None);
    }

    pub(super) fn time_has_come(&mut self, post: Post) {
        self.change(post, |state| {
            if state.vacancy == Vacancy::Later {
                state.vacancy = Vacancy::Now;
            }
        });
    }

    pub(super) fn count_start(&mut self, post: Post) {
        self.change(post, |state| state.starts += 1);
    }

    /// A process of the post has ended; returns how many died early in a row.
    pub(super) fn count_end(&mut self, post: Post, is_early: bool) -> u32 {
        let early_deaths = if is_early { self.get(post).early_deaths.saturating_add(1) } else { 0 };
        self.change(post, |state| state.early_deaths = early_deaths);
        early_deaths
    }

    /// A post that the server does not have stays unknown.
    fn change(&mut self, post: Post, change: impl FnOnce(&mut PostState)) {
        let Some(state) = self.all.get_mut(&post) else { return };
        change(state);
        if state.vacancy == Vacancy::Now {
            self.due.insert(post);
        } else {
            self.due.remove(&post);
        }
    }
}
