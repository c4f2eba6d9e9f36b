//! The cells of the scoreboard: what their one writer stores and the master reads.
//!
//! Every field is an atomic that exactly one thread writes, with relaxed loads and stores: no lock prefix, no system
//! call, no allocation. What a reader must see together is kept by a sequence number, which is odd while a request is
//! held. All-zero memory is a valid, empty cell.
//!
//! A second writer would lose counts and break nothing. A foreign one (a wild pointer of the application's)
//! may leave any bytes: so readers doubt what they find, and say [`Corrupt`] of what no writer of ours leaves.

mod ahead;
mod corrupt;
mod counters;
mod errors;
mod exception;
mod latencies;
mod limits;
mod phases;
mod router;
mod slow;
mod spooler;
mod text;
mod thread;
mod worker;

pub use self::ahead::AheadCells;
pub use self::corrupt::Corrupt;
pub use self::counters::Counters;
pub(super) use self::counters::add;
pub use self::errors::{ErrorCells, Errors, OTHER_ERRORS};
pub use self::exception::{ExceptionCell, ExceptionReport};
pub use self::latencies::{Latencies, LatencyCounts};
pub use self::limits::LimitsCell;
pub use self::phases::{PhaseCell, PhaseCounts, PhaseNanos};
pub use self::router::{RouterCell, RouterSample};
pub use self::slow::{SlowControl, SlowEnd, SlowEntry, SlowReport, SlowRing, SlowTaken};
pub use self::spooler::{HeldJob, SpoolerCell, SpoolerCounters, Verdict};
pub use self::text::SharedText;
pub(super) use self::thread::protocol_of;
pub use self::thread::{HEAD_KEPT, HeldRequest, Outcome, PEER_KEPT, ThreadCell, ThreadSample};
pub use self::worker::{GcCounts, WorkerCell};
