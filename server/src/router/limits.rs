//! What the router may keep and for how long.

use crate::io::body::BodyLimits;
use crate::io::pace;
use crate::ipc::RouterLimits;
use rwsgi_config::{Config, MinRates};
use rwsgi_protocol::link::FAST_NS;
use rwsgi_protocol::path::PathNormalize;
use rwsgi_stats::Shown;

/// What the router may keep and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// `--http-timeout`, seconds: for a whole head, and for any progress of a body or of a response that the client
    /// takes.
    pub(super) timeout: u32,
    /// `--http-keepalive`, seconds: for the next request on a connection; 0 closes after each.
    pub(super) keepalive: u32,
    /// `--buffer-size`: the largest head, bytes.
    pub(super) buffer_size: usize,
    /// `--limit-post` and `--post-buffering`.
    pub(super) body: BodyLimits,
    /// `--*-min-rate`.
    pub(super) rates: MinRates,
    /// `--path-normalize`
    pub(super) path_normalize: PathNormalize,
    /// `--listen`: requests that wait for a thread.
    pub(super) queue: usize,
    /// `--show-request`: what the log tells of a request.
    pub(super) show_request: Shown,
    /// `--drain-delay`: whether the server serves on when it is told to stop, so that only the master can stop the router.
    pub(super) drains: bool,
    /// A thread that has had a request for longer is not fast, whatever it was before, ns: what was dispatched ahead to
    /// it can go to any thread again.
    pub(super) overdue: u64,
    /// A thread that has not begun with a request after this loses it to one that is free, ns.
    pub(super) not_begun: u64,
}

impl Limits {
    /// As the options have it.
    pub(crate) fn new(config: &Config) -> Self {
        let mut limits = Self {
            timeout: 0,
            keepalive: 0,
            buffer_size: 0,
            body: BodyLimits::new(0, 0),
            rates: config.min_rates,
            show_request: Shown::default(),
            drains: false,
            path_normalize: PathNormalize::Keep,
            queue: config.listen as usize,
            overdue: 4 * FAST_NS,
            // Long for a thread that sleeps and is woken, and short for a client.
            not_begun: 50_000_000,
        };
        limits.change(RouterLimits::new(config));
        limits
    }

    /// A reload has changed the options. It holds for what comes from now on.
    pub(super) fn change(&mut self, new: RouterLimits) {
        let RouterLimits {
            http_timeout,
            http_keepalive,
            buffer_size,
            limit_post,
            post_buffering,
            min_rates,
            path_normalize,
            show_request,
            drains,
        } = new;
        self.timeout = http_timeout;
        self.keepalive = http_keepalive;
        self.buffer_size = buffer_size;
        self.body = BodyLimits::new(post_buffering, limit_post);
        self.show_request = show_request;
        self.drains = drains;
        self.path_normalize = path_normalize;
        self.rates = min_rates;
    }

    /// The rates for clients that connect themselves, and for those behind a proxy.
    pub(super) fn rates(&self, is_direct: bool) -> pace::MinRates {
        pace::MinRates::new(&self.rates, is_direct)
    }
}
