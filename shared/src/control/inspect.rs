//! What the server tells of the inside of its workers: stacks, profiles, memory.

use serde::{Deserialize, Serialize};

/// A line of Python code that a thread was in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Frame {
    /// The function's (qualified) name.
    pub function: String,
    /// The file, as Python has it.
    pub file: String,
    /// The line, 0 when it is unknown.
    pub line: u32,
}

/// What a thread was doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThreadState {
    /// It ran with Python's global lock: Python code, or C code that does not let it go.
    #[default]
    Running,
    /// It ran code that has let the global lock go.
    Native,
    /// It waited for the global lock.
    Gil,
    /// It waited for another lock.
    Lock,
    /// It waited for a database, as its frames or the peer of its socket tell.
    Database,
    /// It waited for something else: a socket, a file, a time.
    Waiting,
}

/// What the threads of workers execute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stacks {
    /// The threads, by worker and core; those that the application has started behind the worker's own.
    pub threads: Vec<ThreadStack>,
}

/// A thread and its stack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThreadStack {
    /// The worker.
    pub worker: u32,
    /// Its process.
    pub pid: i32,
    /// The system's number of the thread.
    pub tid: i32,
    /// Its core; none for a thread that the application has started.
    pub core: Option<u32>,
    /// The thread's name for the system.
    pub name: String,
    /// What it was doing; none when that could not be told.
    pub state: Option<ThreadState>,
    /// The request: method and URI, without the values of its query; empty when it is in none.
    pub request: String,
    /// The request's route, empty when it is not known.
    pub route: String,
    /// For how long the request has run, µs.
    pub elapsed: u64,
    /// The frames, the innermost first.
    pub frames: Vec<Frame>,
    /// Why there are none; empty when there are.
    pub problem: String,
}

/// Where threads in requests spent their time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// How long was sampled, µs.
    pub micros: u64,
    /// Samples of each thread a second.
    pub rate: u32,
    /// Samples of threads in requests.
    pub samples: u64,
    /// Samples that were due and could not be taken.
    pub missed: u64,
    /// All frames that occur.
    pub frames: Vec<Frame>,
    /// The stacks, the most frequent first.
    pub stacks: Vec<ProfileStack>,
}

/// A stack, and how often it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfileStack {
    /// The route of the request, empty when it is not known.
    pub route: String,
    /// What the thread was doing.
    pub state: ThreadState,
    /// Places in `frames`, the outermost first.
    pub frames: Vec<u32>,
    /// Samples.
    pub count: u64,
}

/// What is known of a worker's memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryReport {
    /// The worker.
    pub worker: u32,
    /// Its process.
    pub pid: i32,
    /// For how long its application was held up to find this out, µs.
    pub took: u64,
    /// What the numbers are, and what they cost, in a sentence.
    pub note: String,
    /// The rows, the largest first.
    pub rows: Vec<MemoryRow>,
}

/// A type, a line, or a measure, and what it has of the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryRow {
    /// Its name: a type, `file:line`, or what could be done.
    pub name: String,
    /// How many there are.
    pub count: u64,
    /// How many more than before.
    pub count_growth: i64,
    /// Bytes.
    pub bytes: u64,
    /// How many more than before.
    pub bytes_growth: i64,
}
