//! What must hold of a server, such as `p99 < 50ms`: read, measured over a window, judged. `rtop` and `rwsgi ctl` share it.
//!
//! No I/O happens here.

mod assertion;
mod counts;
mod metrics;
pub mod numbers;
mod window;

pub use assertion::{Assertion, AssertionError};
pub use counts::{Counts, Percentiles};
pub use metrics::{METRICS, Metric, Missing, Rule, Teller, Unit, list_metrics, measure, metric};
pub use window::{Told, Window};
