//! Starting processes for the posts that are due: by order to a fork server, or by exec.

use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{error, info};

use super::events::Reload;
use super::launcher::ROUTER_ROLE;
use super::post::Post;
use super::process::{End, signal};
use super::reason::Why;
use super::state::{Master, Phase};
use crate::clock::UnixMicros;
use crate::ids::{ChildId, GenerationNumber};
use crate::ipc::inherit::InheritedFd;
use crate::ipc::{Answer, InheritedListener, Order, Role, Setup};
use rwsgi_protocol::SocketProtocol;

impl Master {
    /// Starts a process for every post that is due, as far as that can be done now. What cannot stays due, and is tried
    /// again after the next event: a fork server's or a slot's coming free is one.
    pub(super) fn start_due(&mut self, now: Instant) {
        for post in self.children.due() {
            if !self.may_start(post) {
                continue;
            }
            match post {
                Post::HttpRouter => self.start_router(now),
                Post::Emperor => self.start_emperor(now),
                Post::ForkServer => self.load_again(now),
                Post::Worker(_) | Post::Auxiliary(_) => self.order(post, now),
            }
        }
    }

    /// Whether a process may be started now. While the router finishes what it has it needs a worker, which a
    /// supervisor that stops the whole group at once takes away.
    fn may_start(&self, post: Post) -> bool {
        match self.phase {
            Phase::Serving => true,
            Phase::RouterLeaves => matches!(post, Post::Worker(_)) && self.children.workers().next().is_none(),
            Phase::WorkersLeave | Phase::Killed => false,
        }
    }

    /// Orders a worker or an auxiliary process from the fork server that serves, if it is there and there is a slot.
    fn order(&mut self, post: Post, now: Instant) {
        if self.refork.is_about_to_take_over() {
            return;
        }
        let Some(generation) = self.generation_to_fork(post) else { return };
        let Some(child) = self.begin(post, Some(generation), now) else { return };
        let role = match (post, self.children.get(child).and_then(|child| child.slot)) {
            (Post::Worker(worker), Some(slot)) => Role::Worker { worker, slot },
            (Post::Auxiliary(who), _) => Role::Auxiliary(who),
            // The posts above are all that are ordered, and a worker has a slot.
            _ => return,
        };
        let ordered = match self.generations.get_mut(generation) {
            Some(generation) => {
                let is_first = matches!(post, Post::Worker(worker) if generation.begun.insert(worker));
                generation.order(Order::Fork { child, role, is_first })
            }
            None => Err(std::io::ErrorKind::NotConnected.into()),
        };
        match ordered {
            Ok(()) => {}
            // It has died, and is about to be reaped.
            Err(failure) if failure.kind() == std::io::ErrorKind::BrokenPipe => {
                self.children.forget_order(child, now, &mut self.timers);
            }
            Err(failure) => self.start_failed(child, &failure.to_string()),
        }
    }

    /// A record for a process that is about to be started.
    pub(super) fn begin(&mut self, post: Post, generation: Option<GenerationNumber>, now: Instant) -> Option<ChildId> {
        let spawned_at = UnixMicros::now();
        let child = self.children.begin(post, generation, now, spawned_at, &mut self.timers)?;
        if let Post::Worker(worker) = post
            && let Some(totals) = self.totals_of(worker)
        {
            totals.respawns += 1;
        }
        Some(child)
    }

    /// Takes what a fork server has answered.
    pub(super) fn take_answers(&mut self, number: GenerationNumber) {
        let answers = self.generations.get(number).map(super::generation::Generation::take_answers);
        for answer in answers.into_iter().flatten() {
            self.take_answer(number, answer);
        }
        self.take_refork_answers();
    }

    /// Takes one answer of a fork server.
    pub(super) fn take_answer(&mut self, number: GenerationNumber, answer: Answer) {
        match answer {
            Answer::Loaded { python, took } => self.loaded(number, python, took),
            // The process says why in the log, and then ends.
            Answer::Failed => {}
            Answer::Forked { child, pid } => self.forked(child, pid),
            Answer::NotForked { child, reason } => self.start_failed(child, &reason),
        }
    }

