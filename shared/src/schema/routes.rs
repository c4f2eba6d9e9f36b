//! Which URL costs: requests grouped by route.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LastException, Responses};

/// The name of the row that has what belongs to no row of its own.
pub const OTHER_ROUTE: &str = "(other)";

/// The requests of one route, of all workers since the server started. A route that had no requests for long may give its
/// row to another: then its counts are added to [`OTHER_ROUTE`], and it begins at 0 when it comes back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Route {
    /// The application's name of the route, or the path with `{}` in the place of its variable parts, such as
    /// `/users/{}/orders`; `(other)` for all that have no row.
    pub route: String,
    /// The application has named it.
    pub named: bool,
    /// Requests completed.
    pub requests: u64,
    /// Time in its completed requests, µs.
    pub busy_time: u64,
    /// Latency of its requests: HDR histogram in µs, V2 encoding, base64.
    pub latency: String,
    /// Responses by class.
    pub responses: Responses,
    /// Requests in which the application raised an exception.
    pub exceptions: u64,
    /// Bytes sent to clients, heads included.
    pub tx: u64,
    /// Time that its requests waited for Python's global lock before the application was called, µs.
    pub gil_wait: u64,
    /// Requests around which resident memory was read (in workers of one thread alone).
    pub memory_samples: u64,
    /// By how much resident memory grew in those, bytes; negative when it shrank.
    pub memory_growth: i64,
    /// The last exception of its requests; null for none.
    pub last_exception: Option<LastException>,
    /// Its slowest request of the last minutes; null for none.
    pub slowest: Option<SlowestRequest>,
}

/// The slowest request of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SlowestRequest {
    /// When it ended, unix µs.
    pub when: u64,
    /// How long it took, µs.
    pub elapsed: u64,
    /// Method and URI, without the values of its query.
    pub request: String,
}
