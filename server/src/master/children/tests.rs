use nix::sys::signal::Signal;
use proptest::prelude::*;

use super::*;
use crate::ids::WorkerId;
use crate::ipc::{Auxiliary, AuxiliaryKind};

const WORKER: Post = Post::Worker(WorkerId::FIRST);
const SPOOLER: Post = Post::Auxiliary(Auxiliary { kind: AuxiliaryKind::Spooler, number: 1 });
const GRACE: Duration = Duration::from_secs(60);
const FOR_RELOAD: Why = Why::For(Reason::Reload);

thread_local! {
    /// Children that were looked at one after another.
    pub(super) static VISITED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Children with their timers and a clock that the test moves.
struct Rig {
    children: Children,
    timers: Timers,
    now: Instant,
    next_pid: i32,
}

impl Rig {
    fn new(posts: impl IntoIterator<Item = Post>, slots: u32) -> Self {
        let posts: Vec<_> = posts.into_iter().collect();
        let (mut children, mut timers) = (Children::new(posts.iter().copied(), slots), Timers::default());
        for post in posts {
            children.fill(post, &mut timers);
        }
        Self { children, timers, now: Instant::now(), next_pid: 100 }
    }

    fn order(&mut self, post: Post, generation: u32) -> Option<ChildId> {
        self.children.begin(post, GenerationNumber::new(generation), self.now, UnixMicros::default(), &mut self.timers)
    }

    /// Ordered, and its process id reported.
    fn start(&mut self, post: Post, generation: u32) -> ChildId {
        let id = self.order(post, generation).expect("there is a slot");
        self.next_pid += 1;
        assert_eq!(self.children.announce(id, Pid::from_raw(self.next_pid)), None);
        id
    }

    /// Started, and it has said that it serves.
    fn serve(&mut self, post: Post, generation: u32) -> ChildId {
        let id = self.start(post, generation);
        self.children.mark_ready(id);
        id
    }

    fn end(&mut self, id: ChildId, end: End) -> Ended {
        self.children.reap(id, end, self.now, &mut self.timers).expect("it is known")
    }

    fn dismiss(&mut self, id: ChildId, why: Why) -> Option<Pid> {
        self.children.dismiss(id, why, GRACE, self.now, &mut self.timers)
    }

    fn replace(&mut self, id: ChildId, reason: Reason) -> bool {
        self.children.replace(id, reason, &mut self.timers)
    }

    /// Moves the clock, and has happen what falls due.
    fn wait(&mut self, time: Duration) {
        self.now += time;
        for timer in self.timers.take_due(self.now) {
            match timer {
                Timer::Start(post) => self.children.is_due(post),
                Timer::Kill(id) => {
                    let _ = self.children.kill_late(id, &mut self.timers);
                }
                other => panic!("{other:?} was never set"),
            }
        }
    }
}

#[test]
fn early_deaths_in_a_row_wait_longer_and_longer_and_a_long_time_of_service_forgives() {
    for post in [WORKER, SPOOLER, Post::ForkServer, Post::HttpRouter] {
        let mut rig = Rig::new([post], 4);
        let mut delays = Vec::new();
        for _ in 0..7 {
            let id = rig.start(post, 1);
            let delay = rig.end(id, End::Killed(11)).next.unwrap();
            delays.push(delay.as_secs());
            assert!(rig.children.due().is_empty());
            rig.wait(delay);
            assert_eq!(rig.children.due(), [post]);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        let id = rig.serve(post, 1);
        rig.wait(EARLY);
        assert_eq!(rig.end(id, End::Killed(11)).next, Some(Duration::ZERO));
        assert_eq!(rig.children.post(post).starts, 8);
    }
}

#[test]
fn one_that_exits_before_it_serves_is_no_less_early_for_its_clean_exit_or_its_long_loading() {
    let mut rig = Rig::new([WORKER], 4);
    let id = rig.start(WORKER, 1);
    assert_eq!(rig.end(id, End::Exited(0)).next, Some(Duration::from_secs(1)));
    rig.wait(Duration::from_secs(1));
    let id = rig.start(WORKER, 1);
    rig.wait(Duration::from_secs(600));
    assert_eq!(rig.end(id, End::Exited(0)).next, Some(Duration::from_secs(2)));
}

#[test]
fn one_that_served_and_leaves_by_itself_is_followed_at_once() {
    for post in [WORKER, SPOOLER] {
        let mut rig = Rig::new([post], 4);
        let id = rig.serve(post, 1);
        let ended = rig.end(id, End::Exited(0));
        assert_eq!((ended.next, ended.cause), (Some(Duration::ZERO), Cause::Crash));
        assert_eq!(rig.children.due(), [post]);
    }
}

#[test]
fn a_worker_to_be_replaced_serves_until_its_successor_does() {
    let mut rig = Rig::new([WORKER], 4);
    let old = rig.serve(WORKER, 1);
    assert!(rig.replace(old, Reason::MaxRequests));
    assert!(!rig.replace(old, Reason::Rss), "one reason is enough");
    assert!(rig.children.get(old).unwrap().is_ready());
    assert_eq!(rig.children.due(), [WORKER]);
    let new = rig.start(WORKER, 1);
    assert!(rig.children.due().is_empty());
    assert_eq!(rig.children.mark_ready(new).replaced, [(old, Reason::MaxRequests)]);
    assert!(rig.dismiss(old, Why::For(Reason::MaxRequests)).is_some());
    let ended = rig.end(old, End::Exited(0));
    assert_eq!((ended.cause, ended.next), (Cause::Asked(Why::For(Reason::MaxRequests)), None));
    assert_eq!(rig.children.iter().map(|child| child.id).collect::<Vec<_>>(), [new]);
}

#[test]
fn a_worker_that_is_kept_after_all_needs_no_successor() {
    let mut rig = Rig::new([WORKER], 4);
    let old = rig.serve(WORKER, 1);
    rig.replace(old, Reason::Reload);
    let new = rig.order(WORKER, 2).unwrap();
    rig.end(new, End::Exited(22));
    assert!(rig.children.keep(old, &mut rig.timers), "its successor died");
    rig.wait(Duration::from_secs(60));
    assert!(rig.children.due().is_empty());
    assert!(!rig.children.keep(old, &mut rig.timers), "nothing is against it any more");
}

#[test]
fn a_successor_that_dies_early_is_tried_again_while_the_old_one_serves() {
    let mut rig = Rig::new([WORKER], 4);
    let old = rig.serve(WORKER, 1);
    rig.replace(old, Reason::Reload);
    let new = rig.start(WORKER, 2);
    assert_eq!(rig.end(new, End::Killed(11)).next, Some(Duration::from_secs(1)));
    assert!(!rig.replace(old, Reason::Reload) && rig.children.due().is_empty());
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.children.due(), [WORKER]);
}

#[test]
fn an_auxiliary_process_has_a_successor_when_it_has_gone() {
    let mut rig = Rig::new([SPOOLER], 0);
    let old = rig.serve(SPOOLER, 1);
    assert!(rig.dismiss(old, FOR_RELOAD).is_some());
    rig.children.fill(SPOOLER, &mut rig.timers);
    assert!(rig.children.due().is_empty());
    rig.end(old, End::Killed(9));
    assert_eq!(rig.children.due(), [SPOOLER]);
}

#[test]
fn one_that_is_told_to_leave_before_its_process_is_known_is_told_then_and_again_when_it_listens() {
    let mut rig = Rig::new([SPOOLER], 0);
    let id = rig.order(SPOOLER, 1).unwrap();
    assert_eq!(rig.dismiss(id, FOR_RELOAD), None);
    let pid = Pid::from_raw(7);
    assert_eq!(rig.children.announce(id, pid), Some(Signal::SIGTERM));
    assert_eq!(rig.children.mark_ready(id).stop_again, Some(pid));
    assert_eq!(rig.dismiss(id, Why::Stop), None, "once");
}

#[test]
fn one_that_is_late_before_its_process_is_known_is_killed_then_and_leaves_no_timer() {
    let mut rig = Rig::new([SPOOLER], 0);
    let id = rig.order(SPOOLER, 1).unwrap();
    assert_eq!(rig.dismiss(id, FOR_RELOAD), None);
    rig.wait(GRACE);
    assert_eq!(rig.timers.next(), None);
    assert_eq!(rig.children.announce(id, Pid::from_raw(7)), Some(Signal::SIGKILL));
}

#[test]
fn what_a_lost_fork_server_had_not_told_of_is_ordered_again_at_once() {
    let mut rig = Rig::new([WORKER, SPOOLER], 1);
    let reported = rig.start(SPOOLER, 1);
    rig.order(WORKER, 1).unwrap();
    rig.children.forget_orders(GenerationNumber::FIRST, rig.now, &mut rig.timers);
    assert_eq!(rig.children.due(), [WORKER]);
    assert_eq!(rig.children.iter().map(|child| child.id).collect::<Vec<_>>(), [reported]);
    assert!(rig.order(WORKER, 2).is_some(), "its slot is free");
}

#[test]
fn no_worker_begins_without_a_slot_and_it_stays_due() {
    let mut rig = Rig::new([WORKER], 1);
    let old = rig.serve(WORKER, 1);
    rig.replace(old, Reason::Reload);
    assert_eq!(rig.order(WORKER, 2), None);
    assert_eq!(rig.children.due(), [WORKER]);
    rig.end(old, End::Exited(0));
    assert!(rig.order(WORKER, 2).is_some());
}

fn reaped(pid: i32) -> Reaped {
    Reaped { pid: Pid::from_raw(pid), end: End::Killed(9), processor_time: Duration::ZERO }
}

#[test]
fn an_end_before_the_announcement_is_found_and_one_from_before_the_order_is_not() {
    let mut rig = Rig::new([WORKER, SPOOLER], 4);
    rig.children.keep_unannounced(reaped(6));
    let first = rig.order(WORKER, 1).unwrap();
    rig.children.keep_unannounced(reaped(7));
    rig.children.keep_unannounced(reaped(8));
    let second = rig.order(SPOOLER, 1).unwrap();
    assert_eq!(rig.children.announce(second, Pid::from_raw(8)), None);
    assert!(rig.children.take_unannounced(second).is_none(), "it was ordered later, and has the number of an orphan");
    assert_eq!(rig.children.announce(first, Pid::from_raw(7)), None);
    assert!(rig.children.take_unannounced(first).is_some());
    assert!(rig.children.unannounced.is_empty(), "every order was answered");
}

#[test]
fn ends_of_orphans_are_kept_within_bounds() {
    let mut rig = Rig::new([WORKER], 4);
    let id = rig.order(WORKER, 1).unwrap();
    for pid in 1..2_000 {
        rig.children.keep_unannounced(reaped(pid));
    }
    assert_eq!(rig.children.unannounced.len(), MOST_UNANNOUNCED);
    assert_eq!(rig.children.announce(id, Pid::from_raw(1_999)), None);
    assert!(rig.children.take_unannounced(id).is_some());
}

/// What can happen to a server, by a number that picks whom it happens to.
#[derive(Clone, Copy, Debug)]
enum Step {
    StartDue,
    Announce(usize),
    Ready(usize),
    Die(usize, End),
    LeaveIfAsked(usize),
    Reload,
    LoseForkServer,
    Recycle(usize),
    Cheap(usize),
    NeedAgain(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = || 0..16usize;
    let end = prop_oneof![Just(End::Exited(0)), Just(End::Exited(1)), Just(End::Killed(9))];
    let step = prop_oneof![
        4 => Just(Step::StartDue),
        4 => who().prop_map(Step::Announce),
        4 => who().prop_map(Step::Ready),
        2 => (who(), end).prop_map(|(who, end)| Step::Die(who, end)),
        3 => who().prop_map(Step::LeaveIfAsked),
        1 => Just(Step::Reload),
        1 => Just(Step::LoseForkServer),
        1 => who().prop_map(Step::Recycle),
        1 => who().prop_map(Step::Cheap),
        1 => who().prop_map(Step::NeedAgain),
        3 => (0..40u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..120)
}

const WORKERS: u32 = 3;
const SLOTS: u32 = WORKERS * 3 + 4;

/// A server of some workers and two auxiliary processes, as the loop would run it.
struct Server {
    rig: Rig,
    generation: u32,
}

impl Server {
    fn posts() -> Vec<Post> {
        let auxiliary = |kind| Post::Auxiliary(Auxiliary { kind, number: 1 });
        let workers = WorkerId::first(WORKERS).map(Post::Worker);
        workers.chain([AuxiliaryKind::Spooler, AuxiliaryKind::Mule].map(auxiliary)).collect()
    }

    fn pick(&self, number: usize, wanted: impl Fn(&Child) -> bool) -> Option<ChildId> {
        let found: Vec<_> = self.rig.children.iter().filter(|child| wanted(child)).map(|child| child.id).collect();
        (!found.is_empty()).then(|| found[number % found.len()])
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::StartDue => {
                for post in self.rig.children.due() {
                    self.rig.order(post, self.generation);
                }
            }
            Step::Announce(who) => {
                if let Some(id) = self.pick(who, |child| child.pid.is_none()) {
                    self.rig.next_pid += 1;
                    let stop = self.rig.children.announce(id, Pid::from_raw(self.rig.next_pid));
                    assert_eq!(stop.is_some(), self.rig.children.get(id).unwrap().is_leaving());
                }
            }
            Step::Ready(who) => {
                if let Some(id) = self.pick(who, |child| child.pid.is_some()) {
                    for (old, reason) in self.rig.children.mark_ready(id).replaced {
                        let _ = self.rig.dismiss(old, Why::For(reason));
                    }
                }
            }
            Step::Die(who, end) => {
                if let Some(id) = self.pick(who, |child| child.pid.is_some()) {
                    self.rig.end(id, end);
                }
            }
            Step::LeaveIfAsked(who) => {
                if let Some(id) = self.pick(who, |child| child.pid.is_some() && child.is_leaving()) {
                    assert_eq!(self.rig.end(id, End::Exited(0)).child.id, id);
                }
            }
            Step::Reload => {
                self.generation += 1;
                let old: Vec<_> = self.rig.children.iter().map(|child| (child.id, child.post)).collect();
                for (id, post) in old {
                    if post.overlaps() {
                        self.rig.replace(id, Reason::Reload);
                    } else {
                        let _ = self.rig.dismiss(id, FOR_RELOAD);
                    }
                }
            }
            Step::LoseForkServer => {
                for generation in (1..=self.generation).filter_map(GenerationNumber::new) {
                    self.rig.children.forget_orders(generation, self.rig.now, &mut self.rig.timers);
                }
                assert!(self.rig.children.iter().all(|child| child.pid.is_some()));
            }
            Step::Recycle(who) => {
                if let Some(id) = self.pick(who, |child| child.post.overlaps()) {
                    self.rig.replace(id, Reason::Lifetime);
                }
            }
            Step::Cheap(who) => {
                let post = Self::posts()[who % WORKERS as usize];
                self.rig.children.abandon(post, &mut self.rig.timers);
                let of: Vec<_> = self.rig.children.of(post).map(|child| child.id).collect();
                for id in of {
                    let _ = self.rig.dismiss(id, Why::For(Reason::Idle));
                }
            }
            Step::NeedAgain(who) => {
                let post = Self::posts()[who % WORKERS as usize];
                if !self.rig.children.post(post).is_wanted {
                    self.rig.children.fill(post, &mut self.rig.timers);
                }
            }
            Step::Wait(seconds) => self.rig.wait(Duration::from_secs(seconds)),
        }
    }

    fn check(&self) {
        let (children, timers) = (&self.rig.children, &self.rig.timers);
        let mut slots: Vec<_> = children.iter().filter_map(|child| child.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), children.workers().count(), "a slot of one's own for each worker");
        for post in Self::posts() {
            let state = children.post(post);
            assert_eq!(state.vacancy == Vacancy::Later, timers.at(Timer::Start(post)).is_some(), "{post}: {state:?}");
            assert!(post.overlaps() || children.of(post).count() <= 1, "{post} has one process at a time");
            let has_current = children.of(post).any(Child::is_current);
            let comes_when_it_has_gone = !post.overlaps() && children.of(post).next().is_some();
            if state.is_wanted {
                assert!(has_current || state.vacancy != Vacancy::None || comes_when_it_has_gone, "{post} is forgotten");
            } else {
                assert_eq!((has_current, state.vacancy), (false, Vacancy::None), "{post} is not wanted");
            }
        }
        for child in children.iter() {
            let has_deadline = timers.at(Timer::Kill(child.id)).is_some();
            assert_eq!(has_deadline, matches!(child.stage, Stage::Leaving(_)), "{child:?}");
        }
    }

    /// Everything is told to end and does: nothing stays behind.
    fn stop(&mut self) {
        for post in Self::posts() {
            self.rig.children.abandon(post, &mut self.rig.timers);
        }
        let all: Vec<_> = self.rig.children.iter().map(|child| child.id).collect();
        for id in all {
            let _ = self.rig.dismiss(id, Why::Stop);
            self.rig.children.reap(id, End::Exited(0), self.rig.now, &mut self.rig.timers);
        }
        assert!(self.rig.children.is_empty());
        assert_eq!(self.rig.timers.next(), None);
        assert!(self.rig.children.due().is_empty());
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_slot_leaks_no_post_is_forgotten_and_no_timer_stays_behind(steps in steps()) {
        let mut server = Server { rig: Rig::new(Server::posts(), SLOTS), generation: 1 };
        for step in steps {
            server.take(step);
            server.check();
        }
        server.stop();
    }

    /// Once nothing more happens to them, every post has a process that serves.
    #[test]
    fn after_whatever_has_happened_every_wanted_post_is_filled_in_the_end(steps in steps()) {
        let mut server = Server { rig: Rig::new(Server::posts(), SLOTS), generation: 1 };
        for step in steps {
            server.take(step);
        }
        for _ in 0..10 {
            server.take(Step::Wait(60));
            server.take(Step::StartDue);
            for who in 0..SLOTS as usize {
                server.take(Step::Announce(who));
            }
            for who in 0..64 {
                server.take(Step::Ready(who));
                server.take(Step::LeaveIfAsked(who));
            }
        }
        for post in Server::posts().into_iter().filter(|post| server.rig.children.post(*post).is_wanted) {
            let stages: Vec<_> = server.rig.children.of(post).map(|child| child.stage).collect();
            prop_assert_eq!(stages, vec![Stage::Serving], "{}", post);
        }
    }
}

#[test]
fn a_fork_server_that_a_worker_forks_is_the_generation_s_when_the_one_before_leaves() {
    let mut rig = Rig::new([Post::ForkServer, WORKER], 3);
    let old = rig.serve(Post::ForkServer, 1);
    let generation = GenerationNumber::FIRST;
    let worker = rig.order(WORKER, 1).unwrap();
    assert!(rig.children.awaits_report(generation));
    let next = rig.order(Post::ForkServer, 1).unwrap();
    assert_eq!(rig.children.fork_server(generation).map(|child| child.id), Some(old));
    let _ = rig.children.announce(worker, Pid::from_raw(700));
    assert!(!rig.children.awaits_report(generation), "a fork server is not ordered from a fork server");
    let _ = rig.children.announce(next, Pid::from_raw(701));
    assert_eq!(rig.children.mark_ready(next).replaced, [(old, Reason::Reload)]);
    rig.dismiss(old, FOR_RELOAD);
    assert_eq!(rig.children.fork_server(generation).map(|child| child.id), Some(next));
    assert_eq!(rig.end(old, End::Exited(0)).next, None, "it has a successor");
    assert!(rig.end(next, End::Killed(9)).next.is_some(), "and the application is loaded again");
}

#[test]
fn a_fork_server_that_did_not_take_over_leaves_no_vacancy() {
    let mut rig = Rig::new([Post::ForkServer], 1);
    let old = rig.serve(Post::ForkServer, 1);
    let next = rig.start(Post::ForkServer, 1);
    rig.children.forget_order(next, rig.now, &mut rig.timers);
    assert!(rig.children.due().is_empty());
    assert_eq!(rig.children.fork_server(GenerationNumber::FIRST).map(|child| child.id), Some(old));
}

#[test]
fn none_of_a_thousand_workers_is_looked_for_among_all() {
    let posts: Vec<_> = WorkerId::first(1_000).map(Post::Worker).collect();
    let mut rig = Rig::new(posts.iter().copied(), 3_004);
    VISITED.set(0);
    assert_eq!(rig.children.due(), posts);
    let old: Vec<_> = posts.iter().map(|post| rig.serve(*post, 1)).collect();
    assert!(rig.children.due().is_empty());
    for id in &old {
        assert!(rig.replace(*id, Reason::Reload));
    }
    for (post, old) in posts.iter().zip(old) {
        let new = rig.start(*post, 2);
        assert_eq!(rig.children.mark_ready(new).replaced, [(old, Reason::Reload)]);
        let pid = rig.dismiss(old, FOR_RELOAD).unwrap();
        let child = rig.children.with_pid(pid).unwrap();
        assert_eq!((child.id, rig.children.in_slot(child.slot.unwrap()).unwrap().id), (old, old));
        rig.end(old, End::Exited(0));
        assert!(rig.children.with_pid(pid).is_none() && rig.children.is_filled(*post));
    }
    assert_eq!(VISITED.get(), 0);
    assert_eq!(rig.children.workers().count(), 1_000);
}