    /// A process was forked; it may have ended already.
    fn forked(&mut self, child: ChildId, pid: i32) {
        let pid = Pid::from_raw(pid);
        // Numbers below are groups to kill(2), and init.
        if pid.as_raw() <= 1 || self.children.with_pid(pid).is_some() {
            error!("a fork server says that it has forked process {pid}, which cannot be: nothing is known of it");
            return self.start_failed(child, "its process id is not known");
        }
        if let Some(number) = self.children.announce(child, pid) {
            signal(pid, number);
        }
        if let Some(reaped) = self.children.take_unannounced(child) {
            self.reaped(reaped);
        }
    }

    /// A process could not be started.
    pub(super) fn start_failed(&mut self, child: ChildId, reason: &str) {
        let now = Instant::now();
        let Some(ended) = self.children.reap(child, End::Exited(1), now, &mut self.timers) else { return };
        let next = ended.next.map_or_else(String::new, |delay| format!("; trying again in {} s", delay.as_secs()));
        error!("{}: cannot be started: {reason}{next}", ended.child.post);
    }

    /// A child says that it serves: those that it replaces may leave.
    pub(super) fn ready(&mut self, child: ChildId) {
        let outcome = self.children.mark_ready(child);
        if let Some(pid) = outcome.stop_again {
            signal(pid, Signal::SIGTERM);
        }
        for (replaced, reason) in outcome.replaced {
            if !self.hold_for_canary(replaced, child) {
                self.dismiss(replaced, Why::For(reason));
            }
        }
        if let Some(&super::children::Child { post: Post::Worker(worker), generation, .. }) = self.children.get(child) {
            self.any_ready = true;
            self.reload_count.serves(generation);
            self.canary_served();
            self.worker_ready(worker);
        }
    }

    /// Starts the http router.
    fn start_router(&mut self, now: Instant) {
        let Some(child) = self.begin(Post::HttpRouter, None, now) else { return };
        let started = self.router_setup().and_then(|setup| {
            let (pid, channel) = self.launcher.start(ROUTER_ROLE, None, &setup)?;
            if let Some(certificates) = &self.certificates {
                certificates.send(&channel)?;
            }
            // The loop does not wait for the router to read.
            fcntl(&channel, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok((pid, channel))
        });
        match started {
            Ok((pid, channel)) => {
                info!("http router started (pid {pid})");
                self.router_channel = Some(channel);
                // It was ordered this moment, so it was not ordered to leave.
                let _ = self.children.announce(child, pid);
            }
            Err(failure) => self.start_failed(child, &format!("{failure:#}")),
        }
    }

    fn router_setup(&self) -> anyhow::Result<Setup> {
        let inherited = |listener: &super::listeners::Listener| {
            let (address, protocol) = (listener.address.clone(), SocketProtocol::Http);
            Ok(InheritedListener { address, protocol, fd: listener.inherit()? })
        };
        let listeners = self.sockets.router.iter().map(inherited).collect::<nix::Result<_>>()?;
        let mut setup = self.setup(None, &self.config, listeners)?;
        let link = self.sockets.link.as_ref().and_then(|link| link.listener.as_ref());
        setup.has_certificates = self.certificates.is_some();
        setup.link_listener = link.map(|listener| InheritedFd::lend(std::os::fd::AsFd::as_fd(listener))).transpose()?;
        Ok(setup)
    }

    /// Loads the application again, for its fork server died while it served.
    fn load_again(&mut self, now: Instant) {
        if let Err(failure) = self.load(self.config.clone(), Reload::Again, false) {
            error!("{failure:#}; trying again");
            self.children.postpone(Post::ForkServer, Duration::from_secs(1), now, &mut self.timers);
        }
    }
}
