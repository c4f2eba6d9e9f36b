//! Loading the application, at the start and for a reload: the next generation is loaded beside the one that serves,
//! and takes over when it is ready; if it fails to load, the old one goes on.

use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::Context;
use tracing::{error, info, warn};

use super::children::Child;
use super::events::Reload;
use super::generation::Generation;
use super::launcher::FORKSERVER_ROLE;
use super::listeners::Listener;
use super::log::Log;
use super::otlp::Otlp;
use super::post::Post;
use super::reason::{Reason, Why};
use super::state::{Master, Phase};
use super::timers::Timer;
use crate::clock::UnixMicros;
use crate::container;
use crate::ids::{ChildId, GenerationNumber, WorkerId};
use crate::ipc::inherit::InheritedFd;
use crate::ipc::{AuxiliaryKind, InheritedListener, RouterLimits, RouterOrder, Setup, send_message};
use crate::stats::generations::GenerationState;
use rwsgi_config::{Config, OtlpConfig};
use rwsgi_protocol::SocketProtocol;

impl Master {
    /// Starts a fork server that loads `config`'s application; `again` has it run the hooks of a start first.
    ///
    /// # Errors
    /// When its process cannot be started.
    pub(super) fn load(&mut self, config: Config, how: Reload, again: bool) -> anyhow::Result<()> {
        self.cancel_refork("the application is loaded again");
        let number = self.generations.next_number();
        let inherited = |(listener, protocol): &(Listener, SocketProtocol)| -> nix::Result<InheritedListener> {
            let address = listener.address.clone();
            Ok(InheritedListener { address, protocol: *protocol, fd: listener.inherit()? })
        };
        let listeners = self.sockets.workers.iter().map(inherited).collect::<Result<_, _>>()?;
        let mut setup = self.setup(Some(number), &config, listeners)?;
        setup.again = again;
        let started = self.launcher.start(FORKSERVER_ROLE, config.home.as_deref(), &setup);
        let (pid, channel) = started.with_context(|| match &config.home {
            Some(home) => format!("home: cannot run the Python of '{}'", home.display()),
            None => "cannot start the fork server".to_owned(),
        })?;
        // Before there is a record of it: a process whose channel cannot be watched sees its end, and leaves.
        let generation = Generation::new(number, channel, config, how, self.events.clone())?;
        if let Some(child) = self.begin(Post::ForkServer, Some(number), Instant::now()) {
            // It was begun this moment, so it was not ordered to leave.
            let _ = self.children.announce(child, pid);
        }
        self.generations.add(generation);
        Ok(())
    }

    /// What a process of ours needs to know, and the descriptors that it inherits: these listeners, and what all of them
    /// inherit.
    ///
    /// # Errors
    /// Never as long as what it inherits is open.
    pub(super) fn setup(
        &self,
        generation: Option<GenerationNumber>,
        config: &Config,
        listeners: Vec<InheritedListener>,
    ) -> anyhow::Result<Setup> {
        let sockets = &self.sockets;
        let mut config = config.clone();
        // The application has no use for the keys of a collector.
        config.otlp.headers.clear();
        config.given.retain(|(name, _)| name != "otlp-headers");
        Ok(Setup {
            config,
            layout: self.scoreboard.layout(),
            scoreboard: InheritedFd::lend(self.scoreboard.memory())?,
            stacks: InheritedFd::lend(self.stacks.memory().memory())?,
            // Those who serve requests come from a generation.
            routes: match (&self.routes, generation) {
                (Some(routes), Some(_)) => Some(InheritedFd::lend(routes.memory().memory())?),
                _ => None,
            },
            traces: match (self.otlp.as_ref().and_then(Otlp::trace_memory), generation) {
                (Some(memory), Some(_)) => Some(InheritedFd::lend(memory)?),
                _ => None,
            },
            liveness: InheritedFd::lend(sockets.liveness.as_fd())?,
            request_log: self.log.as_ref().and_then(Log::requests).map(InheritedFd::lend).transpose()?,
            notices: InheritedFd::lend(sockets.notices.as_fd())?,
            share: self.share.descriptors(InheritedFd::lend)?,
            calls: InheritedFd::lend(sockets.calls.as_fd())?,
            listeners,
            link_listener: None,
            has_certificates: false,
            link: sockets.link.as_ref().map(|link| link.endpoint.clone()),
            generation,
            temp: self.temp.clone(),
            started_at: self.started_at,
            again: false,
        })
    }

