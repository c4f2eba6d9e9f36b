//! Datagrams for Datadog's agent, as its plugin for uWSGI (github.com/DataDog/uwsgi-dogstatsd) makes them: the numbers in
//! a name are tags, so that one graph has all workers. `worker.1.requests` becomes `site.worker.requests:3|c|#worker:1`.

use std::io;

use rwsgi_config::DogstatsdConfig;
use rwsgi_stats::Snapshot;

use super::datagrams::Datagrams;
use super::statsd::{SPECIAL, kind};
use super::{Receiver, plain};
use crate::stats::numbers::{self, Number};

#[derive(Debug)]
pub(super) struct Dogstatsd {
    pub(super) to: Datagrams,
    pub(super) prefix: String,
    pub(super) options: DogstatsdConfig,
}

impl Receiver for Dogstatsd {
    fn name(&self) -> String {
        format!("stats-push: dogstatsd at {}", self.to.address)
    }

    fn take(&mut self, snapshot: &Snapshot, with_cores: bool) -> io::Result<()> {
        let numbers = numbers::of(snapshot, with_cores);
        let Self { prefix, options, .. } = self;
        self.to.send(numbers.iter().filter_map(|number| datagram(number, prefix, options)))
    }
}

/// `None` for a number that is not wanted.
fn datagram(number: &Number, prefix: &str, options: &DogstatsdConfig) -> Option<String> {
    if options.no_workers && number.is_of_a_worker() {
        return None;
    }
    let plain = plain(&number.name, SPECIAL);
    let (name, mut tags) = tagged(&plain);
    if !options.only.is_empty() && !options.only.contains(&name) {
        return None;
    }
    if let Some(extra) = &options.extra_tags {
        tags.insert(0, extra.clone());
    }
    let mut text = format!("{prefix}.{name}:{}|{}", number.value, kind(number, options.all_gauges));
    if !tags.is_empty() {
        text.push_str("|#");
        text.push_str(&tags.join(","));
    }
    Some(text)
}

/// A name without its numbers, and these as tags: `worker.core.requests` and `worker:1`, `core:0`.
fn tagged(name: &str) -> (String, Vec<String>) {
    let (mut words, mut tags) = (Vec::<&str>::new(), Vec::new());
    for part in name.split('.').filter(|part| !part.is_empty()) {
        match words.last() {
            Some(key) if part.starts_with(|c: char| c.is_ascii_digit()) => tags.push(format!("{key}:{part}")),
            _ => words.push(part),
        }
    }
    (words.join("."), tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::numbers::NumberKind;

    fn sent(name: &str, kind: NumberKind, options: &DogstatsdConfig) -> Option<String> {
        datagram(&Number { name: name.into(), kind, value: 3 }, "site", options)
    }

    #[test]
    fn the_numbers_in_a_name_are_tags() {
        let none = DogstatsdConfig::default();
        for (name, kind, text) in [
            ("worker.1.requests", NumberKind::Counter, "site.worker.requests:3|c|#worker:1"),
            ("worker.1.core.0.requests", NumberKind::Counter, "site.worker.core.requests:3|c|#worker:1,core:0"),
            ("core.busy_workers", NumberKind::Gauge, "site.core.busy_workers:3|g"),
            ("socket.0.listen_queue", NumberKind::Gauge, "site.socket.listen_queue:3|g|#socket:0"),
            ("1.sold", NumberKind::Gauge, "site.1.sold:3|g"),
            ("so\nld|c", NumberKind::Gauge, "site.so_ld_c:3|g"),
        ] {
            assert_eq!(sent(name, kind, &none).as_deref(), Some(text));
        }
    }

    #[test]
    fn tags_are_added_and_what_is_not_wanted_is_left_out() {
        let options = DogstatsdConfig {
            no_workers: false,
            all_gauges: true,
            extra_tags: Some("app:shop".into()),
            only: vec!["worker.requests".into(), "core.busy_workers".into()],
        };
        let sent = |name: &str| sent(name, NumberKind::Counter, &options);
        assert_eq!(sent("worker.2.requests").unwrap(), "site.worker.requests:3|g|#app:shop,worker:2");
        assert_eq!(sent("core.busy_workers").unwrap(), "site.core.busy_workers:3|g|#app:shop");
        assert_eq!(sent("worker.2.respawns"), None);
    }
}
