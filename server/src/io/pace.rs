//! How slow a client may be: `body-min-rate` and `response-min-rate`, measured over `min-rate-grace` at a time. Only time
//! in which the server waits for the client counts; who waits says when that begins.
//!
//! No policy and no clock: the caller has both, and its timers of whole seconds do.

use std::num::NonZeroU32;
use std::os::fd::AsFd;

use tracing::warn;

use super::seldom::Seldom;
use rwsgi_config::MinRates as Configured;

/// The rates of one socket's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MinRates {
    /// `None` where a client may be as slow as it likes, within its timeouts.
    body: Option<NonZeroU32>,
    response: Option<NonZeroU32>,
    grace: u32,
}

impl MinRates {
    /// Where nobody is too slow.
    pub(crate) const NONE: Self = Self { body: None, response: None, grace: 1 };

    /// As configured, for a socket to which clients connect themselves, or only a proxy.
    pub(crate) fn new(configured: &Configured, is_direct: bool) -> Self {
        let Configured { body, response, grace } = *configured;
        Self { body: body.on(is_direct), response: response.on(is_direct), grace }
    }
}

/// After how many seconds it is looked at for the first time what a client takes: by then all others have taken all.
const FIRST_LOOK: u32 = 2;

/// What the server waits for, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Nobody is hurried.
    #[default]
    Any,
    /// The client must have moved so many bytes more than `mark` when `until` comes.
    AtLeast { until: u32, mark: u64, bytes: u32 },
    /// What the client has taken is looked at first when `until` comes: the kernel keeps some of what it was given.
    Unmarked { until: u32 },
}

/// What came of a look at a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is not time yet.
    Early,
    /// It goes on for another while.
    Goes,
    /// It is too slow.
    Slow,
}

impl Pace {
    /// For a body of which `mark` bytes have come, from this second on.
    pub(crate) fn of_body(rates: MinRates, second: u32, mark: u64) -> Self {
        let Some(rate) = rates.body else { return Self::Any };
        Self::least(rate, rates.grace, second, mark)
    }

    /// For a response that the client has not taken, from this second on.
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

    /// The second in which it is to be looked at.
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

    /// Looks at a client that has taken `moved` bytes in all.
    pub(crate) fn look_at_response(&mut self, rates: MinRates, second: u32, moved: u64) -> Seen {
        self.look(rates.response, rates.grace, second, moved)
    }

    fn look(&mut self, rate: Option<NonZeroU32>, grace: u32, second: u32, moved: u64) -> Seen {
        if second < self.until() {
            return Seen::Early;
        }
        let Some(rate) = rate else {
            // A reload has taken the limit away.
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

/// Says of clients that take their responses too slowly that they are closed, once a second at most.
#[derive(Debug, Default)]
pub(crate) struct SlowLog(Seldom);

impl SlowLog {
    /// One is closed.
    pub(crate) fn too_slow(&self, client: &str) {
        if let Some(more) = self.0.count() {
            warn!("{client} takes its response too slowly (response-min-rate): its connection is closed{more}");
        }
    }
}

/// Bytes that a TCP socket was given and its other end has not acknowledged; 0 where the kernel does not say.
pub(crate) fn unacknowledged(socket: impl AsFd) -> u64 {
    queued(socket).unwrap_or(0)
}

#[allow(unsafe_code)]
fn queued(socket: impl AsFd) -> Option<u64> {
    use std::os::fd::AsRawFd;
    let mut count: nix::libc::c_int = 0;
    // SAFETY: of a descriptor that is open, it writes an int to where there is one, and does nothing else.
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
    fn nobody_is_hurried_where_there_is_no_rate() {
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
