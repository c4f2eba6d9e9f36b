//! A worker: N threads (threads) around one epoll set that holds the listeners and the connections.
//!
//! One thread does everything inline and keeps the GIL from one request to the next, letting it go only to sleep. With
//! several, connections are armed one-shot, so that whichever thread is free takes the next one that is ready: an idle
//! kept-alive connection belongs to no thread, and a slow request holds up no other connection.

mod accept;
mod access_log;
mod body;
mod connection;
mod drive;
mod gather;
pub(crate) mod harakiri;
mod intake;
mod link;
mod notices;
mod output;
mod receive;
pub(crate) mod release;
mod serve;
pub(crate) mod stop;
mod table;
mod worker_thread;

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::Signal;
use pyo3::prelude::*;
use rwsgi_stats::Address;
use tracing::error;

use self::notices::Notices;
use self::table::Table;
use self::worker_thread::WorkerThread;
use crate::api::{self, AfterFork};
use crate::config::Config;
use crate::ids::{ChildId, SlotId};
use crate::ipc::{LinkEndpoint, Setup};
use crate::process_setup::EXIT_NO_APP;
use crate::procname;
use crate::protocol::SocketProtocol;
use crate::stats::scoreboard::Scoreboard;
use crate::wsgi::gateway::Gateway;
use crate::wsgi::{application, interpreter};

/// What a worker is forked with.
pub struct Context {
    /// Its number, from 1.
    pub worker: u32,
    /// Its slot on the scoreboard.
    pub slot: u32,
    /// By which number the master knows it.
    pub child: ChildId,
    /// What its fork server was told.
    pub setup: Setup,
    /// The scoreboard.
    pub scoreboard: Scoreboard,
    /// The application, unless each worker loads its own.
    pub application: Option<Py<PyAny>>,
}

/// A socket that connections are accepted from.
struct Listener {
    fd: OwnedFd,
    protocol: SocketProtocol,
    /// What the environ says of this end: name and port.
    server: (String, String),
}

/// What the threads of a worker share.
struct Shared {
    worker: u32,
    slot: u32,
    config: Config,
    scoreboard: Scoreboard,
    epoll: Epoll,
    listeners: Vec<Listener>,
    /// Where the router is.
    link: Option<LinkEndpoint>,
    /// Threads whose connection to the router is to be made (again).
    lost_links: Mutex<Vec<u32>>,
    connections: Table,
    /// Connections that are open.
    open: AtomicUsize,
    /// When they were last looked through for those that waited too long, monotonic ns.
    swept: AtomicU64,
    /// Whether the listeners are in the epoll set.
    listening: Mutex<bool>,
    /// The worker leaves: nothing new is accepted, connections close when they are idle.
    leaving: AtomicBool,
    /// Threads that have seen it.
    leaving_threads: AtomicU32,
    /// Readable when the worker is to leave; edge-triggered, so that each thread wakes the next.
    stop: EventFd,
    notices: Notices,
    /// Kept to see the master's end.
    liveness: OwnedFd,
}

/// Epoll tokens below this are connections, by descriptor.
const TOKEN_LISTENER: u64 = 1 << 32;
/// The worker is to leave: a signal, or the master's end.
const TOKEN_STOP: u64 = 1 << 33;
/// The master is gone.
const TOKEN_LIVENESS: u64 = 1 << 34;