    /// Reads the configuration again and loads the next generation beside the one that serves.
    pub(super) fn reload(&mut self, how: Reload) {
        if self.is_draining && self.phase == Phase::Serving {
            return warn!("reload: not done: the server was told to stop");
        }
        if self.phase != Phase::Serving {
            return;
        }
        if self.config.reactions.exit_on_reload {
            return self.stop("exit-on-reload");
        }
        if let Some(log) = self.log.as_ref().filter(|_| self.config.logs.reopen) {
            log.reopen();
        }
        self.undo_canary("a reload for all workers");
        // Before any serves, it is the one that is being loaded.
        let current = self.generations.current().or(self.generations.newest()).unwrap_or(GenerationNumber::FIRST);
        match self.load_next(how) {
            Ok(number) => {
                self.tell_reloading();
                info!("reload: loading generation {number} beside generation {current}");
            }
            Err(failure) => {
                self.reload_count.failed();
                error!("reload: generation {current} goes on: {failure:#}");
            }
        }
    }

    /// Reads the configuration again and has the next generation loaded. Returns its number.
    ///
    /// # Errors
    /// When the configuration cannot be read, or the process cannot be started.
    pub(super) fn load_next(&mut self, how: Reload) -> anyhow::Result<GenerationNumber> {
        let number = self.generations.next_number();
        let mut config = (self.reread)()?;
        let asked = config.processes;
        for (name, kept) in keep_fixed(&self.config, &mut config) {
            warn!("reload: {name} cannot change while the server runs: it stays {kept}");
        }
        if config.processes != asked {
            // Of so many workers each has a share.
            container::settle_limits(&mut config);
        }
        self.load(config, how, true)?;
        Ok(number)
    }

    /// A fork server has loaded its application.
    pub(super) fn loaded(&mut self, number: GenerationNumber, python: String, took: u64) {
        let Some(child) = self.children.fork_server(number) else { return };
        let (id, is_leaving) = (child.id, child.is_leaving());
        let pid = child.pid.map_or(0, nix::unistd::Pid::as_raw);
        info!("generation {number} (pid {pid}): loaded in {took} ms, Python {python}");
        if let Some(generation) = self.generations.get_mut(number) {
            generation.python = Some(python);
        }
        // One that was overtaken while it loaded is not wanted any more. While the server stops, the router may still need
        // workers: they come from the one that serves.
        if is_leaving || self.phase != Phase::Serving {
            return;
        }
        if self.canary_loaded(number, id) {
            return;
        }
        self.ready(id);
        self.promote(number);
    }

