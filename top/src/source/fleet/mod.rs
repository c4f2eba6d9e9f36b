//! Many servers at once: which there are, and what each answers.
//!
//! Of a server in a fleet only a row is wanted, so that of a document only what a row shows is read. Whoever looks closer at
//! one server reads it as a server alone ([`Server::address`]).

mod discovery;
mod engine;
mod exchange;
mod members;
mod names;
mod read;
mod sample;
mod schedule;
mod scraped;

pub(crate) use sample::{Latency, Run, ServerSample};

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;
use std::{fmt, io, thread};

use self::discovery::{Named, watch_file, watch_name};
use self::engine::{Command, Engine, Mailbox, Origin, Settings};
use self::scraped::Scraped;
use super::prometheus::Client;
use super::{Clock, Monotonic, Place, SourceError, Target, Tunnels};
use rwsgi_assertions::Percentiles;

/// A server of a fleet: given in the order in which servers become known, and to no other server afterwards. A server that goes
/// and comes back at the same address may have another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServerId(pub(crate) u32);

/// What is known of a server before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// What it is called: its name in a list of targets, its `instance` in Prometheus, or its address as it was typed.
    pub(crate) name: String,
    /// What its source says of it besides, by name; without `instance`, and without what all servers have alike.
    pub(crate) labels: Vec<(String, String)>,
    /// Where its stats can be read, for looking closer; `None` where nobody knows.
    pub(crate) address: Option<Target>,
}

/// What a source of a fleet tells, in the order in which it happened. Whoever draws takes these in with
/// [`Fleet::take`](crate::model::fleet::Fleet::take), and nothing else reaches a fleet.
#[derive(Debug)]
pub(crate) enum FleetEvent {
    /// A server that is watched from now on.
    Joined(ServerId, Server),
    /// A server that its source names no more, and that is not asked any more.
    Left(ServerId),
    /// A server answered: counters since its start, to be subtracted.
    Sample(ServerId, Box<ServerSample>),
    /// A source that subtracts itself, as Prometheus does, tells what a server did lately.
    Figures(ServerId, Box<Figures>),
    /// A server that has been asked, and has not answered when it was to be asked again.
    Late(ServerId, Monotonic),
    /// A server could not be read.
    Failed(ServerId, Monotonic, SourceError),
    /// Percentiles of all servers of a source together, where it gives no histograms of each; `None` when it has none now.
    Together(Arc<str>, Option<Percentiles>),
    /// What a server did before rtop began, the oldest first: how long before that, and what (their own `at` is of no
    /// meaning). It is older than all else that is known of it.
    Past(ServerId, Vec<(Duration, Figures)>),
    /// Whether what names the servers can be read: what is wrong with it, or that all is well again. Servers that are known
    /// already stay.
    Source(Arc<str>, Option<String>),
    /// A poll interval is over: every server was asked, and has answered, failed, or is late.
    Sweep(Monotonic),
}

/// What can be told of a server as one number, and is kept over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Figure {
    /// Requests per second.
    Rps,
    /// Share of requests that failed, 0 to 1: answered with 5xx; raised an exception, where the server does not count those.
    Errors,
    /// Time of a request on average, µs: what uWSGI can be compared by.
    Mean,
    /// Percentiles of requests, µs.
    P50,
    /// 95 of 100 took at most this long.
    P95,
    /// 99 of 100 took at most this long.
    P99,
    /// Share of all threads' time spent in requests, 0 to 1.
    Utilization,
    /// Busy threads and waiting requests, by threads: 1 when all are busy and nothing waits.
    Saturation,
    /// Connections and requests that wait.
    Waiting,
    /// Resident memory of all workers, bytes.
    Rss,
}

impl Figure {
    /// Every figure, in the order of [`Figures::values`].
    pub(crate) const ALL: [Self; 10] = [
        Self::Rps,
        Self::Errors,
        Self::Mean,
        Self::P50,
        Self::P95,
        Self::P99,
        Self::Utilization,
        Self::Saturation,
        Self::Waiting,
        Self::Rss,
    ];
}

/// A server at one moment, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// When.
    pub(crate) at: Monotonic,
    /// By [`Figure`]; `None` where it is not told, or not known yet.
    pub(crate) values: [Option<f64>; Figure::ALL.len()],
    /// The generation that serves.
    pub(crate) generation: Option<u32>,
}

