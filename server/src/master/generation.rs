//! Generations: loads of the application. A reload loads the next one beside the one that serves, moves the workers
//! over when it is ready, and keeps the old one when it fails to load.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::listeners::Listener;
use super::pool::Reason;
use super::process::{End, FORKSERVER_ROLE};
use super::shutdown::Phase;
use super::{Event, Master};
use crate::config::Config;
use crate::ipc::inherit::InheritedFd;
use crate::ipc::{Answer, InheritedListener, Order, Role, Setup, receive_message, send_message};
use crate::process_setup::EXIT_NO_APP;
use crate::protocol::SocketProtocol;

/// A fork server that died while its generation served is started again after this.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// How a new generation takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Every worker has a successor started at once.
    Rolling,
    /// One worker after another.
    Chain,
    /// As rolling; the old ones are not given time to finish.
    Brutal,
}

/// One fork server.
#[derive(Debug)]
pub(super) struct Generation {
    /// From 1, growing.
    pub(super) number: u32,
    /// The fork server's process.
    pub(super) pid: Pid,
    /// The interpreter's version, once the application is loaded.
    pub(super) python: Option<String>,
    /// Dropped to let the fork server leave.
    channel: Option<Rc<UnixDatagram>>,
    config: Config,
    how: Reload,
}

