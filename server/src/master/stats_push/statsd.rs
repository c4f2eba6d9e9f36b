//! statsd's datagrams, as uWSGI's plugin `stats_pusher_statsd` makes them: `site.worker.1.requests:3|c`. Counters are
//! totals, also there: `statsd-all-gauges` is for a statsd that is not to add them up.
//!
//! Not `cadence`: its metrics are objects that an application updates one by one, and the format is a line.

use std::io;

use rwsgi_config::StatsdConfig;
use rwsgi_stats::Snapshot;

use super::datagrams::Datagrams;
use super::{Receiver, plain};
use crate::stats::numbers::{self, Number, NumberKind};

/// What stands between the parts of a datagram.
pub(super) const SPECIAL: &str = ":|@#,";

#[derive(Debug)]
pub(super) struct Statsd {
    pub(super) to: Datagrams,
    pub(super) prefix: String,
    pub(super) options: StatsdConfig,
}

impl Receiver for Statsd {
    fn name(&self) -> String {
        format!("stats-push: statsd at {}", self.to.address)
    }

    fn take(&mut self, snapshot: &Snapshot, with_cores: bool) -> io::Result<()> {
        let numbers = numbers::of(snapshot, with_cores);
        let wanted = numbers.iter().filter(|number| !self.options.no_workers || !number.is_of_a_worker());
        self.to.send(wanted.map(|number| {
            let kind = kind(number, self.options.all_gauges);
            format!("{}.{}:{}|{kind}", self.prefix, plain(&number.name, SPECIAL), number.value)
        }))
    }
}

/// statsd's letter. uWSGI has a counter of the memory of all workers, which a statsd would add up.
pub(super) fn kind(number: &Number, all_gauges: bool) -> char {
    match number.kind {
        NumberKind::Gauge | NumberKind::Alias => 'g',
        NumberKind::Counter | NumberKind::Absolute => {
            if all_gauges {
                'g'
            } else {
                'c'
            }
        }
    }
}