    /// Makes a loaded generation the one that workers are forked from, and has a successor started for every worker.
    pub(super) fn promote(&mut self, number: GenerationNumber) {
        let is_first = self.generations.current().is_none();
        self.generations.set_current(number);
        self.generation_history.begin(number, GenerationState::Serving, UnixMicros::now());
        let mut how = Reload::Rolling;
        if let Some(generation) = self.generations.get(number) {
            self.config = generation.config.clone();
            how = generation.how;
        }
        if let Err(failure) = std::env::set_current_dir(self.launcher.directory_of(&self.config)) {
            // Its processes have entered it, each for itself; relative paths of files to watch are looked for here.
            warn!("chdir: the master cannot enter the directory that the application runs in: {failure}");
        }
        let now = Instant::now();
        if is_first {
            self.settle_number(now);
        }
        self.haste = how == Reload::Brutal;
        self.watch_limits(now);
        self.configure_slow_requests();
        self.configure_saturation(now);
        self.doubt_share(number);
        self.tell_router_limits();
        if !is_first {
            self.renew_certificates();
        }
        if !is_first {
            info!("reload: generation {number} takes over");
            if how != Reload::Again {
                self.reload_count.takes_over(number);
            }
        }
        self.renew_auxiliaries(None);
        self.run_master_start();
        self.watch_backlogs(now);
        if !is_first {
            self.reload_vassals();
        }
        self.app_signals.forget_before(number);
        self.schedule_configured(number);
        self.set_timetable();
        if matches!(how, Reload::Rolling | Reload::Brutal) {
            self.renew_daemons(now);
        }
        self.renew_crons(now, is_first);
        if how == Reload::Chain {
            let is_up = |worker: &WorkerId| self.children.of(Post::Worker(*worker)).any(|child| !child.is_leaving());
            self.chain = Some(self.worker_ids().filter(is_up).collect());
            self.advance_chain();
            return;
        }
        self.chain = None;
        if !self.worker_ids().any(|worker| self.children.post(Post::Worker(worker)).is_wanted) {
            // None runs until somebody connects, and so none will say that it serves.
            self.reload_count.serves(Some(number));
            self.tell_ready();
        }
        // A canary that is kept has workers of its own already.
        let is_old = |child: &&Child| child.generation != Some(number);
        let old: Vec<_> = self.children.workers().filter(is_old).map(|child| child.id).collect();
        for id in old {
            self.children.replace(id, Reason::Reload, &mut self.timers);
        }
        for post in self.worker_ids().map(Post::Worker) {
            if self.children.post(post).is_wanted && !self.children.is_filled(post) {
                // One that waits out its delay after early deaths deserves a new try with the new application.
                self.children.fill(post, &mut self.timers);
            }
        }
    }

    /// Sends the http router the options that it follows: they may have changed.
    fn tell_router_limits(&self) {
        let Some(channel) = &self.router_channel else { return };
        let order = RouterOrder::Limits(RouterLimits::new(&self.config));
        if let Err(failure) = send_message(channel.as_fd(), &order) {
            // One that has died is started with the present options.
            if failure.kind() != std::io::ErrorKind::BrokenPipe {
                error!("reload: the http router cannot be sent its options: {failure}: they stay as they were");
            }
        }
    }

    /// Has the http router use the certificates as they are now. Connections keep theirs.
    fn renew_certificates(&mut self) {
        let Some(certificates) = &mut self.certificates else { return };
        match certificates.renew(&self.config) {
            Ok(true) => info!("reload: new certificates; connections keep theirs"),
            Ok(false) => return,
            Err(failure) => return error!("reload: all certificates stay as they were: {failure:#}"),
        }
        let Some(channel) = &self.router_channel else { return };
        if let Err(failure) = send_message(channel.as_fd(), &RouterOrder::Certificates)
            && failure.kind() != std::io::ErrorKind::BrokenPipe
        {
            // One that has died finds them when it is started.
            error!("reload: the http router cannot be told of new certificates: {failure}: reload again");
        }
    }

    /// A new generation serves, or those of a kind are to be started again: every auxiliary process leaves for its
    /// successor.
    pub(super) fn renew_auxiliaries(&mut self, kind: Option<AuxiliaryKind>) {
        let is_meant = |post: &Post| matches!(post, Post::Auxiliary(who) if kind.is_none_or(|kind| who.kind == kind));
        for post in self.auxiliary_posts().into_iter().filter(is_meant) {
            // One that waits out its delay after early deaths deserves a new try with the new application.
            self.children.fill(post, &mut self.timers);
            let old: Vec<ChildId> = self.children.of(post).map(|child| child.id).collect();
            for id in old {
                self.dismiss(id, Why::For(Reason::Reload));
            }
        }
    }

