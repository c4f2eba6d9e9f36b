//! Many servers at once: which there are, and what each answers.
//!
//! Of a server in a fleet only a row is wanted, so that of a document only what a row shows is read. Whoever looks closer at
//! one server reads it as a server alone ([`Server::address`]).

mod sample;

pub(crate) use sample::{Latency, Run, ServerSample};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Monotonic, SourceError, Target};
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
    /// Percentiles of all servers together, of a source that gives no histograms of each.
    Together(Percentiles),
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
