//! The servers that a Prometheus has scraped: which there are, what they did lately, and before rtop began.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rwsgi_assertions::Percentiles;

use super::{Figures, FleetEvent, Ids, Server, ServerId};
use crate::source::prometheus::{Client, Instance, Row};
use crate::source::{Clock, Monotonic, SourceError, Target};

/// Prometheus has at least so long to answer: of hundreds of servers that may take more than a server's own answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Prometheus is asked no more often: it scrapes less often than that.
const LEAST_INTERVAL: Duration = Duration::from_secs(5);
/// How far back the past goes, and how far its points are apart.
const PAST: Duration = Duration::from_secs(3_600);
const STEP: Duration = Duration::from_secs(30);

/// What is known of a Prometheus's servers.
#[derive(Debug)]
pub(super) struct Scraped {
    client: Client,
    label: Arc<str>,
    ids: Ids,
    clock: Clock,
    known: HashMap<Instance, ServerId>,
    /// Its past was asked for.
    has_past: bool,
    /// Percentiles of all were told last.
    has_together: bool,
    trouble: Option<String>,
}

impl Scraped {
    pub(super) fn new(client: Client, label: Arc<str>, ids: Ids, clock: Clock) -> Self {
        Self { client, label, ids, clock, known: HashMap::new(), has_past: false, has_together: false, trouble: None }
    }

