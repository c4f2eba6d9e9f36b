//! The loop's state: one owner of everything. What is done with it is in the modules above, one concern each.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::alarm_lines::Alarms;
use super::app_signals::AppSignals;
use super::canary::Canary;
use super::children::{Child, Children};
use super::control::ControlState;
use super::cron_commands::Crons;
use super::daemons::running::Daemons;
use super::events::Events;
use super::generation::Generations;
use super::hook_queue::HookQueue;
use super::launcher::Launcher;
use super::listeners::Listener;
use super::load::LoadWatch;
use super::log::Log;
use super::otlp::Otlp;
use super::out_of_memory::OomWatch;
use super::post::Post;
use super::private_socket::PrivateSocket;
use super::queues::Queues;
use super::readiness::{ReloadCount, SaturationWatch};
use super::refork::Reforks;
use super::slow_requests::SlowRequests;
use super::stacks::{Profile, Questions};
use super::supervisor::Supervisor;
use super::timers::Timers;
use super::worker_orders::WorkerOrders;
use crate::cgroup::ControlGroup;
use crate::clock::{MonotonicNanos, UnixMicros};
use crate::ids::{ChildId, GenerationNumber, ThreadIndex, WorkerId};
use crate::io::temp::TempPlace;
use crate::share::Share;
use crate::stats::generations::GenerationHistory;
use crate::stats::routes::RouteBook;
use crate::stats::scoreboard::Scoreboard;
use crate::stats::state::SnapshotState;
use crate::stats::totals::Totals;
use crate::vassal::Link;
use rwsgi_config::Config;
use rwsgi_protocol::SocketProtocol;

/// A request that was ended, of a worker's process that has it still.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) thread: ThreadIndex,
    pub(super) started: MonotonicNanos,
    /// When it was ended.
    pub(super) at: MonotonicNanos,
}

/// Reads the configuration again, for a reload.
pub(crate) type Reread = Box<dyn Fn() -> anyhow::Result<Config>>;

/// The loop's state.
pub(super) struct Master {
    pub(super) config: Config,
    pub(super) launcher: Launcher,
    pub(super) reread: Reread,
    pub(super) sockets: Sockets,
    pub(super) scoreboard: Scoreboard,
    /// What threads are asked with.
    pub(super) stacks: Questions,
    /// The profile that is being taken.
    pub(super) profile: Option<Profile>,
    /// Requests by route, unless they are not counted.
    pub(super) routes: Option<RouteBook>,
    /// What is exported to OpenTelemetry, if anything is.
    pub(super) otlp: Option<Otlp>,
    /// Where temporary files are.
    pub(super) temp: TempPlace,
    /// What the application's processes share.
    pub(super) share: Share,
    /// Every process of ours.
    pub(super) children: Children,
    /// What each worker's past processes add up to; that of worker `n` is at `n - 1`.
    pub(super) totals: Vec<Totals>,
    pub(super) timers: Timers,
    /// The loads of the application.
    pub(super) generations: Generations,
    /// What the last of them have done.
    pub(super) generation_history: GenerationHistory,
    /// The generation that is tried on a few workers.
    pub(super) canary: Option<Canary>,
    /// Our end of the http router's channel, while it runs.
    pub(super) router_channel: Option<OwnedFd>,
    /// What the http router proves itself with, where it speaks TLS.
    pub(super) certificates: Option<super::certificates::Certificates>,
    /// Workers that a chain reload has still to replace, one after another.
    pub(super) chain: Option<VecDeque<WorkerId>>,
    /// The present reload gives nobody time to finish.
    pub(super) haste: bool,
    /// A worker has said that it serves, at any time since the start.
    pub(super) any_ready: bool,
    /// Requests beyond `harakiri` that workers hold.
    pub(super) overdue: HashMap<ChildId, Vec<Ended>>,
    /// Slow requests.
    pub(super) slow: SlowRequests,
    /// For `cheaper` and `idle`.
    pub(super) load: LoadWatch,
    /// The application's signals.
    pub(super) app_signals: AppSignals,
    /// Programs beside the server.
    pub(super) daemons: Daemons,
    /// Commands at times of the calendar.
    pub(super) crons: Crons,
    /// The spoolers' queues, as they were counted last.
    pub(super) queues: Queues,
    /// Hooks that wait for their turn.
    pub(super) hook_queue: HookQueue,
    pub(super) alarms: Alarms,
    pub(super) supervisor: Supervisor,
    /// The emperor that this server is a vassal of.
    pub(super) own_emperor: Option<Link>,
    /// Our end of the channel of the emperor beside this server, while it runs.
    pub(super) emperor_channel: Option<OwnedFd>,
    /// The log file, when the master writes it.
    pub(super) log: Option<Log>,
    /// What goes with the control socket.
    pub(super) control: ControlState,
    pub(super) phase: Phase,
    /// It was told to stop, and still serves until balancers send requests elsewhere.
    pub(super) is_draining: bool,
    /// For `ready-saturation`.
    pub(super) saturation: SaturationWatch,
    pub(super) exit_status: i32,
    /// How reloads have ended.
    pub(super) reload_count: ReloadCount,
    /// What limits this server, with others of its container.
    pub(super) control_group: ControlGroup,
    pub(super) oom: OomWatch,
    /// What workers were asked, and have not answered.
    pub(super) worker_orders: WorkerOrders,
    /// The fork server that a worker forks.
    pub(super) refork: Reforks,
    /// What is remembered from one snapshot to the next.
    pub(super) snapshot_state: SnapshotState,
    pub(super) started_at: UnixMicros,
    pub(super) events: Events,
}

