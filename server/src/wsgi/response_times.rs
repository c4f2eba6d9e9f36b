//! When the application had returned its response, and how long it was kept from it by its client: what tells its time
//! from that of sending.
//!
//! What is small is sent by one call that does not wait. Its microseconds count as the application's: to tell them apart the
//! clock would have to be read once more for each request.

use crate::clock::MonotonicNanos;
use crate::stats::cell::PhaseNanos;

/// A response as large is worth timing, bytes.
const LARGE: u64 = 16 * 1024;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseTimes {
    /// When the last of the response was there; `None` when there was nothing large to be sent then.
    returned: Option<MonotonicNanos>,
    /// How long its thread waited for the client before that, ns.
    waited: u64,
}

impl ResponseTimes {
    /// The application has produced all that it will, and so many bytes are to be sent now.
    #[inline]
    pub(super) fn returned(&mut self, len: u64) {
        if len >= LARGE {
            self.returned = Some(MonotonicNanos::now());
        }
    }

    /// The thread has waited for the client since then, and the application goes on.
    #[cold]
    pub(super) fn waited_since(&mut self, since: MonotonicNanos) {
        self.waited += MonotonicNanos::now().nanos_since(since);
    }

    /// The phases of a request that had waited so long when its thread took it at `started`, and ended at `ended`.
    #[must_use]
    #[inline]
    pub(crate) fn split(&self, started: MonotonicNanos, ended: MonotonicNanos, waited: PhaseNanos) -> PhaseNanos {
        let returned = self.returned.unwrap_or(ended);
        let (produced, sending) = (returned.nanos_since(started), ended.nanos_since(returned));
        // Its own thread has waited, within that time.
        let waited_for_client = self.waited.min(produced);
        PhaseNanos { application: produced - waited_for_client, write: sending + waited_for_client, ..waited }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_client_is_sending_whenever_it_was() {
        let at = MonotonicNanos::from_nanos;
        let waited = PhaseNanos { queue: 5, ..PhaseNanos::default() };
        let split = |times: ResponseTimes| {
            let phases = times.split(at(1_000), at(1_900), waited);
            assert_eq!(phases.total(), 905);
            (phases.application, phases.write)
        };
        assert_eq!(split(ResponseTimes::default()), (900, 0));
        assert_eq!(split(ResponseTimes { returned: Some(at(1_600)), waited: 0 }), (600, 300));
        assert_eq!(split(ResponseTimes { returned: Some(at(1_600)), waited: 200 }), (400, 500));
        assert_eq!(split(ResponseTimes { returned: None, waited: u64::MAX }), (0, 900));
    }
}
