//! The control protocol: what `rwsgi ctl` and `rtop` say on the control socket, a line of JSON for each message.
//!
//! A client sends one [`Request`] after another. The server answers each with one [`Reply`], after any number of
//! [`Reply::Progress`]. `docs/control.md` has the protocol for programs in other languages.

mod inspect;
mod stacks_text;

use serde::{Deserialize, Serialize};

pub use self::inspect::*;

/// The longest request line that a server reads, bytes.
pub const LONGEST_REQUEST: usize = 16 * 1024;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The stats document: answered with [`Answer::Stats`].
    Stats,
    /// What each thread executes: answered with [`Answer::Stacks`].
    Stacks {
        /// Of this worker alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<u32>,
    },
    /// Samples the threads in requests for a time: answered with [`Answer::Profile`].
    Profile {
        /// For how long.
        seconds: f64,
        /// Samples of each thread a second.
        #[serde(default = "default_rate")]
        rate: u32,
    },
    /// A new generation for all workers.
    Reload {
        /// How it takes over.
        #[serde(default)]
        how: ReloadKind,
    },
    /// A new generation for a few workers: undone after this time unless `keep` comes before.
    Canary {
        /// How many workers.
        workers: u32,
        /// How long it is tried.
        seconds: f64,
    },
    /// The canary's generation is for all workers.
    CanaryKeep,
    /// The generation before the canary's is for all workers.
    CanaryUndo,
    /// A worker's process is replaced by another of the same generation.
    Recycle {
        /// The worker.
        worker: u32,
    },
    /// A worker takes no new requests, until `Undrain` or its process ends.
    Drain {
        /// The worker.
        worker: u32,
    },
    /// A worker takes requests again.
    Undrain {
        /// The worker.
        worker: u32,
    },
    /// How many workers there are to be.
    Workers {
        /// From 1 to the number that the server was started with.
        count: u32,
    },
    /// What the log tells.
    LogLevel {
        /// `error`, `warn`, `info` or `debug`.
        level: String,
    },
    /// From when on a request is slow.
    SlowRequest {
        /// 0 for never.
        micros: u64,
    },
    /// Memory of a worker.
    Memory {
        /// The worker.
        worker: u32,
        /// What is asked.
        what: MemoryRequest,
    },
    /// New workers are forked from a warmed one.
    Refork {
        /// Which; the one with most requests without this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<u32>,
    },
}

impl Request {
    /// Whether it changes something of the server, rather than looking at it.
    #[must_use]
    pub fn is_action(&self) -> bool {
        match self {
            Self::Stats | Self::Stacks { .. } | Self::Profile { .. } => false,
            Self::Memory { what, .. } => matches!(what, MemoryRequest::TraceStart | MemoryRequest::TraceStop),
            _ => true,
        }
    }
}

/// How a new generation takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadKind {
    /// Every worker has a successor started at once.
    #[default]
    Rolling,
    /// One worker after another.
    Chain,
    /// As rolling; the old ones are not given time to finish.
    Brutal,
}

/// What is asked of a worker's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryRequest {
    /// Objects by type, and by how much they grew since they were counted last.
    Types,
    /// Begins to record where memory is allocated.
    TraceStart,
    /// Lines that allocate, since it was begun.
    Trace,
    /// Ends that, and forgets what was recorded.
    TraceStop,
    /// What `gc.freeze`, loading before the fork and recycling would save.
    Savings,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// More follows.
    Progress(String),
    /// It was done.
    Done(Answer),
    /// It was not done: why, and what to do.
    Failed(String),
}

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What was done, in words.
    Text(String),
    /// The stats document.
    Stats(Box<crate::Snapshot>),
    /// What each thread executes.
    Stacks(Stacks),
    /// A profile.
    Profile(Profile),
    /// A worker's memory.
    Memory(MemoryReport),
}

const fn default_rate() -> u32 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_line_that_a_person_can_write() {
        for (line, request) in [
            (r#"{"do":"stacks"}"#, Request::Stacks { worker: None }),
            (r#"{"do":"profile","seconds":2}"#, Request::Profile { seconds: 2.0, rate: 100 }),
            (r#"{"do":"reload"}"#, Request::Reload { how: ReloadKind::Rolling }),
            (r#"{"do":"canary","workers":1,"seconds":30}"#, Request::Canary { workers: 1, seconds: 30.0 }),
            (
                r#"{"do":"memory","worker":2,"what":"trace-start"}"#,
                Request::Memory { worker: 2, what: MemoryRequest::TraceStart },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        }
        assert!(
            serde_json::from_str::<Request>(r#"{"do":"stacks","wroker":1}"#).is_err(),
            "a misspelled key is an error"
        );
    }
}