impl Figures {
    /// One of them.
    pub(crate) fn get(&self, figure: Figure) -> Option<f64> {
        self.values[figure as usize]
    }

    /// Sets one of them; what is no number is not known.
    pub(crate) fn set(&mut self, figure: Figure, value: Option<f64>) {
        self.values[figure as usize] = value.filter(|value| value.is_finite());
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Gives each server its number.
#[derive(Clone, Debug, Default)]
struct Ids(Arc<AtomicU32>);

impl Ids {
    fn next(&self) -> ServerId {
        ServerId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Takes events; `false` when nobody wants any more.
pub(crate) type DeliverEvents = Box<dyn FnMut(Vec<FleetEvent>) -> bool + Send>;

/// Watches a place until what it is given is closed.
type Watch = Box<dyn FnOnce(&Receiver<()>) + Send>;

/// How a fleet is asked.
#[derive(Debug)]
pub(crate) struct FleetOptions {
    /// From one poll of a server to the next.
    pub(crate) interval: Duration,
    /// How long a server has to answer.
    pub(crate) timeout: Duration,
    /// What samples are stamped by.
    pub(crate) clock: Clock,
    /// The ways to servers of other machines.
    pub(crate) tunnels: Arc<Tunnels>,
}

/// Owner of all that asks a fleet; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct FleetSource {
    mailbox: Mailbox,
    /// Those who watch a place end when these are closed.
    _ends: Vec<Sender<()>>,
    engine: Option<thread::JoinHandle<()>>,
}

impl FleetSource {
    /// Starts asking the servers that `places` name. Events come in batches, in the order in which they happened.
    ///
    /// # Errors
    /// When a thread cannot be started, or the system gives nothing to wait for sockets with.
    pub(crate) fn start(places: &[Place], options: FleetOptions, deliver: DeliverEvents) -> io::Result<Self> {
        let FleetOptions { interval, timeout, clock, tunnels } = options;
        let ids = Ids::default();
        let origins = places.iter().map(|place| Origin {
            label: place.to_string().into(),
            lingers: matches!(place, Place::Dns(_)),
            has_told: false,
            trouble: None,
        });
        let asks_prometheus = places.iter().any(|place| matches!(place, Place::Prometheus(_)));
        let patience = if asks_prometheus { timeout.max(scraped::PATIENCE) } else { timeout };
        let settings = Settings { interval, timeout, patience, clock, ids: ids.clone(), tunnels };
        let (engine, mailbox) = Engine::new(settings, origins.collect(), mpsc::channel(), deliver)?;
        let mut ends = Vec::new();
        for (number, place) in places.iter().enumerate() {
            let post = mailbox.clone();
            let named = move |read| {
                post.send(Command::Named(number, read));
            };
            let watch: Watch = match place.clone() {
                Place::Server(spot) => {
                    named(Ok(vec![Named::by_address(spot)]));
                    continue;
                }
                Place::File(path) => Box::new(move |end| watch_file(&path, end, named)),
                Place::Dns(target) => Box::new(move |end| watch_name(&target, end, named)),
                Place::Prometheus(prometheus) => {
                    let label: Arc<str> = prometheus.to_string().into();
                    let client = Client::new(prometheus, timeout.max(scraped::PATIENCE));
                    let mut scraped = Scraped::new(client, label, ids.clone(), clock);
                    let post = mailbox.clone();
                    Box::new(move |end| {
                        scraped.watch(interval, end, |events| {
                            post.send(Command::Relay(number, events));
                        });
                    })
                }
            };
            let (sender, end) = mpsc::channel();
            thread::Builder::new().name("places".into()).spawn(move || watch(&end))?;
            ends.push(sender);
        }
        let thread = thread::Builder::new().name("fleet".into()).spawn(move || engine.run())?;
        Ok(Self { mailbox, _ends: ends, engine: Some(thread) })
    }

    /// Asks every server each `interval` from now on.
    pub(crate) fn set_interval(&self, interval: Duration) {
        self.mailbox.send(Command::Interval(interval));
    }
}

impl Drop for FleetSource {
    fn drop(&mut self) {
        self.mailbox.send(Command::Stop);
        if let Some(engine) = self.engine.take() {
            let _ = engine.join();
        }
    }
}
