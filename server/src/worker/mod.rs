//! A worker: N threads around one epoll set that holds the listeners and the connections.
//!
//! One thread does everything inline and keeps the GIL from one request to the next, releasing it only to sleep. With
//! several, connections are armed one-shot, so that whichever thread is free takes the next one that is ready: an idle
//! kept-alive connection belongs to no thread, and a slow request holds up no other connection.

mod access_log;
mod body;
mod connection;
mod connections;
mod drain;
mod drive;
mod garbage;
mod harakiri;
mod intake;
mod kind;
mod lane;
mod link;
mod near_end;
mod notices;
mod orders;
mod parked;
mod peers;
mod phases;
pub(crate) mod release;
mod routes;
mod routing;
mod serve;
mod state;
pub(crate) mod stop;
mod streams;
mod traces;
mod upgrade;
mod watcher;
mod worker_thread;

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::signal::Signal;
use pyo3::prelude::*;
use tracing::error;

use self::connections::Connections;
use self::notices::Notices;
pub(crate) use self::orders::refork::NextForkServer;
use self::parked::ParkedMemory;
use self::peers::Peers;
use self::state::{OwnListener, Worker};
use self::streams::Streams;
use self::worker_thread::WorkerThread;
use crate::api::{self, AfterFork};
use crate::give_back;
use crate::hooks::{self, EXIT_HOOK_FAILED};
use crate::ids::{ChildId, SlotId, ThreadIndex, WorkerId};
use crate::io::accept::Listener;
use crate::io::body::BodyLimits;
use crate::io::descriptors::{ClientCap, for_files, grow_descriptor_table};
use crate::io::pace::MinRates;
use crate::io::temp::TempFiles;
use crate::ipc::{InheritedListener, Setup};
use crate::log_limit;
use crate::process_setup::EXIT_NO_APP;
use crate::procname;
use crate::stacks;
use crate::stacks::area::OwnPart;
use crate::stats::routes::{RouteTable, RouteTableCells};
use crate::stats::scoreboard::{Scoreboard, TempHolder};
use crate::stats::traces::TraceCells;
use crate::system_limits;
use crate::wsgi::gateway::Gateway;
use crate::wsgi::{application, threads, websocket};
use rwsgi_config::Config;
use rwsgi_config::hooks::Phase;
use rwsgi_protocol::SocketProtocol;

/// What a worker is forked with.
pub(crate) struct WorkerContext {
    /// Its number.
    pub worker: WorkerId,
    /// Its slot on the scoreboard.
    pub slot: SlotId,
    /// By which number the master knows it.
    pub child: ChildId,
    /// The setup that its fork server received.
    pub setup: Setup,
    /// The scoreboard.
    pub scoreboard: Scoreboard,
    /// The application, unless each worker loads its own.
    pub application: Option<Py<PyAny>>,
    /// Its generation has had no process of this worker before.
    pub is_first: bool,
}

/// What a worker's process does next.
pub(crate) enum Next {
    /// It exits with this status.
    Exit(i32),
    /// It was forked by the worker, and is a fork server from now on.
    ForkServer(Box<NextForkServer>),
}

