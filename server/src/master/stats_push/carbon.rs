//! Lines for Graphite's carbon by TCP, as uWSGI's plugin `carbon` makes them:
//! `uwsgi.HOST.ID.worker1.requests 3 1795685225`. A connection for each time, as there.

use std::collections::HashMap;
use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rwsgi_config::{CarbonConfig, IdleAverage};
use rwsgi_stats::{Snapshot, Worker};

use super::{Receiver, plain};
use crate::stats::numbers;

/// A carbon server, and what it was sent last.
#[derive(Debug)]
pub(super) struct Carbon {
    address: String,
    options: CarbonConfig,
    timeout: Duration,
    /// What names begin with, as far as it is configured: `uwsgi.HOST.`
    root: String,
    /// With `cheaper`: those that have no process are told of.
    has_cheap_workers: bool,
    last: Option<Last>,
}

/// The numbers of the last time, for differences.
#[derive(Debug)]
struct Last {
    at: Instant,
    /// µs with requests, by the worker's number.
    running_time: HashMap<u32, u64>,
    /// Requests when carbon took them last; 0 before.
    requests: u64,
}

impl Carbon {
    pub(super) fn new(address: &str, options: &CarbonConfig, has_cheap_workers: bool) -> Self {
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let host = options.hostname_dots.map_or_else(|| host.clone(), |dot| host.replace('.', &dot.to_string()));
        let dot = if options.root.is_empty() || options.root.ends_with('.') { "" } else { "." };
        Self {
            address: address.to_owned(),
            timeout: Duration::from_secs(options.timeout.into()),
            root: format!("{}{dot}{host}.", options.root),
            options: options.clone(),
            has_cheap_workers,
            last: None,
        }
    }

    /// What is sent of a snapshot at this unix time.
    fn lines(&mut self, snapshot: &Snapshot, with_cores: bool, unix: u64, now: Instant) -> String {
        let socket = || snapshot.sockets.first().map(|socket| socket.name.replace('.', "_"));
        let id = self.options.id.clone().or_else(socket).unwrap_or_default();
        let node = plain(&format!("{}{id}", self.root), "").into_owned();
        let mut lines = Lines { node: &node, unix, text: String::new() };
        if self.options.use_metrics {
            for number in numbers::of(snapshot, with_cores) {
                lines.add(format_args!("{}", plain(&number.name, "")), number.value);
            }
        } else {
            self.add(&mut lines, snapshot, now);
        }
        let text = lines.text;
        let running_time = snapshot.workers.iter().map(|worker| (worker.id, worker.running_time)).collect();
        let requests = self.last.as_ref().map_or(0, |last| last.requests);
        self.last = Some(Last { at: now, running_time, requests });
        text
    }

    fn add(&self, lines: &mut Lines<'_>, snapshot: &Snapshot, now: Instant) {
        let workers = &snapshot.workers;
        let sum = |of: fn(&Worker) -> u64| workers.iter().map(of).sum::<u64>();
        let requests = sum(|worker| worker.requests);
        let has_idled = self.last.as_ref().is_none_or(|last| last.requests == 0 || last.requests == requests);
        let average = |value: u64| match self.options.idle_average {
            IdleAverage::Zero if has_idled => Some(0),
            IdleAverage::Nothing if has_idled => None,
            _ => Some(value),
        };
        lines.add("requests", requests);
        let (mut active, mut busyness, mut averages) = (0, 0, 0);
        for worker in workers {
            // A worker that has no process is "cheap" there.
            let is_active = worker.pid != 0;
            let (average_rt, busy) = if is_active { (worker.avg_rt, self.busyness(worker, now)) } else { (0, 0) };
            active += u64::from(is_active);
            busyness += busy;
            averages += average_rt;
            if self.options.no_workers {
                continue;
            }
            for (name, value) in [
                ("requests", Some(worker.requests)),
                ("rss_size", Some(worker.rss)),
                ("vsz_size", Some(worker.vsz)),
                ("avg_rt", average(average_rt)),
                ("tx", Some(worker.tx)),
                ("busyness", Some(busy)),
                ("harakiri", Some(worker.harakiri_count)),
            ] {
                if let Some(value) = value {
                    lines.add(format_args!("worker{}.{name}", worker.id), value);
                }
            }
        }
        lines.add("rss_size", sum(|worker| worker.rss));
        lines.add("vsz_size", sum(|worker| worker.vsz));
        if let Some(average) = average(averages / active.max(1)) {
            lines.add("avg_rt", average);
        }
        lines.add("tx", sum(|worker| worker.tx));
        lines.add("busyness", busyness / active.max(1));
        lines.add("active_workers", active);
        if self.has_cheap_workers {
            lines.add("cheaped_workers", workers.len() as u64 - active);
        }
        lines.add("harakiri", sum(|worker| worker.harakiri_count));
    }

    /// The share of the time since the last time that a worker spent on requests, in per cent. uWSGI counts a request when
    /// it is over: a worker that is at one request all the time is at 100.
    fn busyness(&self, worker: &Worker, now: Instant) -> u64 {
        let before = self.last.as_ref().map(|last| (last.at, last.running_time.get(&worker.id).copied().unwrap_or(0)));
        let frequency = Duration::from_secs(self.options.frequency.into());
        let (elapsed, before) = before.map_or((frequency, 0), |(at, before)| (now.duration_since(at), before));
        match worker.running_time.saturating_sub(before) {
            0 if worker.status == "busy" => 100,
            spent => (u128::from(spent) * 100 / elapsed.as_micros().max(1)).min(100) as u64,
        }
    }

