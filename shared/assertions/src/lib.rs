//! What must hold of a server, such as `p99 < 50ms`: read, measured over a window, judged. `rtop` and `rwsgi ctl` share it.
//!
//! No I/O happens here.

mod assertion;
mod counts;
mod generation;
mod metrics;
mod noise;
pub mod numbers;
mod route;
mod servers;
mod window;

pub use assertion::{Assertion, AssertionError};
pub use counts::{Counts, Percentiles};
pub use generation::Pair;
pub use metrics::{
    METRICS, Metric, Missing, ROUTE_METRICS, Rule, SERVER_METRICS, Teller, Unit, list_metrics, measure, metric,
    route_metric,
};
pub use noise::{Comparison, Difference, FEWEST, Judged, Outcome, Sureness, by_weight, compare, judge};
pub use route::{RouteSum, Routes};
pub use servers::{AGGREGATES, Aggregate, Aggregated, States};
pub use window::{Told, Window};
