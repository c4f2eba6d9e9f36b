//! Requests by route: what the application calls a request's route, or the pattern of its path.
//!
//! Each worker process has a table of its own in shared memory ([`cells`]), which it alone writes ([`table`]). The master
//! reads what has come since it read last ([`reader`]), adds that to the server's rows ([`book`]), and reads once more when
//! the process has been reaped; so a crash loses no count. Memory and time are bounded on both sides, whatever paths
//! clients make up: a route has to come again and again before it gets a row that another has.

mod book;
mod cells;
mod counts;
mod latencies;
mod probation;
mod reader;
mod table;

pub use self::book::RouteBook;
pub(crate) use self::book::describe_exception;
pub use self::cells::{RouteMemory, RouteTableCells};
pub use self::counts::{RouteCounts, RouteDelta, Slowest};
pub use self::table::{Finished, RouteTable};
