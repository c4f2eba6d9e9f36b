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
        self.to.send(wanted.map(|number| datagram(&self.prefix, number, self.options.all_gauges)))
    }
}

fn datagram(prefix: &str, number: &Number, all_gauges: bool) -> String {
    let (name, kind, value) = (plain(&number.name, SPECIAL), kind(number, all_gauges), number.value);
    let line = format!("{prefix}.{name}:{value}|{kind}");
    // Of a gauge, a sign means a difference: without the 0 before it, -5 would be 5 less each time.
    if kind == 'g' && value < 0 { format!("{prefix}.{name}:0|g\n{line}") } else { line }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_below_zero_is_set_and_not_lowered_each_time() {
        let number = |kind, value| Number { name: "sold".into(), kind, value };
        for (number, all_gauges, text) in [
            (number(NumberKind::Gauge, -5), false, "site.sold:0|g\nsite.sold:-5|g"),
            (number(NumberKind::Counter, -5), true, "site.sold:0|g\nsite.sold:-5|g"),
            (number(NumberKind::Counter, -5), false, "site.sold:-5|c"),
            (number(NumberKind::Gauge, 5), false, "site.sold:5|g"),
        ] {
            assert_eq!(datagram("site", &number, all_gauges), text);
        }
    }
}
