//! The language between `rwsgi` and `rtop`: the stats document, the latency codec, socket addresses.
//!
//! No I/O happens here. [`Snapshot`] is the document that a stats server sends, a superset of what uWSGI 2.0's
//! stats server emits, so that `uwsgitop` reads `rwsgi` and `rtop` reads uWSGI.

mod address;
pub mod latency;
mod schema;

pub use address::{Address, AddressError};
pub use schema::*;