    /// Sends the text on a connection of its own.
    fn send(&self, text: &str) -> io::Result<()> {
        let mut stream = self.connect()?;
        let deadline = Instant::now() + self.timeout;
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.timed_out("it does not read what is sent"));
            }
            stream.set_write_timeout(Some(left))?;
            match stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let deadline = Instant::now() + self.timeout;
        for address in self.address.to_socket_addrs()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => last = self.timed_out("it does not answer"),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn timed_out(&self, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, format!("{what}, for {} s (carbon-timeout)", self.options.timeout))
    }
}

impl Receiver for Carbon {
    fn name(&self) -> String {
        format!("carbon: {}", self.address)
    }

    fn take(&mut self, snapshot: &Snapshot, with_cores: bool) -> io::Result<()> {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let text = self.lines(snapshot, with_cores, unix, Instant::now());
        self.send(&text)?;
        if let Some(last) = &mut self.last {
            last.requests = snapshot.workers.iter().map(|worker| worker.requests).sum();
        }
        Ok(())
    }

    fn retries(&self) -> (u32, Duration) {
        (self.options.max_retry, Duration::from_secs(self.options.retry_delay.into()))
    }
}

/// Lines of carbon's protocol.
struct Lines<'a> {
    /// What every name begins with.
    node: &'a str,
    unix: u64,
    text: String,
}

impl Lines<'_> {
    fn add(&mut self, name: impl Display, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{}.{name} {value} {}", self.node, self.unix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_stats::Socket;

    fn snapshot() -> Snapshot {
        let first = Worker {
            id: 1,
            pid: 7,
            requests: 3,
            avg_rt: 500,
            running_time: 250_000,
            status: "idle".into(),
            ..Worker::default()
        };
        let second = Worker { id: 2, status: "cheap".into(), avg_rt: 9, ..Worker::default() };
        let socket = Socket { name: "127.0.0.1:3031".into(), ..Socket::default() };
        Snapshot { workers: vec![first, second], sockets: vec![socket], ..Snapshot::default() }
    }

    fn carbon(options: CarbonConfig) -> Carbon {
        let mut carbon = Carbon::new("127.0.0.1:2003", &options, true);
        carbon.root = "uwsgi.web1.".into();
        carbon
    }

    #[test]
    fn lines_are_those_of_uwsgi() {
        let mut carbon = carbon(CarbonConfig { frequency: 1, ..CarbonConfig::default() });
        let text = carbon.lines(&snapshot(), false, 17, Instant::now());
        let lines: Vec<_> = text.lines().collect();
        for line in [
            "uwsgi.web1.127_0_0_1:3031.requests 3 17",
            "uwsgi.web1.127_0_0_1:3031.worker1.requests 3 17",
            "uwsgi.web1.127_0_0_1:3031.worker1.busyness 25 17",
            "uwsgi.web1.127_0_0_1:3031.worker2.avg_rt 0 17",
            "uwsgi.web1.127_0_0_1:3031.avg_rt 500 17",
            "uwsgi.web1.127_0_0_1:3031.active_workers 1 17",
            "uwsgi.web1.127_0_0_1:3031.cheaped_workers 1 17",
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn averages_of_no_requests_are_as_configured() {
        for (idle_average, first, second) in [
            (IdleAverage::Last, Some(500), Some(500)),
            (IdleAverage::Zero, Some(0), Some(0)),
            (IdleAverage::Nothing, None, None),
        ] {
            let mut carbon = carbon(CarbonConfig {
                idle_average,
                no_workers: true,
                id: Some("x".into()),
                ..CarbonConfig::default()
            });
            let mut told = |requests, taken| {
                let mut snapshot = snapshot();
                snapshot.workers[0].requests = requests;
                let text = carbon.lines(&snapshot, false, 1, Instant::now());
                if let Some(last) = carbon.last.as_mut().filter(|_| taken) {
                    last.requests = requests;
                }
                assert!(!text.contains("worker1"));
                text.lines()
                    .find_map(|line| line.strip_prefix("uwsgi.web1.x.avg_rt ")?.split(' ').next()?.parse::<u64>().ok())
            };
            assert_eq!(told(3, true), first);
            assert_eq!(told(3, true), second);
            assert_eq!(told(4, true), Some(500), "{idle_average:?}");
        }
    }

    #[test]
    fn a_worker_that_is_at_one_request_all_the_time_is_busy() {
        let mut carbon = carbon(CarbonConfig { no_workers: true, ..CarbonConfig::default() });
        let now = Instant::now();
        let mut snapshot = snapshot();
        carbon.lines(&snapshot, false, 1, now);
        let at =
            |carbon: &Carbon, worker: &Worker, seconds| carbon.busyness(worker, now + Duration::from_secs(seconds));
        assert_eq!(at(&carbon, &snapshot.workers[0], 10), 0);
        snapshot.workers[0].status = "busy".into();
        assert_eq!(at(&carbon, &snapshot.workers[0], 10), 100);
        snapshot.workers[0].running_time += 5_000_000;
        assert_eq!(at(&carbon, &snapshot.workers[0], 10), 50);
        assert_eq!(at(&carbon, &snapshot.workers[0], 1), 100);
    }

    #[test]
    fn names_have_no_blanks_and_roots_their_dot() {
        let options = CarbonConfig { root: "prod.".into(), id: Some("my site\n".into()), ..CarbonConfig::default() };
        let mut carbon = Carbon::new("h:1", &options, false);
        assert!(carbon.root.starts_with("prod.") && !carbon.root.starts_with("prod.."));
        assert!(carbon.lines(&snapshot(), false, 1, Instant::now()).lines().all(|line| line.split(' ').count() == 3));
        let bare = Carbon::new("h:1", &CarbonConfig { root: String::new(), ..CarbonConfig::default() }, false);
        assert!(!bare.root.starts_with('.'));
    }
}
