//! A run as one page that stands alone, for CI artifacts: verdicts, numbers, charts, what happened, and tables behind it
//! all. No script, nothing from outside.

mod axis;
mod chart;
mod markup;
#[cfg(test)]
mod tests;

use jiff::tz::TimeZone;
use rwsgi_stats::{LastException, Worker};

use self::axis::Times;
use self::chart::{FOUND, Frame, Mark, charts};
use self::markup::Markup;
use super::judge::Watched;
use super::timeline::{Event, Track, What};
use super::verdict::{TITLES, Verdict};
use crate::format;
use crate::model::Pool;
use crate::source::Monotonic;
use rwsgi_assertions::Window;
use rwsgi_assertions::{METRICS, Metric, Missing, measure, metric};

const STYLE: &str = include_str!("html/page.css");
/// Nothing is fetched, and no script runs, whatever a server sent.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// What a page is made of.
pub(super) struct Page<'a> {
    pub(super) verdict: &'a Verdict,
    pub(super) watched: &'a Watched,
    pub(super) pools: &'a [Pool],
    /// By server.
    pub(super) tracks: &'a [Track],
    /// Samples that came, and those that did not.
    pub(super) samples: (u64, u64),
    /// For times of day.
    pub(super) zone: &'a TimeZone,
}

/// The metrics that stand at the top.
const HEADLINES: [(&str, &str); 8] = [
    ("requests", "requests"),
    ("rps", "requests per second"),
    ("p50", "median latency"),
    ("p99", "99th percentile"),
    ("error_rate", "errors"),
    ("rss.max", "largest worker"),
    ("queue.max", "longest queue"),
    ("respawns", "processes started again"),
];