    /// Has the next worker of a chain reload replaced.
    pub(super) fn advance_chain(&mut self) {
        while let Some(chain) = &mut self.chain {
            let Some(worker) = chain.pop_front() else {
                self.chain = None;
                self.tell_ready();
                return;
            };
            let current = self.generations.current();
            let old = self.children.of(Post::Worker(worker)).filter(|child| child.generation < current);
            let old: Vec<_> = old.map(|child| child.id).collect();
            let mut is_news = false;
            for id in old {
                is_news |= self.children.replace(id, Reason::Reload, &mut self.timers);
            }
            if is_news {
                return;
            }
        }
    }

    /// A worker's process serves: goes on with a chain reload, or notifies the supervisor that the server is ready
    /// (again).
    pub(super) fn worker_ready(&mut self, worker: WorkerId) {
        let current = self.generations.current();
        let is_new = self.children.of(Post::Worker(worker)).all(|child| child.generation == current);
        let is_replaced = self.children.of(Post::Worker(worker)).any(Child::is_leaving);
        self.advance_refork();
        if self.chain.is_none() {
            self.tell_ready();
        } else if is_new || is_replaced {
            self.advance_chain();
        }
        // What is overdue in the old one has waited for this. Not for each of a thousand that start: all are looked through.
        if self.config.harakiri.is_some() && !self.overdue.is_empty() {
            self.timers.set(Timer::Requests, Instant::now());
        }
    }
}

/// Gives `new` the values that cannot change while the server runs; returns the names that it had changed, with the
/// value that stays.
fn keep_fixed(old: &Config, new: &mut Config) -> Vec<(&'static str, String)> {
    let mut kept = Vec::new();
    if !new.tls.addresses().eq(old.tls.addresses()) {
        kept.push(("https and http-to-https", "as at the start, with their certificates".to_owned()));
        new.tls = old.tls.clone();
    }
    // Its values are not for the log.
    let otlp = OtlpConfig { sample: new.otlp.sample, parent: new.otlp.parent, ..old.otlp.clone() };
    if new.otlp != otlp {
        kept.push(("otlp-* but for otlp-sample and otlp-parent", "as at the start".to_owned()));
        new.otlp = otlp;
    }
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
        http_router: "http-enable-proxy-protocol, enable-proxy-protocol, http-to or shared-socket",
        listen: "listen",
        processes: "processes",
        threads: "threads",
        routes.most: "route-stats",
        cheaper: "cheaper",
        idle: "idle",
        cheap: "cheap",
        so_keepalive: "so-keepalive",
        uid: "uid",
        gid: "gid",
        add_gid: "add-gid",
        no_new_privs: "no-new-privs",
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
        touch_mules_reload: "touch-mules-reload",
        touch_spoolers_reload: "touch-spoolers-reload",
        signals.touched: "touch-signal",
        touch_logreopen: "touch-logreopen",
        reactions.touch_exec: "touch-exec",
        reactions.touch_logrotate: "touch-logrotate",
        reactions.fs_reload: "fs-reload",
        reactions.fs_brutal_reload: "fs-brutal-reload",
        reactions.reload_on_fd: "reload-on-fd",
        alarms.log: "alarm-log",
        alarms.fds: "alarm-fd",
        py_autoreload: "py-autoreload",
        logto: "logto",
        logto2: "logto2",
        log_master: "log-master",
        logs.general: "logger",
        logs.requests: "req-logger",
        logs.drain: "log-drain",
        logs.filter: "log-filter",
        logs.date: "log-date",
        logs.file_mode: "logfile-chmod",
        logs.file_chown: "logfile-chown",
        log_maxsize: "log-maxsize",
        log_backupname: "log-backupname",
        temp.dir: "temp-dir",
        temp.size: "temp-size",
        emperor: "emperor",
        stats: "stats",
        probes.addresses: "probe",
        control: "control",
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