/// What other processes inherit of the master's.
pub(super) struct Sockets {
    /// That workers accept from.
    pub(super) workers: Vec<(Listener, SocketProtocol)>,
    /// That the http router accepts from.
    pub(super) router: Vec<Listener>,
    /// Of probes.
    pub(super) probes: Vec<Listener>,
    /// That the workers meet the router at, if there is one.
    pub(super) link: Option<PrivateSocket>,
    /// Every process sees the master's end at the other end of this pipe.
    pub(super) liveness: OwnedFd,
    /// Where a child says how it stands.
    pub(super) notices: OwnedFd,
    /// The call socket, the master's end.
    pub(super) calls: OwnedFd,
}

impl Sockets {
    /// Every socket that clients connect to.
    pub(super) fn public(&self) -> impl Iterator<Item = &Listener> {
        self.workers.iter().map(|(listener, _)| listener).chain(&self.router)
    }
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Not stopping.
    Serving,
    /// The router finishes what it has; the workers still serve it.
    RouterLeaves,
    /// The workers finish what they have.
    WorkersLeave,
    /// Everything was ordered to end at once.
    Killed,
}

impl Master {
    /// How long a process that is ordered to leave has for its requests (`reload-mercy`).
    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(self.config.reload_mercy.into())
    }

    /// What a worker's past processes add up to. A worker that the server does not have has none.
    pub(super) fn totals_of(&mut self, worker: WorkerId) -> Option<&mut Totals> {
        self.totals.get_mut(worker.index())
    }

    /// Every worker's number.
    pub(super) fn worker_ids(&self) -> impl DoubleEndedIterator<Item = WorkerId> + use<> {
        WorkerId::first(self.config.processes)
    }

    /// The generation that serves, for its fork server is there: new processes can be forked from it.
    pub(super) fn fork_server(&self) -> Option<&Child> {
        let child = self.children.fork_server(self.generations.current()?)?;
        child.is_ready().then_some(child)
    }

    /// The generation that a process for a post is forked from, when its fork server is there: a worker of a canary keeps
    /// its generation, and the others' is the canary's when their own can fork no more.
    pub(super) fn generation_to_fork(&self, post: Post) -> Option<GenerationNumber> {
        let is_there = |number: &GenerationNumber| self.children.fork_server(*number).is_some_and(Child::is_ready);
        let serving = self.generations.current().filter(is_there);
        match (&self.canary, post) {
            (Some(canary), Post::Worker(worker)) if canary.has(worker) => Some(canary.number()).filter(is_there),
            (Some(canary), Post::Worker(_)) => serving.or_else(|| Some(canary.number()).filter(is_there)),
            _ => serving,
        }
    }
}