/// Serves until it is told to leave; returns the exit status.
///
/// # Errors
/// When what was inherited cannot be used.
pub fn run(py: Python<'_>, context: Context) -> anyhow::Result<i32> {
    let Context { worker, slot, child, mut setup, scoreboard, application } = context;
    let name = std::ffi::CString::new(format!("rwsgi w{worker}")).unwrap_or_default();
    let _ = nix::sys::prctl::set_name(&name);
    procname::set(&procname::title(&setup.config.procname, &format!("rwsgi worker {worker}")));
    if setup.config.no_orphans {
        // A master that is gone already is seen by the liveness pipe.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("no-orphans: cannot watch the master")?;
    }
    let application = match application {
        Some(application) => application,
        None => match application::load(py, &setup.config) {
            Ok(application) => application,
            Err(failure) => {
                error!("worker {worker}: {failure}");
                return Ok(EXIT_NO_APP);
            }
        },
    };
    let first_only = setup.config.import.iter().filter(|_| worker == 1);
    for module in setup.config.shared_import.iter().chain(first_only) {
        interpreter::import(py, module);
    }
    if let AfterFork::Exit(status) = api::after_fork(py) {
        error!("worker {worker}: uwsgi.post_fork_hook has ended it with status {status}");
        api::finish(py);
        return Ok(status);
    }
    let shared = Arc::new(Shared {
        worker,
        slot,
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        listeners: setup.listeners.iter_mut().map(Listener::inherit).collect::<Result<_, _>>()?,
        link: setup.link.clone(),
        lost_links: Mutex::default(),
        connections: Table::default(),
        open: AtomicUsize::new(0),
        swept: AtomicU64::new(0),
        listening: Mutex::new(false),
        leaving: AtomicBool::new(false),
        leaving_threads: AtomicU32::new(0),
        stop: stop::on_terminate().context("cannot watch for the order to leave")?,
        notices: Notices::new(setup.notices.take()?, worker, child, &setup.config)?,
        liveness: setup.liveness.take()?,
        config: setup.config,
        scoreboard,
    });
    release::let_go_in_children(py, &shared)?;
    shared.watch()?;
    let threads = shared.config.threads;
    let multiprocess = shared.config.processes > 1;
    let mut threads = (0..threads)
        .map(|id| {
            let gateway = Gateway::new(py, application.clone_ref(py), threads > 1, multiprocess)?;
            WorkerThread::new(id, Arc::clone(&shared), gateway)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    for thread in &mut threads {
        thread.link_to_router();
    }
    shared.scoreboard.worker(SlotId::new(slot)).set_accepting(true);
    if shared.config.harakiri.is_some() {
        harakiri::install(py, shared.config.harakiri_verbose).context("harakiri: cannot watch for its signals")?;
    }
    shared.notices.tell_ready()?;
    let Some(mut first) = (!threads.is_empty()).then(|| threads.remove(0)) else { return Ok(0) };
    let others: Vec<_> = threads
        .into_iter()
        .map(|mut thread| {
            let name = harakiri::thread_name(worker, thread.id());
            std::thread::Builder::new().name(name).spawn(move || {
                let _serving = Serving(Arc::clone(&thread.shared));
                Python::attach(|py| thread.serve(py))
            })
        })
        .collect::<Result<_, _>>()
        .context("cannot start the worker's threads")?;
    let mut outcome = {
        let _serving = Serving(Arc::clone(&first.shared));
        first.serve(py)
    };
    for other in others {
        let joined = py.detach(|| other.join());
        outcome = outcome.and(joined.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked"))));
    }
    api::finish(py);
    if let Err(error) = outcome {
        error!("worker {worker}: {error:#}");
        return Ok(1);
    }
    Ok(0)
}

/// A thread's serving, after which the worker leaves.
struct Serving(Arc<Shared>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Listener {
    fn inherit(listener: &mut crate::ipc::InheritedListener) -> anyhow::Result<Self> {
        let server = match &listener.address {
            Address::Tcp { host, port } => (server_name(host), port.to_string()),
            // The environ's server name and port may not be empty (PEP 3333).
            Address::Unix(_) | Address::Abstract(_) => (server_name(""), "80".to_owned()),
        };
        Ok(Self { fd: listener.fd.take()?, protocol: listener.protocol, server })
    }
}

/// The name for an address that is no particular one: the machine's, as uWSGI has it.
fn server_name(host: &str) -> String {
    if !matches!(host, "" | "0.0.0.0" | "::") {
        return host.to_owned();
    }
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

impl Shared {
    fn watch(&self) -> anyhow::Result<()> {
        self.listen_again()?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(&self.stop, EpollEvent::new(flags, TOKEN_STOP))?;
        self.epoll.add(&self.liveness, EpollEvent::new(EpollFlags::empty(), TOKEN_LIVENESS))?;
        Ok(())
    }

    /// Takes connections from the listeners, if it does not.
    fn listen_again(&self) -> anyhow::Result<()> {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if *listening || self.leaving.load(Acquire) {
            return Ok(());
        }
        *listening = true;
        for (index, listener) in self.listeners.iter().enumerate() {
            self.watch_listener(index, listener)?;
        }
        Ok(())
    }

    /// Whether a connection from this listener binds a thread for longer than a request, or one GIL more than another's:
    /// then the workers take turns.
    fn shares(&self, listener: &Listener) -> bool {
        self.config.processes > 1 && (listener.protocol == SocketProtocol::Http || self.config.threads > 1)
    }

    /// Lets the other workers go first for the next connection.
    ///
    /// the kernel offers it to the exclusive waiters in the order in which they came, and the first one that sleeps takes
    /// it: the first worker would have every kept-alive connection as long as one of its threads sleeps.
    fn step_back(&self, index: usize) -> anyhow::Result<()> {
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if let (true, Some(listener)) = (*listening, self.listeners.get(index)) {
            self.epoll.delete(&listener.fd)?;
            self.watch_listener(index, listener)?;
        }
        Ok(())
    }

    fn watch_listener(&self, index: usize, listener: &Listener) -> nix::Result<()> {
        // A connection wakes one of the workers that sleep, not all.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        self.epoll.add(&listener.fd, EpollEvent::new(flags, TOKEN_LISTENER + index as u64))
    }

    /// Leaves connections to wait in the backlog, or for other workers.
    fn stop_listening(&self) -> anyhow::Result<()> {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *listening) {
            for listener in &self.listeners {
                self.epoll.delete(&listener.fd)?;
            }
        }
        Ok(())
    }

    /// A thread ends, whatever for: the others must not go on without it.
    fn leave(&self) {
        self.leaving.store(true, Release);
        if let Err(failure) = self.wake_next() {
            error!("worker {}: cannot wake its threads: {failure}", self.worker);
        }
    }

    /// Wakes a thread that sleeps.
    fn wake_next(&self) -> nix::Result<()> {
        self.stop.write(1).map(drop)
    }

    /// Whether connections are armed for one event at a time.
    fn one_shot(&self) -> bool {
        self.config.threads > 1
    }
}
