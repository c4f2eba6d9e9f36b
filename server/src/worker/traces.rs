//! Which requests are traced, by which numbers, and what is written of them for the exporter in the master.
//!
//! The rules are those of OpenTelemetry's samplers: the caller decides for the requests that it has traced, and the
//! trace's number decides for the others, so that every service decides alike (`ParentBased(TraceIdRatioBased)`).

use std::sync::Arc;

use super::phases::Ended;
use super::state::Worker;
use super::worker_thread::WorkerThread;
use crate::clock::MonotonicNanos;
use crate::stats::cell::PhaseNanos;
use crate::stats::route_text::RouteText;
use crate::stats::traces::{TraceCells, TraceEnd, TraceEntry, TraceIds};
use crate::wsgi::gateway::{Incoming, TraceHeader};
use rwsgi_config::{ParentRule, Ratio};
use rwsgi_protocol::traceparent::Traceparent;

/// Random bytes that are got at once: for 64 requests.
const RANDOM: usize = 1024;

/// See the module. Each thread has its own.
pub(super) struct Tracer {
    pub(super) cells: Arc<TraceCells>,
    sample: Ratio,
    parent: ParentRule,
    random: [u8; RANDOM],
    /// How many of them were used.
    used: usize,
}

impl Tracer {
    /// `None` when no request is traced.
    pub(super) fn of(worker: &Worker) -> Option<Box<Self>> {
        let cells = Arc::clone(worker.traces.as_ref()?);
        let otlp = &worker.config.otlp;
        Some(Box::new(Self { cells, sample: otlp.sample, parent: otlp.parent, random: [0; RANDOM], used: RANDOM }))
    }

    /// The numbers of a request, and what its application is told of them; `None` when it is not traced.
    pub(super) fn trace(&mut self, request: &Incoming<'_>) -> Option<(TraceIds, TraceHeader)> {
        let caller = match self.parent {
            ParentRule::Ignore => None,
            _ => caller_of(request),
        };
        let (trace, parent) = match caller {
            Some(caller) => (caller.trace, caller.parent),
            None => (self.random_trace(), 0),
        };
        let is_traced = match caller {
            Some(caller) if self.parent == ParentRule::Follow => caller.sampled,
            _ => self.sample.has(trace),
        };
        if !is_traced {
            return None;
        }
        let ids = TraceIds { trace, parent, span: self.random_span(), application: self.random_span() };
        let text = Traceparent { trace, parent: ids.application, sampled: true }.text();
        Some((ids, TraceHeader { text, begins_trace: caller.is_none() }))
    }

    fn random_trace(&mut self) -> u128 {
        loop {
            let number = u128::from_ne_bytes(self.random_bytes());
            if number != 0 {
                return number;
            }
        }
    }

    fn random_span(&mut self) -> u64 {
        loop {
            let number = u64::from_ne_bytes(self.random_bytes());
            if number != 0 {
                return number;
            }
        }
    }

    fn random_bytes<const COUNT: usize>(&mut self) -> [u8; COUNT] {
        if self.used + COUNT > RANDOM {
            self.used = 0;
            if getrandom::fill(&mut self.random).is_err() {
                // No system is without it; a trace that shares its number with another is no reason to fail a request.
                let now = MonotonicNanos::now().as_nanos();
                self.random.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&now.to_ne_bytes()));
            }
        }
        let mut bytes = [0; COUNT];
        bytes.copy_from_slice(&self.random[self.used..self.used + COUNT]);
        // What was used is not kept: a forked process would use it again.
        self.random[self.used..self.used + COUNT].fill(0);
        self.used += COUNT;
        bytes
    }
}

impl WorkerThread {
    /// A request begins: its numbers when it is traced, of which the application is told.
    #[inline(never)]
    pub(super) fn begin_trace(&mut self, request: &Incoming<'_>, started: MonotonicNanos) -> Option<TraceIds> {
        let tracer = self.tracer.as_mut()?;
        let (ids, header) = tracer.trace(request)?;
        tracer.cells.begin(self.id, started, &ids);
        self.gateway.trace(header);
        Some(ids)
    }

    /// A traced request has ended.
    #[cold]
    pub(super) fn end_trace(
        &self,
        ids: &TraceIds,
        phases: &PhaseNanos,
        ended: &Ended<'_>,
        route: Option<&RouteText>,
        body: u64,
        client_gone: bool,
    ) {
        let Some(tracer) = &self.tracer else { return };
        let Ended { started, protocol, peer, head, status, is_harakiri, exception } = *ended;
        let entry = TraceEntry {
            ids: *ids,
            started,
            phases: *phases,
            protocol,
            peer: peer.as_bytes(),
            head,
            route_name: route.map_or(&[], RouteText::as_bytes),
            status,
            body,
            end: match (is_harakiri, client_gone) {
                (true, _) => TraceEnd::Harakiri,
                (false, true) => TraceEnd::ClientGone,
                (false, false) => TraceEnd::Done,
            },
            exception,
            worker: self.worker.id,
            pid: std::process::id(),
            thread: self.id.get(),
        };
        tracer.cells.write(self.id, &entry);
    }
}

