//! How slow a client may be: `body-min-rate` and `response-min-rate`, measured over `min-rate-grace` at a time. Only time
//! in which the server waits for the client counts; the caller says when that begins.
//!
//! No policy and no clock: the caller has both. Timers of whole seconds are enough.

use std::num::NonZeroU32;
use std::os::fd::AsFd;

use tracing::warn;

use crate::log_limit::{self, LineKind};
use rwsgi_config::MinRates as Configured;

/// The rates of one socket's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MinRates {
    /// Bytes a second; `None` for no limit beside the timeouts.
    body: Option<NonZeroU32>,
    response: Option<NonZeroU32>,
    /// `min-rate-grace`, seconds.
    grace: u32,
}

impl MinRates {
    /// No limits.
    pub(crate) const NONE: Self = Self { body: None, response: None, grace: 1 };

    /// As configured, for a socket to which clients connect themselves (`is_direct`) or only a proxy does.
    pub(crate) fn new(configured: &Configured, is_direct: bool) -> Self {
        let Configured { body, response, grace } = *configured;
        Self { body: body.on(is_direct), response: response.on(is_direct), grace }
    }
}

/// Seconds until the first look at a response: by then most clients have read all of it, and need none.
const FIRST_LOOK: u32 = 2;

/// The least that a client must do, and by when. Times are in seconds of the caller's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pace {
    /// No limit.
    #[default]
    Any,
    /// The client must have moved `bytes` more than `mark` by `until`.
    AtLeast { until: u32, mark: u64, bytes: u32 },
    /// The measurement begins at `until`: before, the kernel's buffer takes bytes that the client has not read.
    Unmarked { until: u32 },
}

/// The result of a look at a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is not time yet.
    Early,
    /// It is fast enough: the next measurement has begun.
    Goes,
    /// It is too slow.
    Slow,
}

impl Pace {
    /// For a body, from this second on. `mark` bytes of it have come.
    pub(crate) fn of_body(rates: MinRates, second: u32, mark: u64) -> Self {
        let Some(rate) = rates.body else { return Self::Any };
        Self::least(rate, rates.grace, second, mark)
    }

    /// For a response that waits for its client, from this second on.
    pub(crate) fn of_response(rates: MinRates, second: u32) -> Self {
        if rates.response.is_none() {
            return Self::Any;
        }
        Self::Unmarked { until: second.saturating_add(FIRST_LOOK) }
    }

    fn least(rate: NonZeroU32, grace: u32, second: u32, mark: u64) -> Self {
        // The second may be nearly over.
        let until = second.saturating_add(grace).saturating_add(1);
        Self::AtLeast { until, mark, bytes: rate.get().saturating_mul(grace) }
    }

    /// The second of the next look.
    pub(crate) fn until(self) -> u32 {
        match self {
            Self::Any => u32::MAX,
            Self::AtLeast { until, .. } | Self::Unmarked { until } => until,
        }
    }

    /// Looks at a client that has sent `moved` bytes of a body in all.
    pub(crate) fn look_at_body(&mut self, rates: MinRates, second: u32, moved: u64) -> Seen {
        self.look(rates.body, rates.grace, second, moved)
    }

    /// Looks at a client that has read `moved` bytes in all.
    pub(crate) fn look_at_response(&mut self, rates: MinRates, second: u32, moved: u64) -> Seen {
        self.look(rates.response, rates.grace, second, moved)
    }

    fn look(&mut self, rate: Option<NonZeroU32>, grace: u32, second: u32, moved: u64) -> Seen {
        if second < self.until() {
            return Seen::Early;
        }
        let Some(rate) = rate else {
            // A reload removed the limit.
            *self = Self::Any;
            return Seen::Goes;
        };
        if let Self::AtLeast { mark, bytes, .. } = *self
            && moved.saturating_sub(mark) < bytes.into()
        {
            return Seen::Slow;
        }
        *self = Self::least(rate, grace, second, moved);
        Seen::Goes
    }
}

/// Logs that a client is closed because it takes its response too slowly.
#[cold]
pub(crate) fn log_slow_response(client: &str) {
    if log_limit::allows(LineKind::SlowResponse) {
        warn!("{client} takes its response too slowly (response-min-rate): its connection is closed");
    }
}

/// Bytes in a TCP socket's buffer that the other end has not acknowledged; 0 when the kernel does not say.
pub(crate) fn unacknowledged(socket: impl AsFd) -> u64 {
    queued(socket).unwrap_or(0)
}

#[allow(unsafe_code)]
fn queued(socket: impl AsFd) -> Option<u64> {
    use std::os::fd::AsRawFd;
    let mut count: nix::libc::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel writes one int to `count`, which lives until after the call.
    let outcome = unsafe { nix::libc::ioctl(socket.as_fd().as_raw_fd(), nix::libc::TIOCOUTQ, &raw mut count) };
    u64::try_from(count).ok().filter(|_| outcome == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: MinRates = MinRates { body: NonZeroU32::new(100), response: NonZeroU32::new(100), grace: 10 };

    #[test]
    fn a_body_that_keeps_the_rate_goes_on_and_one_that_does_not_is_slow() {
        let mut pace = Pace::of_body(RATES, 5, 0);
        assert_eq!(pace.until(), 16);
        assert_eq!(pace.look_at_body(RATES, 15, 0), Seen::Early);
        assert_eq!(pace.look_at_body(RATES, 16, 1_000), Seen::Goes);
        assert_eq!(pace.until(), 27);
        // What it sent before does not count again.
        assert_eq!(pace.look_at_body(RATES, 27, 1_999), Seen::Slow);
    }

    #[test]
    fn a_response_is_measured_from_the_first_look() {
        let mut pace = Pace::of_response(RATES, 5);
        assert_eq!(pace.look_at_response(RATES, 7, 1 << 20), Seen::Goes);
        assert_eq!(pace.look_at_response(RATES, 18, (1 << 20) + 999), Seen::Slow);
        assert_eq!(pace.look_at_response(RATES, 18, (1 << 20) + 1_000), Seen::Goes);
    }

    #[test]
    fn no_client_is_slow_where_there_is_no_rate() {
        assert_eq!(Pace::of_body(MinRates::NONE, 5, 0), Pace::Any);
        let mut pace = Pace::of_response(RATES, 5);
        assert_eq!(pace.look_at_response(MinRates::NONE, 1_000, 0), Seen::Goes);
        assert_eq!(pace, Pace::Any);
    }

    #[test]
    fn what_the_other_end_has_not_taken_is_known() {
        use std::io::Write;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 65536]).is_ok() {}
        assert!(unacknowledged(&client) > 0);
    }
}