/// Serves until it is told to leave.
///
/// # Errors
/// When what was inherited cannot be used.
pub(crate) fn run(py: Python<'_>, context: WorkerContext) -> anyhow::Result<Next> {
    let WorkerContext { worker, slot, child, mut setup, scoreboard, application, is_first } = context;
    // Before anybody starts a thread.
    grow_descriptor_table();
    let name = std::ffi::CString::new(format!("rwsgi w{worker}")).unwrap_or_default();
    let _ = nix::sys::prctl::set_name(&name);
    procname::set(&procname::title(&setup.config.procname, &format!("rwsgi worker {worker}")));
    if setup.config.no_orphans {
        // A master that is gone already is seen by the liveness pipe.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("no-orphans: cannot watch the master")?;
    }
    let run_hooks = |phase, config: &Config| {
        let outcome = hooks::run_in_python(py, phase, config);
        outcome.inspect_err(|failure| error!("worker {worker}: {failure:#}")).is_ok()
    };
    if !run_hooks(Phase::PostFork, &setup.config) {
        return Ok(Next::Exit(EXIT_HOOK_FAILED));
    }
    let application = match application {
        Some(application) => application,
        None if !run_hooks(Phase::PreApp, &setup.config) => return Ok(Next::Exit(EXIT_HOOK_FAILED)),
        None => match application::load(py, &setup.config) {
            Ok(_) if !run_hooks(Phase::PostApp, &setup.config) => return Ok(Next::Exit(EXIT_HOOK_FAILED)),
            Ok(application) => application,
            Err(failure) => {
                error!("worker {worker}: {failure}");
                return Ok(Next::Exit(EXIT_NO_APP));
            }
        },
    };
    threads::prepare_hub(py);
    if let Some(directory) = &setup.config.chdir2 {
        std::env::set_current_dir(directory)
            .with_context(|| format!("chdir2: cannot enter '{}'", directory.display()))?;
    }
    if let AfterFork::Exit(status) = api::after_fork(py) {
        error!("worker {worker}: uwsgi.post_fork_hook has ended it with status {status}");
        api::finish(py);
        return Ok(Next::Exit(status));
    }
    let scoreboard = Arc::new(scoreboard);
    // They stay there for those that this worker may fork.
    let memory = setup.stacks.copy()?;
    let routes = match &setup.routes {
        Some(memory) => Some(RouteTableCells::map(memory.copy()?, slot, setup.config.routes.most)?),
        None => None,
    };
    let traces = match &setup.traces {
        Some(memory) => Some(Arc::new(TraceCells::map(&memory.copy()?, slot, setup.config.threads)?)),
        None => None,
    };
    // Each thread may have a lane beside its link.
    let links = if setup.link.is_some() { 2 * setup.config.threads as usize } else { 0 };
    let is_for_it = |place| setup.config.sockets.is_for(place, worker.get());
    let has_all_listeners = (0..setup.listeners.len()).all(is_for_it);
    let state = Arc::new(Worker {
        id: worker.get(),
        slot,
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        listeners: setup
            .listeners
            .iter_mut()
            .enumerate()
            .map(|(place, listener)| {
                let own = inherit(listener, &setup.config)?;
                // What is left out is closed.
                Ok(setup.config.sockets.is_for(place, worker.get()).then_some(own))
            })
            .filter_map(Result::transpose)
            .collect::<anyhow::Result<_>>()?,
        link: setup.link.clone(),
        peers: Peers::of(has_all_listeners)?,
        handed_over: Arc::default(),
        lost_links: Mutex::default(),
        connections: Connections::default(),
        open: AtomicUsize::new(0),
        // The application has files and connections too.
        cap: ClientCap::new(links + for_files() * 2),
        is_full: AtomicBool::new(false),
        accept_failed: AtomicBool::new(false),
        swept: AtomicU64::new(0),
        listening: Mutex::new(false),
        leaving: AtomicBool::new(false),
        declining: AtomicBool::new(false),
        leaving_threads: AtomicU32::new(0),
        stop: stop::on_terminate().context("cannot watch for the order to leave")?,
        notices: Notices::new(setup.notices.take()?, worker, child, &setup.config)?,
        request_log: setup.request_log.as_mut().map(|fd| fd.take().map(File::from)).transpose()?.map(Arc::new),
        liveness: setup.liveness.take()?,
        body_limits: BodyLimits::new(setup.config.post_buffering, setup.config.limit_post),
        streams: Streams::new(setup.config.threads),
        config: std::mem::take(&mut setup.config),
        temp: TempFiles::new(setup.temp.clone(), Arc::clone(&scoreboard), TempHolder::Worker(slot)),
        parked: ParkedMemory::default(),
        routes: routes.map(RouteTable::new).map(Mutex::new),
        traces,
        scoreboard,
        has_all_listeners,
        kept_in_child: Mutex::default(),
    });
    if state.config.slow_requests.gc_stats {
        garbage::watch(py, &state.scoreboard, slot).context("gc-stats: cannot watch the garbage collector")?;
    }
    release::release_in_children(py, &state)?;
    streams::watch_forks(py, &state.streams)?;
    state.watch()?;
    let rules = routing::compile(&state.config)?;
    let threads = state.config.threads;
    let multiprocess = state.config.processes > 1;
    let patience = Duration::from_secs(state.config.socket_timeout.into());
    let websockets = websocket::Terms { rules: state.config.websockets.rules, patience };
    let mut threads = ThreadIndex::first(threads)
        .map(|id| {
            let gateway =
                Gateway::new(py, application.clone_ref(py), threads > 1, multiprocess, state.config.path_normalize)?
                    .showing(state.config.show_request)
                    .catching(state.config.reactions.catch_exceptions)
                    .routing(routing::of_thread(py, worker, &rules, &state.config)?)
                    .with_websockets(websockets)
                    .counting_routes(py, state.routes.is_some());
            WorkerThread::new(id, Arc::clone(&state), gateway)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    for thread in &mut threads {
        thread.link_to_router();
    }
    stacks::handler::install(py, OwnPart::map(memory, state.scoreboard.layout(), slot)?)
        .context("cannot watch for the signal that asks for stacks")?;
    state.scoreboard.worker(state.slot).set_accepting(true);
    if state.config.harakiri.is_some() {
        harakiri::install(py, state.config.harakiri_verbose).context("harakiri: cannot watch for its signals")?;
    }
    let is_one = worker == WorkerId::FIRST;
    for (phase, is_due) in [
        (Phase::Accepting, true),
        (Phase::AcceptingOnce, is_first),
        (Phase::Accepting1, is_one),
        (Phase::Accepting1Once, is_one && is_first),
    ] {
        if is_due && !run_hooks(phase, &state.config) {
            api::finish(py);
            return Ok(Next::Exit(EXIT_HOOK_FAILED));
        }
    }
    orders::memory::remember_start();
    give_back::pages();
    state.notices.tell_ready()?;
    let Some(mut first) = (!threads.is_empty()).then(|| threads.remove(0)) else { return Ok(Next::Exit(0)) };
    let others: Vec<_> = threads
        .into_iter()
        .map(|mut thread| {
            let name = crate::ipc::harakiri::thread_name(worker, thread.id);
            threads::builder(name).spawn(move || {
                let _serving = Serving(Arc::clone(&thread.worker));
                Python::attach(|py| {
                    threads::begin(py);
                    thread.serve(py).map(drop)
                })
            })
        })
        .collect::<Result<_, _>>()
        .context("cannot start the worker's threads")?;
    system_limits::limit_processes(&first.worker.config.system);
    let served = {
        let _serving = Serving(Arc::clone(&first.worker));
        first.serve(py)
    };
    let mut outcome = match served {
        Ok(Some(reforked)) => {
            setup.config.clone_from(&state.config);
            // What was the worker's goes: it is `/dev/null` in this process, and its counts are private.
            drop((first, state));
            return Ok(Next::ForkServer(Box::new(reforked.into_fork_server(py, setup, application)?)));
        }
        outcome => outcome.map(drop),
    };
    for other in others {
        let joined = py.detach(|| other.join());
        outcome = outcome.and(joined.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked"))));
    }
    state.end_watcher();
    api::finish(py);
    log_limit::finish();
    if let Err(error) = outcome {
        error!("worker {worker}: {error:#}");
        return Ok(Next::Exit(1));
    }
    Ok(Next::Exit(0))
}

/// What each thread runs; the worker leaves when it returns.
struct Serving(Arc<Worker>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.leave();
    }
}

fn inherit(listener: &mut InheritedListener, config: &Config) -> anyhow::Result<OwnListener> {
    let socket = Listener::new(listener.fd.take()?, &listener.address)
        .with_context(|| format!("cannot accept on {}", listener.address))?;
    // The uwsgi protocol is a proxy's, wherever it is spoken.
    let is_direct = listener.protocol == SocketProtocol::Http && socket.is_direct();
    let rates = MinRates::new(&config.min_rates, is_direct);
    Ok(OwnListener { socket, protocol: listener.protocol, rates })
}