impl Page<'_> {
    /// The page.
    pub(super) fn html(&self) -> String {
        let labels: Vec<&str> = self.pools.iter().map(|pool| pool.label.as_str()).collect();
        let title = format!("rtop: {} — {}", self.result(), labels.join(", "));
        let mut markup = Markup::document();
        markup.element("html", &[("lang", &"en"), ("xmlns", &"http://www.w3.org/1999/xhtml")], |markup| {
            markup.element("head", &[], |markup| {
                markup.leaf("meta", &[("charset", &"utf-8")]);
                markup.leaf("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &POLICY)]);
                let scale = "width=device-width, initial-scale=1";
                markup.leaf("meta", &[("name", &"viewport"), ("content", &scale)]);
                markup.leaf("meta", &[("name", &"color-scheme"), ("content", &"light dark")]);
                markup.line("title", "", title);
                markup.style(STYLE);
            });
            markup.newline();
            markup.element("body", &[], |markup| {
                self.header(markup, &labels);
                if !self.verdict.judgements.is_empty() || self.verdict.void.is_some() {
                    self.verdicts(markup);
                }
                self.headlines(markup);
                let times = self.times();
                for (place, pool) in self.pools.iter().enumerate() {
                    self.server(markup, place, pool, times);
                }
                self.numbers(markup, &labels);
                markup.line("footer", "", format_args!("rtop {}", env!("CARGO_PKG_VERSION")));
            });
        });
        markup.newline();
        markup.finish()
    }

    /// The verdict in a few words.
    fn result(&self) -> &'static str {
        match (self.verdict.exit_code(), self.verdict.judgements.is_empty()) {
            (_, true) => "not judged",
            (0, _) => "pass",
            (1, _) => "FAIL",
            _ => "not measured",
        }
    }

    fn header(&self, markup: &mut Markup, labels: &[&str]) {
        let class = match self.result() {
            "pass" => "badge pass",
            "FAIL" => "badge fail",
            "not measured" => "badge unknown",
            _ => "badge",
        };
        markup.element("header", &[], |markup| {
            markup.element("h1", &[], |markup| {
                markup.line("span", class, self.result());
                markup.text(" ");
                markup.text(labels.join(", "));
            });
            let (samples, failures) = self.samples;
            let times = self.tracks.iter().flat_map(|track| track.slices().iter().map(|slice| slice.taken.0));
            let clock = |micros: u64| format::local(micros / 1_000_000, "%Y-%m-%d %H:%M:%S", self.zone);
            let judged = if self.verdict.judgements.is_empty() { "watched" } else { "judged" };
            let mut facts = vec![format!("{:.1} s {judged}", self.verdict.seconds), format!("{samples} samples")];
            if failures > 0 {
                facts.push(format!("{failures} failed"));
            }
            if let (Some(first), Some(last)) = (times.clone().min(), times.max()) {
                let zone = format::local(last / 1_000_000, "%Z", self.zone);
                facts.insert(0, format!("{} to {} {zone}", clock(first), clock(last)));
            }
            markup.line("p", "facts", facts.join(" · "));
        });
        markup.newline();
    }

    fn verdicts(&self, markup: &mut Markup) {
        markup.element("section", &[("id", &"verdict")], |markup| {
            markup.line("h2", "", "Verdict");
            if !self.verdict.judgements.is_empty() {
                let titles = TITLES.map(str::to_lowercase);
                markup.element("table", &[("class", &"verdicts")], |markup| {
                    markup.element("thead", &[], |markup| {
                        markup.element("tr", &[], |markup| {
                            for title in &titles {
                                markup.element("th", &[("scope", &"col")], |markup| markup.text(title));
                            }
                        });
                    });
                    markup.element("tbody", &[], |markup| {
                        for judgement in &self.verdict.judgements {
                            let holds = judgement.holds.filter(|_| self.verdict.void.is_none());
                            let class = match holds {
                                Some(true) => "pass",
                                Some(false) => "fail",
                                None => "unknown",
                            };
                            let cells = self.verdict.cells(judgement, self.zone);
                            markup.newline();
                            markup.element("tr", &[("class", &class)], |markup| {
                                for (place, (cell, title)) in cells.iter().zip(&titles).enumerate() {
                                    let tag = if place == 0 { "th" } else { "td" };
                                    markup.element(tag, &[("data-title", title)], |markup| {
                                        markup.line("span", "", cell);
                                    });
                                }
                            });
                        }
                    });
                });
            }
            for remark in self.verdict.remarks() {
                markup.line("p", "remark", remark);
            }
        });
        markup.newline();
    }

    fn windows(&self) -> impl Iterator<Item = &Window> + Clone {
        self.watched.spans.iter().map(|span| &span.whole)
    }

    fn headlines(&self, markup: &mut Markup) {
        markup.element("ul", &[("class", &"tiles")], |markup| {
            for (metric, name) in HEADLINES.iter().filter_map(|(name, title)| Some((metric(name)?, *title))) {
                let value = shown(metric, measure(metric, self.windows()));
                markup.element("li", &[], |markup| {
                    markup.line("strong", "", value);
                    markup.line("span", "", name);
                });
            }
        });
        markup.newline();
    }

    /// The time that all charts show.
    fn times(&self) -> Times {
        let slices = || self.tracks.iter().flat_map(Track::slices);
        let events = || self.tracks.iter().flat_map(|track| track.events().0.iter().map(|event| event.at));
        let from = slices().map(|slice| slice.begin).chain(events()).min().unwrap_or_default();
        let until = slices().map(|slice| slice.end).chain(events()).max().unwrap_or_default();
        Times::new(from, until, self.watched.begun.unwrap_or(from))
    }

    fn server(&self, markup: &mut Markup, place: usize, pool: &Pool, times: Times) {
        let Some(track) = self.tracks.get(place) else { return };
        markup.element("section", &[("class", &"server")], |markup| {
            markup.line("h2", "", &pool.label);
            markup.line("p", "facts", about(pool));
            let marks = self.marks(pool, track, times);
            let frame = Frame { slices: track.slices(), times, marks: &marks, zone: self.zone };
            let untold = charts(markup, &frame);
            if !untold.is_empty() {
                let text = format!(
                    "Without a chart, for the server did not tell, or there was nothing: {}.",
                    untold.join(", ")
                );
                markup.line("p", "facts", text);
            }
            self.events(markup, track, times);
            self.workers(markup, place);
            exceptions(markup, pool);
        });
        markup.newline();
    }

    /// What is marked in a server's charts.
    fn marks(&self, pool: &Pool, track: &Track, times: Times) -> Vec<Mark> {
        let end = |until: Monotonic| Some(times.share(until));
        let mut marks = Vec::new();
        if let (Some(begun), Some(from)) = (self.watched.begun, self.watched.from)
            && from > begun
        {
            let text = "warm-up: not judged".to_owned();
            let label = "warm-up".to_owned();
            marks.push(Mark { at: times.share(begun), until: end(from), class: "warmup", label, text });
        }
        for event in track.events().0 {
            let (class, label, until) = match &event.what {
                What::Restarted => ("restart", "restart".to_owned(), None),
                What::Generation(number) => ("generation", format!("gen {number}"), None),
                What::Respawned(_) => ("respawn", String::new(), None),
                What::Silent(_, until) => ("silent", "no sample".to_owned(), end(until.unwrap_or(Monotonic::MAX))),
            };
            marks.push(Mark { at: times.share(event.at), until, class, label, text: words(event, times) });
        }
        if let (None, Some(begun)) = (&self.verdict.void, self.watched.begun) {
            let failed = self.verdict.judgements.iter().filter(|judgement| judgement.holds == Some(false));
            for (judgement, measured) in failed.filter_map(|one| Some((one, one.actual.as_ref().ok()?))) {
                let Some(moment) = measured.moment else { continue };
                let server = measured.part.as_ref().and_then(|part| part.server.as_ref());
                if server.is_none_or(|server| *server == pool.label) {
                    let (at, label) =
                        (times.share(begun.after(moment.after)), judgement.assertion.metric.name.to_owned());
                    let text = format!("the worst of '{}'", judgement.assertion.text);
                    marks.push(Mark { at, until: None, class: FOUND, label, text });
                }
            }
        }
        marks.sort_by(|a, b| a.at.total_cmp(&b.at));
        marks
    }

    fn events(&self, markup: &mut Markup, track: &Track, times: Times) {
        let (events, more) = track.events();
        if events.is_empty() {
            return;
        }
        markup.element("details", &[("class", &"events"), ("open", &"open")], |markup| {
            markup.line("summary", "", format_args!("What happened ({})", events.len() as u64 + more));
            let titles = ["when", "in the run", "what"].map(str::to_owned);
            let rows = events.iter().map(|event| {
                let clock = format::local(event.taken.0 / 1_000_000, "%H:%M:%S", self.zone);
                vec![clock, times.offset(event.at), words(event, times)]
            });
            markup.table("happened", &titles, rows);
            if more > 0 {
                markup.line("p", "facts", format_args!("{more} more are not listed."));
            }
        });
        markup.newline();
    }

    /// What each worker did.
    fn workers(&self, markup: &mut Markup, place: usize) {
        const SHOWN: [&str; 9] =
            ["requests", "rps", "p50", "p99", "latency.max", "error_rate", "exceptions", "rss.max", "respawns"];
        let Some(span) = self.watched.spans.get(place).filter(|span| !span.workers.is_empty()) else { return };
        let shown: Vec<&Metric> = SHOWN.iter().filter_map(|name| metric(name)).collect();
        markup.element("details", &[("open", &"open")], |markup| {
            markup.line("summary", "", format_args!("Workers ({})", span.workers.len()));
            let titles: Vec<String> =
                std::iter::once("worker").chain(shown.iter().map(|metric| metric.name)).map(str::to_owned).collect();
            let row = |(id, window): &(u32, Window)| {
                let values = shown.iter().map(|metric| self::shown(metric, (metric.value)(window)));
                std::iter::once(id.to_string()).chain(values).collect::<Vec<String>>()
            };
            markup.table("values", &titles, span.workers.iter().map(row));
        });
        markup.newline();
    }

    /// Every metric over all that was judged.
    fn numbers(&self, markup: &mut Markup, labels: &[&str]) {
        markup.element("details", &[("class", &"numbers")], |markup| {
            markup.line("summary", "", "All metrics");
            let together = (labels.len() > 1).then_some("together");
            let titles = std::iter::once("metric").chain(together).chain(labels.iter().copied()).chain(["meaning"]);
            let titles: Vec<String> = titles.map(str::to_owned).collect();
            let row = |metric: &Metric| {
                let together = together.map(|_| shown(metric, measure(metric, self.windows())));
                let each = self.windows().map(|window| shown(metric, (metric.value)(window)));
                let cells = std::iter::once(metric.name.to_owned()).chain(together).chain(each);
                cells.chain([metric.help.to_owned()]).collect::<Vec<String>>()
            };
            markup.table("values", &titles, METRICS.iter().map(row));
        });
        markup.newline();
    }
}