    /// Asks again and again, and tells what comes of it, until `end` is closed.
    pub(super) fn watch(&mut self, interval: Duration, end: &Receiver<()>, tell: impl Fn(Vec<FleetEvent>)) {
        loop {
            let answer = self.client.now();
            tell(self.events(answer));
            if !self.has_past && !self.known.is_empty() {
                self.has_past = true;
                let past = self.client.past(Clock::local().0 / 1_000_000, PAST, STEP);
                tell(self.past(past));
            }
            if !matches!(end.recv_timeout(interval.max(LEAST_INTERVAL)), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        }
    }

    fn events(&mut self, answer: Result<Vec<Row>, SourceError>) -> Vec<FleetEvent> {
        let at = self.clock.at();
        let mut events = Vec::new();
        let mut rows = match answer {
            Ok(rows) => rows,
            Err(error) => {
                self.told(Some(error.to_string()), &mut events);
                events.extend(self.together(None));
                // Whether they are up, nobody knows.
                events.extend(self.known.values().map(|id| FleetEvent::Late(*id, at)));
                return events;
            }
        };
        rows.sort_by(|a, b| a.instance.cmp(&b.instance));
        let mut seen = HashMap::new();
        let mut together = None;
        for row in rows {
            let Some(instance) = row.instance.clone() else {
                let [p50, p95, p99] = row.together.map(|micros| micros.map(|micros| micros as u64));
                if let (Some(p50), Some(p95), Some(p99)) = (p50, p95, p99) {
                    // The slowest of all is not told.
                    together = Some(Percentiles { p50, p95, p99, max: p99 });
                }
                continue;
            };
            let id = self.known.remove(&instance).unwrap_or_else(|| {
                let id = self.ids.next();
                events.push(FleetEvent::Joined(id, server(&instance)));
                id
            });
            events.push(event(id, at, &row));
            seen.insert(instance, id);
        }
        events.extend(self.together(together));
        events.extend(self.known.values().map(|id| FleetEvent::Left(*id)));
        let nobody = seen.is_empty().then(|| "it knows no server with these labels".to_owned());
        self.known = seen;
        self.told(nobody, &mut events);
        events
    }

    fn past(&self, answer: Result<Vec<Row>, SourceError>) -> Vec<FleetEvent> {
        // Without a past there is a present.
        let Ok(rows) = answer else { return Vec::new() };
        let began = (Clock::local().0 as f64 / 1e6) - self.clock.at().as_micros() as f64 / 1e6;
        let mut past: HashMap<ServerId, Vec<(Duration, Figures)>> = HashMap::new();
        for row in rows {
            let id = row.instance.as_ref().and_then(|instance| self.known.get(instance));
            let before = Duration::try_from_secs_f64(began - row.at).ok();
            if let (Some(id), Some(before)) = (id, before) {
                past.entry(*id).or_default().push((before, row.figures));
            }
        }
        past.into_iter().map(|(id, points)| FleetEvent::Past(id, points)).collect()
    }

    /// Tells percentiles of all, and that there are none any more.
    fn together(&mut self, percentiles: Option<Percentiles>) -> Option<FleetEvent> {
        let had = std::mem::replace(&mut self.has_together, percentiles.is_some());
        (had || self.has_together).then(|| FleetEvent::Together(Arc::clone(&self.label), percentiles))
    }

    fn told(&mut self, trouble: Option<String>, events: &mut Vec<FleetEvent>) {
        if self.trouble != trouble {
            self.trouble.clone_from(&trouble);
            events.push(FleetEvent::Source(Arc::clone(&self.label), trouble));
        }
    }
}

fn event(id: ServerId, at: Monotonic, row: &Row) -> FleetEvent {
    if row.up == Some(false) {
        return FleetEvent::Failed(id, at, SourceError::Unscraped);
    }
    FleetEvent::Figures(id, Box::new(Figures { at, ..row.figures }))
}

/// A server as Prometheus knows it. Where its metrics are scraped, its stats are too (`stats-http`).
fn server(instance: &Instance) -> Server {
    let address = format!("http://{}/", instance.instance).parse::<Target>().ok();
    let labels = vec![("job".to_owned(), instance.job.clone())];
    Server { name: instance.instance.clone(), labels, address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fleet::Figure;

    fn scraped() -> Scraped {
        let client = Client::new("prometheus://mon".parse().unwrap(), PATIENCE);
        Scraped::new(client, "prometheus://mon:9090/".into(), Ids::default(), Clock::start())
    }

    fn row(instance: &str, up: bool, rps: f64) -> Row {
        let mut figures = Figures::default();
        figures.set(Figure::Rps, Some(rps));
        let instance = Instance { job: "app".to_owned(), instance: instance.to_owned() };
        Row { instance: Some(instance), up: Some(up), figures, ..Row::default() }
    }

    fn told(events: &[FleetEvent]) -> Vec<String> {
        let word = |event: &FleetEvent| match event {
            FleetEvent::Joined(id, server) => format!("joined {id} {}", server.name),
            FleetEvent::Left(id) => format!("left {id}"),
            FleetEvent::Figures(id, figures) => format!("figures {id} {:?}", figures.get(Figure::Rps)),
            FleetEvent::Failed(id, _, error) => format!("failed {id} {error}"),
            FleetEvent::Late(id, _) => format!("late {id}"),
            FleetEvent::Source(_, trouble) => format!("source {trouble:?}"),
            other => format!("{other:?}"),
        };
        events.iter().map(word).collect()
    }

    #[test]
    fn servers_come_and_go_as_prometheus_knows_them() {
        let mut scraped = scraped();
        let events = scraped.events(Ok(vec![row("web2:9191", false, 0.0), row("web1:9191", true, 5.0)]));
        assert_eq!(
            told(&events),
            ["joined 0 web1:9191", "figures 0 Some(5.0)", "joined 1 web2:9191", "failed 1 Prometheus cannot scrape it"]
        );
        let FleetEvent::Joined(_, server) = &events[0] else { unreachable!() };
        assert_eq!(server.address.as_ref().unwrap().to_string(), "http://web1:9191/");
        let events = scraped.events(Ok(vec![row("web2:9191", true, 7.0), row("web3:9191", true, 1.0)]));
        assert_eq!(told(&events), ["figures 1 Some(7.0)", "joined 2 web3:9191", "figures 2 Some(1.0)", "left 0"]);
    }

    #[test]
    fn a_prometheus_that_is_silent_says_nothing_of_its_servers() {
        let mut scraped = scraped();
        scraped.events(Ok(vec![row("web1:9191", true, 5.0)]));
        for expected in
            [&["source Some(\"the server closed the connection without an answer\")", "late 0"][..], &["late 0"]]
        {
            assert_eq!(told(&scraped.events(Err(SourceError::Empty))), expected);
        }
        let events = scraped.events(Ok(Vec::new()));
        assert_eq!(told(&events), ["left 0", "source Some(\"it knows no server with these labels\")"]);
        assert_eq!(told(&scraped.events(Ok(vec![row("w:1", true, 5.0)])))[2], "source None");
    }

    #[test]
    fn percentiles_of_all_end_when_there_are_no_requests_or_no_answer() {
        let mut scraped = scraped();
        let all = Row { together: [Some(1e3), Some(2e3), Some(3e3)], ..Row::default() };
        let count = |events: Vec<FleetEvent>, told: bool| {
            let is = |event: &&FleetEvent| matches!(event, FleetEvent::Together(_, all) if all.is_some() == told);
            events.iter().filter(is).count()
        };
        assert_eq!(count(scraped.events(Ok(vec![row("w:1", true, 5.0), all.clone()])), true), 1);
        let silent = Row { together: [None; 3], ..Row::default() };
        assert_eq!(count(scraped.events(Ok(vec![row("w:1", true, 0.0), silent])), false), 1);
        assert_eq!(count(scraped.events(Ok(vec![row("w:1", true, 5.0), all])), true), 1);
        assert_eq!(count(scraped.events(Err(SourceError::Empty)), false), 1);
        assert_eq!(count(scraped.events(Err(SourceError::Empty)), false), 0);
    }

    #[test]
    fn the_past_is_told_by_how_long_ago_it_was() {
        let mut scraped = scraped();
        scraped.events(Ok(vec![row("web1:9191", true, 5.0)]));
        let now = Clock::local().0 as f64 / 1e6;
        let past = |ago: f64| Row { at: now - ago, ..row("web1:9191", true, ago) };
        let events = scraped.past(Ok(vec![past(60.0), past(30.0), past(-60.0), Row { at: 1.0, ..Row::default() }]));
        let [FleetEvent::Past(_, points)] = events.as_slice() else { panic!("{events:?}") };
        let seconds: Vec<u64> = points.iter().map(|(ago, _)| ago.as_secs_f64().round() as u64).collect();
        assert_eq!(seconds, [60, 30]);
        assert!(scraped.past(Err(SourceError::Empty)).is_empty());
    }
}