/// What the one `traceparent` of a request says; `None` when it has none, more than one, or an invalid one.
pub(super) fn caller_of(request: &Incoming<'_>) -> Option<Traceparent> {
    let mut found = None;
    let mut take = |value| found.replace(value).is_none();
    let is_one = match request {
        Incoming::Http { head, .. } => head
            .headers
            .iter()
            .filter(|header| header.name.len() == 11 && header.name.eq_ignore_ascii_case("traceparent"))
            .all(|header| take(header.value)),
        Incoming::Uwsgi(packet) => {
            packet.vars().filter(|(name, _)| *name == b"HTTP_TRACEPARENT").all(|(_, value)| take(value))
        }
    };
    found.filter(|_| is_one).and_then(|value| Traceparent::parse(value.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SlotId;
    use crate::stats::traces::TraceMemory;
    use rwsgi_protocol::http::{HeaderBuf, MAX_HEADERS, parse};
    use rwsgi_protocol::link::Peer;
    use std::mem::MaybeUninit;

    const SAMPLED: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";

    fn tracer(share: &str, parent: ParentRule) -> Tracer {
        let memory = TraceMemory::create(1, 1).unwrap();
        let file = memory.memory().try_clone_to_owned().unwrap();
        let cells = Arc::new(TraceCells::map(&file, SlotId::new(0), 1).unwrap());
        let sample = serde_json::from_str(share).unwrap();
        Tracer { cells, sample, parent, random: [0; RANDOM], used: RANDOM }
    }

    fn traced(tracer: &mut Tracer, headers: &str) -> Option<(TraceIds, TraceHeader)> {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let mut headers: HeaderBuf<'_> = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let head = parse(text.as_bytes(), &mut headers, text.len()).unwrap().unwrap();
        let peer = Peer { remote_addr: "", remote_port: "", server_addr: "", server_port: "", tls: None };
        tracer.trace(&Incoming::Http { head: &head, peer, body_len: None })
    }

    const NONE: &str = "0";
    const ALL: &str = "9223372036854775808";

    #[test]
    fn the_caller_decides_and_where_there_is_none_the_ratio() {
        let not_sampled = SAMPLED.replace("-01\r", "-00\r");
        for (share, parent, headers, expected) in [
            (NONE, ParentRule::Follow, "", false),
            (ALL, ParentRule::Follow, "", true),
            (NONE, ParentRule::Follow, SAMPLED, true),
            (ALL, ParentRule::Follow, &not_sampled, false),
            (NONE, ParentRule::Sample, SAMPLED, false),
            (ALL, ParentRule::Sample, &not_sampled, true),
            (NONE, ParentRule::Ignore, SAMPLED, false),
            (ALL, ParentRule::Ignore, &not_sampled, true),
        ] {
            let found = traced(&mut tracer(share, parent), headers);
            assert_eq!(found.is_some(), expected, "{share} {parent:?} {headers}");
        }
    }

    #[test]
    fn a_trace_goes_on_or_is_a_new_one_where_the_header_is_not_one_valid_one() {
        let mut tracer = tracer(ALL, ParentRule::Follow);
        let (ids, header) = traced(&mut tracer, SAMPLED).unwrap();
        assert_eq!((ids.trace, ids.parent), (0x0af7651916cd43dd8448eb211c80319c, 0xb7ad6b7169203331));
        let told = Traceparent::parse(&header.text).unwrap();
        assert_eq!((told.trace, told.parent, told.sampled), (ids.trace, ids.application, true));
        assert!(!header.begins_trace);
        let invalid = SAMPLED.replace("0af7", "0AF7");
        let twice = SAMPLED.repeat(2);
        let mut seen = std::collections::HashSet::new();
        for headers in ["", &invalid, &twice, "traceparent: \r\n"] {
            let (new, header) = traced(&mut tracer, headers).unwrap();
            assert!(new.parent == 0 && header.begins_trace && new.trace != ids.trace, "{headers}");
            assert!(seen.insert(new.trace) && seen.insert(new.span.into()) && seen.insert(new.application.into()));
        }
        assert!(traced(&mut tracer, &SAMPLED.replace("traceparent", "TraceParent")).unwrap().0.parent != 0);
    }

    #[test]
    fn numbers_differ_over_many_requests() {
        let mut tracer = tracer(ALL, ParentRule::Follow);
        let traces: std::collections::HashSet<_> = (0..500).map(|_| traced(&mut tracer, "").unwrap().0.trace).collect();
        assert_eq!(traces.len(), 500);
    }
}