impl Generation {
    fn new(
        number: u32,
        (pid, channel): (Pid, OwnedFd),
        config: Config,
        how: Reload,
        events: mpsc::UnboundedSender<Event>,
    ) -> anyhow::Result<Self> {
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&channel, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        let channel = UnixDatagram::from_std(channel.into()).context("cannot watch the fork server")?;
        let channel = Rc::new(channel);
        let reader = Rc::downgrade(&channel);
        tokio::task::spawn_local(async move {
            while let Some(channel) = reader.upgrade() {
                let received = channel.async_io(Interest::READABLE, || receive_message(channel.as_fd())).await;
                let Ok(Some(answer)) = received else { return };
                if events.send(Event::Answer(number, answer)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { number, pid, python: None, channel: Some(channel), config, how })
    }

    /// Tells the fork server something.
    pub(super) fn order(&self, order: Order) -> std::io::Result<()> {
        match &self.channel {
            Some(channel) => send_message(channel.as_fd(), &order),
            None => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }

    /// Lets the fork server leave: it sees end-of-file.
    pub(super) fn dismiss(&mut self) {
        if let Some(channel) = self.channel.take() {
            // The reading task holds the descriptor too while it waits; the other side must see the end now.
            let _ = channel.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Master {
    /// Starts a fork server that loads `config`'s application.
    pub(super) fn load(&mut self, config: Config, how: Reload) -> anyhow::Result<()> {
        let number = self.newest + 1;
        let setup = self.setup(number, &config)?;
        let process = self.launcher.start(FORKSERVER_ROLE, config.home.as_deref(), &setup).with_context(|| {
            match &config.home {
                Some(home) => format!("home: cannot run the Python of '{}'", home.display()),
                None => "cannot start the fork server".to_owned(),
            }
        })?;
        self.generations.push(Generation::new(number, process, config, how, self.events.clone())?);
        self.newest = number;
        Ok(())
    }

    /// What a process of ours needs to know, and the descriptors that it inherits.
    pub(super) fn setup(&self, generation: u32, config: &Config) -> anyhow::Result<Setup> {
        let inherited = |(listener, protocol): &(Listener, SocketProtocol)| -> nix::Result<InheritedListener> {
            let address = listener.address.clone();
            Ok(InheritedListener { address, protocol: *protocol, fd: listener.inherit()? })
        };
        Ok(Setup {
            config: config.clone(),
            layout: self.scoreboard.layout(),
            scoreboard: InheritedFd::lend(self.scoreboard.memory())?,
            liveness: InheritedFd::lend(self.liveness.as_fd())?,
            notices: InheritedFd::lend(self.notices.as_fd())?,
            share: self.share.descriptors(InheritedFd::lend)?,
            control: InheritedFd::lend(self.control.as_fd())?,
            listeners: self.listeners.iter().map(inherited).collect::<Result<_, _>>()?,
            link_listener: None,
            link: self.router.endpoint.clone(),
            generation,
            started_at: self.started_at,
        })
    }

    /// Reads the configuration again and loads the next generation beside the one that serves.
    pub(super) fn reload(&mut self, how: Reload) {
        if self.phase != Phase::Serving {
            return;
        }
        let loaded = (self.reread)().and_then(|mut config| {
            for (name, kept) in keep_fixed(&self.config, &mut config) {
                warn!("reload: {name} cannot change while the server runs: it stays {kept}");
            }
            self.load(config, how)
        });
        match loaded {
            Ok(()) => {
                self.tell_reloading();
                info!("reload: loading generation {} beside generation {}", self.newest, self.current);
            }
            Err(error) => error!("reload: generation {} goes on: {error:#}", self.current),
        }
    }

    /// Takes a fork server's answer.
    pub(super) fn hear(&mut self, number: u32, answer: Answer) {
        match answer {
            Answer::Loaded { python, took } => {
                let Some(generation) = self.generations.iter_mut().find(|g| g.number == number) else { return };
                info!("generation {number} (pid {}): loaded in {took} ms, Python {python}", generation.pid);
                generation.python = Some(python);
                // One that was overtaken while it loaded is not wanted any more.
                if number > self.current && self.phase == Phase::Serving {
                    self.promote(number);
                }
            }
            // The process says why in the log, and then ends.
            Answer::Failed => {}
            Answer::Forked { role, pid } => match role {
                Role::Worker { slot, .. } => self.forked(slot, Pid::from_raw(pid)),
                Role::Auxiliary(who) => self.auxiliary_forked(who, Pid::from_raw(pid)),
            },
            Answer::NotForked { role, reason } => match role {
                Role::Worker { slot, .. } => self.not_forked(slot, &reason),
                Role::Auxiliary(who) => self.auxiliary_not_forked(who, &reason),
            },
        }
    }

    /// Makes a loaded generation the one that workers are forked from, and starts a successor for every worker.
    fn promote(&mut self, number: u32) {
        let first = self.current == 0;
        self.current = number;
        let mut how = Reload::Rolling;
        if let Some(generation) = self.generations.iter().find(|generation| generation.number == number) {
            self.config = generation.config.clone();
            how = generation.how;
        }
        let now = Instant::now();
        if first {
            self.settle_number(now);
        }
        self.haste = how == Reload::Brutal;
        // Limits may have changed.
        self.watchdog.due = Some(now);
        if !first {
            info!("reload: generation {number} takes over");
        }
        self.renew_auxiliaries(now);
        self.forget_calls();
        let workers = 1..=self.config.processes;
        let alive = |worker: &u32| self.pool.lives.iter().any(|life| life.worker == *worker && life.fate.is_none());
        self.chain = (how == Reload::Chain).then(|| workers.filter(alive).collect());
        if self.chain.is_some() {
            self.advance_chain();
            return;
        }
        let old: Vec<_> = self.pool.lives.iter().map(|life| life.slot).collect();
        for slot in old {
            self.pool.doom(slot, Reason::Reload, now);
        }
        for worker in self.pool.workers.iter_mut().filter(|worker| !worker.cheap) {
            // One that waits out its delay after early deaths deserves a new try with the new application.
            worker.due = Some(now);
        }
    }

    /// Has the next worker of a chain reload replaced.
    pub(super) fn advance_chain(&mut self) {
        let Some(chain) = &mut self.chain else { return };
        let Some(worker) = chain.pop_front() else {
            self.chain = None;
            self.tell_ready();
            return;
        };
        let current = self.current;
        let old: Vec<_> = self
            .pool
            .lives
            .iter()
            .filter(|life| life.worker == worker && life.generation < current)
            .map(|life| life.slot)
            .collect();
        let now = Instant::now();
        let news = old.into_iter().filter(|slot| self.pool.doom(*slot, Reason::Reload, now)).count();
        if news == 0 {
            self.advance_chain();
        }
    }

    /// Lets the fork servers leave that no worker will be forked from any more.
    pub(super) fn retire_generations(&mut self) {
        let (current, newest) = (self.current, self.newest);
        for generation in &mut self.generations {
            let overtaken = generation.number < current || (generation.python.is_some() && generation.number < newest);
            if overtaken && generation.number != current {
                generation.dismiss();
            }
        }
    }

    /// Whether a new worker can be forked now.
    pub(super) fn can_fork(&self) -> bool {
        self.generations.iter().any(|generation| generation.number == self.current)
    }

    /// Whether `pid` was a fork server; if so, what it means that it ended.
    pub(super) fn bury_fork_server(&mut self, pid: Pid, end: End) -> bool {
        let Some(index) = self.generations.iter().position(|generation| generation.pid == pid) else { return false };
        let generation = self.generations.remove(index);
        let number = generation.number;
        self.give_up_auxiliaries_of(number);
        if self.phase != Phase::Serving || number < self.current {
            return true;
        }
        if number == self.current {
            error!("fork server of generation {number} (pid {pid}) died: {end}; loading the application again");
            self.reload_due = Some(Instant::now() + RESTART_DELAY);
        } else if self.current == 0 {
            match end {
                End::Exited(EXIT_NO_APP) => error!("no application could be loaded: exiting"),
                end => error!("the application could not be loaded: its process ended with {end}: exiting"),
            }
            let status = if let End::Exited(status @ 1..) = end { status } else { EXIT_NO_APP };
            self.fail(status);
        } else {
            error!("reload: generation {number} failed to load ({end}): generation {} goes on", self.current);
            self.tell_ready();
        }
        true
    }

    /// Starts a fork server again that died while its generation served.
    pub(super) fn restart_fork_server(&mut self, now: Instant) {
        if self.reload_due.is_some_and(|due| due <= now) {
            self.reload_due = None;
            if let Err(error) = self.load(self.config.clone(), Reload::Rolling) {
                error!("{error:#}; trying again");
                self.reload_due = Some(now + RESTART_DELAY);
            }
        }
    }
}

/// Gives `new` the values that cannot change while the server runs; returns the names that it had changed, with the
/// value that stays.
fn keep_fixed(old: &Config, new: &mut Config) -> Vec<(&'static str, String)> {
    let mut kept = Vec::new();
    macro_rules! keep {
        ($($($field:ident).+: $name:literal),* $(,)?) => {$(
            if new.$($field).+ != old.$($field).+ {
                kept.push(($name, serde_json::to_string(&old.$($field).+).unwrap_or_default()));
                new.$($field).+ = old.$($field).+.clone();
            }
        )*};
    }
    keep!(
        http: "http",
        http_socket: "http-socket",
        socket: "socket",
        listen: "listen",
        processes: "processes",
        threads: "threads",
        cheaper: "cheaper",
        idle: "idle",
        cheap: "cheap",
        so_keepalive: "so-keepalive",
        uid: "uid",
        gid: "gid",
        umask: "umask",
        chmod_socket: "chmod-socket",
        chown_socket: "chown-socket",
        pidfile: "pidfile",
        pidfile2: "pidfile2",
        daemonize: "daemonize",
        daemonize2: "daemonize2",
        vacuum: "vacuum",
        brutal_reload_on_term: "brutal-reload-on-term",
        master_fifo: "master-fifo",
        touch_reload: "touch-reload",
        touch_chain_reload: "touch-chain-reload",
        touch_logreopen: "touch-logreopen",
        py_autoreload: "py-autoreload",
        logto: "logto",
        logto2: "logto2",
        log_master: "log-master",
        log_maxsize: "log-maxsize",
        log_backupname: "log-backupname",
        stats: "stats",
        stats_http: "stats-http",
        spooler.directories: "spooler",
        spooler.external: "spooler-external",
        spooler.processes: "spooler-processes",
        between.locks: "locks",
        between.caches: "cache2",
        between.metrics: "metric",
        between.mules: "mules",
        between.farms: "farm",
    );
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_change_is_kept_and_named() {
        let old = Config { processes: 4, ..Config::default() };
        let mut new = Config { processes: 8, callable: "app".into(), ..Config::default() };
        assert_eq!(keep_fixed(&old, &mut new), [("processes", "4".to_owned())]);
        assert_eq!((new.processes, new.callable.as_str()), (4, "app"));
    }
}
