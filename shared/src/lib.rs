//! The language between `rwsgi` and `rtop`: the stats document, the latency codec, socket addresses, what may be shown.
//!
//! No I/O happens here. [`Snapshot`] is the document that a stats server sends, a superset of what uWSGI 2.0's
//! stats server emits, so that `uwsgitop` reads `rwsgi` and `rtop` reads uWSGI.

mod address;
pub mod control;
mod controls;
pub mod latency;
mod privacy;
mod saturation;
mod schema;

pub use address::{Address, AddressError};
pub use controls::{is_control, write_json};
pub use privacy::Shown;
pub use saturation::saturation;
pub use schema::*;