/// A metric's value as it is shown; a dash where there is none.
fn shown(metric: &Metric, value: Result<f64, Missing>) -> String {
    value.map_or_else(|_| "-".to_owned(), |value| metric.unit.show(value))
}

/// What a server is, in a line.
fn about(pool: &Pool) -> String {
    let Some(sample) = &pool.current else { return "It never answered.".to_owned() };
    let snapshot = &sample.snapshot;
    let name = snapshot.server.as_deref().unwrap_or("uwsgi");
    let mut facts = vec![format!("{name}-{}", snapshot.version)];
    facts.extend(snapshot.python.as_ref().map(|python| format!("Python {python}")));
    facts.extend(snapshot.hostname.as_ref().or(pool.node.as_ref()).map(|node| format!("node {node}")));
    facts.push(format!("{} workers, {} cores", snapshot.workers.len(), sample.totals.cores));
    facts.push(format!("pid {}", snapshot.pid));
    facts.push(snapshot.cwd.clone());
    facts.join(" · ")
}

/// What happened, in a line.
fn words(event: &Event, times: Times) -> String {
    match &event.what {
        What::Restarted => "the server was restarted".to_owned(),
        What::Generation(number) => format!("generation {number} of the application was loaded"),
        What::Respawned(workers) => {
            let workers: Vec<String> = workers.iter().map(u32::to_string).collect();
            let which = if workers.len() == 1 { "worker" } else { "workers" };
            format!("a process was started: {which} {}", workers.join(", "))
        }
        What::Silent(why, Some(until)) => format!("no sample until {}: {why}", times.offset(*until)),
        What::Silent(why, None) => format!("no sample any more: {why}"),
    }
}

/// The last exceptions of a server's workers.
fn exceptions(markup: &mut Markup, pool: &Pool) {
    let workers = pool.current.iter().flat_map(|sample| &sample.snapshot.workers);
    let known = |worker: &Worker| worker.last_exception.clone().map(|exception| (worker.id, exception));
    let mut all: Vec<(u32, LastException)> = workers.filter_map(known).collect();
    all.sort_by_key(|(_, exception)| std::cmp::Reverse(exception.when));
    let Some(count) = Some(all.len()).filter(|count| *count > 0) else { return };
    markup.element("details", &[("class", &"exceptions")], |markup| {
        markup.line("summary", "", format_args!("Last exceptions ({count})"));
        for (id, LastException { kind, message, location, traceback, when: _, request }) in &all {
            markup.element("article", &[], |markup| {
                markup.element("p", &[], |markup| {
                    markup.line("strong", "", format_args!("{kind}: {message}"));
                });
                markup.line("p", "facts", format_args!("worker {id}, on {request}"));
                let lines = std::iter::once(location).chain(traceback.iter().filter(|line| *line != location));
                let lines: Vec<&str> = lines.map(String::as_str).collect();
                markup.line("pre", "", lines.join("\n"));
            });
        }
    });
    markup.newline();
}
