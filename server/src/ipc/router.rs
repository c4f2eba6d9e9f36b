//! What the master orders the http router to do, after its [`super::Setup`].

use serde::{Deserialize, Serialize};

use rwsgi_config::{Config, MinRates};
use rwsgi_protocol::path::PathNormalize;
use rwsgi_stats::Shown;

/// An order to the http router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RouterOrder {
    /// A reload has changed the options: from the next request on these hold.
    Limits(RouterLimits),
    /// The memory file has new certificates: the next connections get them.
    Certificates,
}

/// The options that the http router itself follows. Those of sizes are in bytes, those of times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouterLimits {
    /// `http-timeout`
    pub http_timeout: u32,
    /// `http-keepalive`
    pub http_keepalive: u32,
    /// `buffer-size`
    pub buffer_size: usize,
    /// `limit-post`; 0 for no limit.
    pub limit_post: u64,
    /// `post-buffering`
    pub post_buffering: u64,
    /// `body-min-rate`, `response-min-rate`, `min-rate-grace`
    pub min_rates: MinRates,
    /// `show-request`
    pub show_request: Shown,
    /// `path-normalize`
    pub path_normalize: PathNormalize,
    /// Whether there is a `drain-delay`.
    pub drains: bool,
}

impl RouterLimits {
    /// As a configuration has them.
    #[must_use]
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            http_timeout: config.http_timeout,
            http_keepalive: config.http_keepalive,
            buffer_size: config.buffer_size,
            limit_post: config.limit_post,
            post_buffering: config.post_buffering,
            min_rates: config.min_rates,
            show_request: config.show_request,
            path_normalize: config.path_normalize,
            drains: config.probes.drain_delay > 0,
        }
    }
}
