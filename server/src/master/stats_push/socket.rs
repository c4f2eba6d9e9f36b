//! A datagram for each number, as uWSGI's plugin `stats_pusher_socket` makes it: name, number of its kind, value.

use std::io;

use rwsgi_stats::Snapshot;

use super::datagrams::Datagrams;
use super::{Receiver, plain};
use crate::stats::numbers;

#[derive(Debug)]
pub(super) struct Plain {
    pub(super) to: Datagrams,
    pub(super) prefix: String,
}

impl Receiver for Plain {
    fn name(&self) -> String {
        format!("stats-push: {}", self.to.address)
    }

    fn take(&mut self, snapshot: &Snapshot, with_cores: bool) -> io::Result<()> {
        let numbers = numbers::of(snapshot, with_cores);
        let text = |number: &numbers::Number| {
            format!("{}.{} {} {}", self.prefix, plain(&number.name, ""), number.kind as u8, number.value)
        };
        self.to.send(numbers.iter().map(text))
    }
}
