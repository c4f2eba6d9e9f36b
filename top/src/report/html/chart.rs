//! Charts of one server: lines over time, and the latency heat map; what happened is marked in each, and behind each stands
//! a table of the same values.
//!
//! Shapes are stretched to the width of the page, texts are not: those are HTML, placed beside and over the drawing.

mod workers;

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::axis::{HEIGHT, Times, Values, WIDTH, short};
use super::markup::Markup;
use crate::format;
use crate::model::{Counts, HEAT_ROWS, heat_floor};
use crate::report::timeline::Slice;
use rwsgi_assertions::Window;
use rwsgi_assertions::{Unit, metric};

/// A line of a chart.
struct Line {
    name: &'static str,
    value: fn(&Window) -> Option<f64>,
}

/// A chart of lines.
struct Chart {
    title: &'static str,
    /// What has to be said of its values.
    note: &'static str,
    unit: Unit,
    log: bool,
    lines: &'static [Line],
}

/// A metric's value, of what covers time; `None` when it is not told.
fn known(name: &str, window: &Window) -> Option<f64> {
    (metric(name)?.value)(window).ok()
}

fn per_second(window: &Window, count: Option<u64>) -> Option<f64> {
    count.filter(|_| window.seconds > 0.0).map(|count| count as f64 / window.seconds)
}

const CHARTS: &[Chart] = &[
    Chart {
        title: "Requests per second",
        note: "",
        unit: Unit::PerSecond,
        log: false,
        lines: &[Line { name: "requests", value: |w| per_second(w, Some(w.requests)) }],
    },
    Chart {
        title: "Failures per second",
        note: "",
        unit: Unit::PerSecond,
        log: false,
        lines: &[
            Line { name: "exceptions", value: |w| per_second(w, Some(w.exceptions)) },
            Line { name: "5xx", value: |w| per_second(w, w.failed.get().map(|[_, server]| *server)) },
            Line { name: "4xx", value: |w| per_second(w, w.failed.get().map(|[client, _]| *client)) },
        ],
    },
    Chart {
        title: "Latency",
        note: "Logarithmic scale.",
        unit: Unit::Time,
        log: true,
        lines: &[
            Line { name: "p50", value: |w| known("p50", w) },
            Line { name: "p95", value: |w| known("p95", w) },
            Line { name: "p99", value: |w| known("p99", w) },
        ],
    },
    Chart {
        title: "Memory",
        note: "",
        unit: Unit::Bytes,
        log: false,
        lines: &[
            Line { name: "all workers, PSS", value: |w| known("pss.sum", w) },
            Line { name: "all workers, RSS", value: |w| known("rss.sum", w) },
            Line { name: "largest worker, RSS", value: |w| known("rss.max", w) },
        ],
    },
    Chart {
        title: "Queue",
        note: "",
        unit: Unit::Number,
        log: false,
        lines: &[Line { name: "waiting", value: |w| known("queue.max", w) }],
    },
    Chart {
        title: "Utilization",
        note: "",
        unit: Unit::Fraction,
        log: false,
        lines: &[Line { name: "cores in requests", value: |w| known("utilization", w) }],
    },
];

/// What is marked in every chart of a server.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// Where, from 0 to 1; and to where, when it is a time and not a moment.
    pub(super) at: f64,
    pub(super) until: Option<f64>,
    /// How it looks.
    pub(super) class: &'static str,
    /// What stands over it; nothing over what has no name.
    pub(super) label: String,
    /// What it is, in a line.
    pub(super) text: String,
}

/// The class of what an assertion found.
pub(super) const FOUND: &str = "worst";

/// What all charts of a server have in common.
pub(super) struct Frame<'a> {
    pub(super) slices: &'a [Slice],
    pub(super) times: Times,
    pub(super) marks: &'a [Mark],
    pub(super) zone: &'a TimeZone,
}

/// Draws all charts that the server tells something for; returns what it does not tell.
pub(super) fn charts(markup: &mut Markup, frame: &Frame<'_>) -> Vec<&'static str> {
    let mut untold = Vec::new();
    markup.element("div", &[("class", &"charts")], |markup| {
        for chart in CHARTS {
            if !frame.lines(markup, chart) {
                untold.push(chart.title);
            }
            if chart.title == "Latency" && !frame.heat_map(markup) {
                untold.push(HEAT_MAP);
            }
            if chart.title == "Memory" && !frame.workers_memory(markup) {
                untold.push(workers::TITLE);
            }
        }
    });
    untold
}

const HEAT_MAP: &str = "Latency heat map";
/// Shades of the heat map.
const SHADES: [&str; 7] = ["q1", "q2", "q3", "q4", "q5", "q6", "q7"];
const LINES: [&str; 3] = ["line l1", "line l2", "line l3"];
const KEYS: [&str; 3] = ["key k1", "key k2", "key k3"];

impl Frame<'_> {
    /// Where the middle of a slice stands.
    fn middle(&self, slice: &Slice) -> f64 {
        (self.times.x(slice.begin) + self.times.x(slice.end)) / 2.0
    }

    /// The end of a slice, by the clock and by the run.
    fn when(&self, slice: &Slice) -> [String; 2] {
        let clock = format::local(slice.taken.0 / 1_000_000, "%H:%M:%S", self.zone);
        [clock, self.times.offset(slice.end)]
    }

    /// Draws a chart; `false` when nothing is known for it.
    fn lines(&self, markup: &mut Markup, chart: &Chart) -> bool {
        let series: Vec<(usize, Vec<Option<f64>>)> = chart
            .lines
            .iter()
            .map(|line| self.slices.iter().map(|slice| (line.value)(&slice.window)).collect::<Vec<_>>())
            .enumerate()
            .filter(|(_, values)| values.iter().any(Option::is_some))
            .collect();
        if series.is_empty() {
            return false;
        }
        let all = || series.iter().flat_map(|(_, values)| values.iter().copied().flatten());
        let highest = all().fold(0.0, f64::max);
        let values = if chart.log {
            Values::logarithmic(chart.unit, all().fold(f64::INFINITY, f64::min), highest)
        } else {
            Values::linear(chart.unit, highest)
        };
        markup.element("figure", &[], |markup| {
            markup.element("figcaption", &[], |markup| {
                markup.line("h3", "", chart.title);
                for (place, values) in &series {
                    let most = values.iter().copied().flatten().fold(0.0, f64::max);
                    markup.element("span", &[("class", &KEYS[*place])], |markup| {
                        markup.text(chart.lines[*place].name);
                        markup.line("small", "", format_args!(" at most {}", chart.unit.show(most)));
                    });
                }
                markup.line("small", "", chart.note);
            });
            let label = format!("{} over time; the same values are in the table below", chart.title);
            self.plot(markup, &values, &label, |markup| {
                for (place, line) in &series {
                    let path = self.path(line, &values);
                    if let ([_], Some(area)) = (chart.lines, self.area(line, &values)) {
                        markup.leaf("path", &[("class", &"area"), ("d", &area)]);
                    }
                    markup.leaf("path", &[("class", &LINES[*place]), ("d", &path)]);
                }
                self.columns(markup, |place| {
                    let known = series.iter().filter_map(|(line, values)| Some((*line, values[place]?)));
                    let texts =
                        known.map(|(line, value)| format!("\n{}: {}", chart.lines[line].name, chart.unit.show(value)));
                    texts.collect()
                });
            });
            let names = series.iter().map(|(line, _)| chart.lines[*line].name.to_owned());
            self.table(markup, names.collect(), |place| {
                let cell = |(_, values): &(usize, Vec<Option<f64>>)| {
                    values[place].map_or_else(|| "-".to_owned(), |value| chart.unit.show(value))
                };
                series.iter().map(cell).collect()
            });
        });
        markup.newline();
        true
    }

    /// Values as a line; it breaks where there is none, and a value alone is a dot.
    fn path(&self, line: &[Option<f64>], values: &Values) -> String {
        let (mut path, mut before) = (String::new(), false);
        for (place, (slice, value)) in self.slices.iter().zip(line).enumerate() {
            let alone = !before && !line.get(place + 1).is_some_and(Option::is_some);
            if let Some(value) = value {
                let (x, y) = (short(self.middle(slice)), short(values.y(*value)));
                let _ = write!(path, "{}{x} {y}", if before { 'L' } else { 'M' });
                path.push_str(if alone { "h0" } else { "" });
            }
            before = value.is_some();
        }
        path
    }

    /// What is under a line that does not break.
    fn area(&self, line: &[Option<f64>], values: &Values) -> Option<String> {
        let first = line.iter().position(Option::is_some)?;
        let whole = line[first..].iter().all(Option::is_some);
        let (begin, end) = (self.slices.get(first)?, self.slices.last()?);
        let [begin, end] = [begin, end].map(|slice| short(self.middle(slice)));
        whole.then(|| format!("{}L{end} {HEIGHT}L{begin} {HEIGHT}Z", self.path(line, values)))
    }

    /// Draws the heat map; `false` when the server tells no latencies, or there were none.
    fn heat_map(&self, markup: &mut Markup) -> bool {
        let heat = |slice: &Slice| {
            let mut heat = [0u64; HEAT_ROWS];
            for (value, count) in slice.window.latency.get().into_iter().flat_map(Counts::iter) {
                let row = (1..HEAT_ROWS).rev().find(|row| value >= heat_floor(*row)).unwrap_or(0);
                heat[row] = heat[row].saturating_add(count);
            }
            heat
        };
        let cells: Vec<[u64; HEAT_ROWS]> = self.slices.iter().map(heat).collect();
        let used = |row: &usize| cells.iter().any(|heat| heat[*row] > 0);
        let (Some(low), Some(high)) = ((0..HEAT_ROWS).find(used), (0..HEAT_ROWS).rev().find(used)) else {
            return false;
        };
        let rate = |slice: &Slice, count: u64| count as f64 / slice.window.seconds.max(1e-3);
        let rates = self.slices.iter().zip(&cells).flat_map(|(slice, heat)| heat.map(|count| rate(slice, count)));
        let most = rates.fold(0.0, f64::max);
        let height = HEIGHT / (high - low + 1) as f64;
        let mut shades: [String; SHADES.len()] = Default::default();
        for (slice, heat) in self.slices.iter().zip(&cells) {
            let (x, end) = (self.times.x(slice.begin), self.times.x(slice.end));
            for row in (low..=high).filter(|row| heat[*row] > 0) {
                // Few requests are to be seen beside many.
                let share = (rate(slice, heat[row]).ln_1p() / most.ln_1p()).clamp(0.0, 1.0);
                let shade = ((share * SHADES.len() as f64).ceil() as usize).clamp(1, SHADES.len()) - 1;
                let (y, width) = ((high - row) as f64 * height, end - x);
                let _ =
                    write!(shades[shade], "M{} {}h{w}v{}h-{w}Z", short(x), short(y), short(height), w = short(width));
            }
        }
        let floor = |row: usize| if row == 0 { "0".to_owned() } else { format::micros(heat_floor(row)) };
        let name = |row: usize| match row {
            _ if row + 1 == HEAT_ROWS => format!("{} or more", floor(row)),
            _ => format!("{} to {}", floor(row), floor(row + 1)),
        };
        // Every second one where they are many.
        let every = (high - low) / 6 + 1;
        let ticks = (low..=high).step_by(every).map(|row| ((high - row + 1) as f64 * height, floor(row)));
        markup.element("figure", &[], |markup| {
            markup.element("figcaption", &[], |markup| {
                markup.line("h3", "", HEAT_MAP);
                markup.line("small", "", "Requests by latency: the stronger the colour, the more.");
            });
            let label = "Requests by time and latency; the same values are in the table below";
            self.plot_with(markup, ticks.collect(), label, |markup| {
                for (path, shade) in shades.iter().zip(SHADES).filter(|(path, _)| !path.is_empty()) {
                    markup.leaf("path", &[("class", &shade), ("d", path)]);
                }
                self.columns(markup, |place| {
                    let rows = (low..=high).rev().filter(|row| cells[place][*row] > 0);
                    rows.map(|row| format!("\n{}: {}", name(row), cells[place][row])).collect()
                });
            });
            self.table(markup, (low..=high).map(name).collect(), |place| {
                (low..=high).map(|row| cells[place][row].to_string()).collect()
            });
        });
        markup.newline();
        true
    }

    fn plot(&self, markup: &mut Markup, values: &Values, label: &str, draw: impl FnOnce(&mut Markup)) {
        let ticks = values.ticks.iter().map(|(value, text)| (values.y(*value), text.clone())).collect();
        self.plot_with(markup, ticks, label, draw);
    }

    /// Axes and marks, with what is drawn between them. A tick is where it stands inside, and its text.
    fn plot_with(&self, markup: &mut Markup, ticks: Vec<(f64, String)>, label: &str, draw: impl FnOnce(&mut Markup)) {
        let percent = |value: f64| format!("{:.2}%", value * 100.0);
        markup.element("div", &[("class", &"plot")], |markup| {
            for (y, text) in &ticks {
                let style = format!("top:{}", percent(y / HEIGHT));
                markup.element("span", &[("class", &"y"), ("style", &style)], |markup| markup.text(text));
            }
            let size = format!("0 0 {WIDTH} {HEIGHT}");
            let attributes: [super::markup::Attribute<'_>; 4] =
                [("viewBox", &size), ("preserveAspectRatio", &"none"), ("role", &"img"), ("aria-label", &label)];
            markup.element("svg", &attributes, |markup| {
                for (y, _) in &ticks {
                    let line = format!("M0 {y}H{WIDTH}", y = short(*y));
                    markup.leaf("path", &[("class", &"grid"), ("d", &line)]);
                }
                for mark in self.marks {
                    if let Some(until) = mark.until {
                        let (x, width) = (short(mark.at * WIDTH), short((until - mark.at).max(0.001) * WIDTH));
                        let class = mark.class;
                        markup.leaf(
                            "rect",
                            &[("class", &class), ("x", &x), ("y", &"0"), ("width", &width), ("height", &HEIGHT)],
                        );
                    }
                }
                draw(markup);
                for mark in self.marks.iter().filter(|mark| mark.until.is_none()) {
                    let line = format!("M{} 0V{HEIGHT}", short(mark.at * WIDTH));
                    markup.leaf("path", &[("class", &mark.class), ("d", &line)]);
                }
            });
            self.mark_labels(markup);
            for (place, (x, text)) in self.times.labels().iter().enumerate() {
                let style = format!("left:{}", percent(*x));
                let class = if place % 2 == 0 { "x" } else { "x odd" };
                markup.element("span", &[("class", &class), ("style", &style)], |markup| markup.text(text));
            }
        });
    }

    /// What stands over the marks, where there is room.
    fn mark_labels(&self, markup: &mut Markup) {
        // What happened stands in one line, what an assertion found in another above it.
        for (class, found) in [("mark", false), ("mark found", true)] {
            let mut end = f64::NEG_INFINITY;
            let named = |mark: &&Mark| !mark.label.is_empty() && (mark.class == FOUND) == found;
            for mark in self.marks.iter().filter(named) {
                // As wide as on a phone, where a character takes a fortieth of the chart.
                let width = 0.025 * (mark.label.chars().count() + 1) as f64;
                // Near the right edge a text ends at its mark.
                let (begin, style) = if mark.at + width > 1.0 {
                    (mark.at - width, format!("right:{:.2}%", (1.0 - mark.at) * 100.0))
                } else {
                    (mark.at, format!("left:{:.2}%", mark.at * 100.0))
                };
                if begin < end {
                    continue;
                }
                end = begin + width;
                let attributes: [super::markup::Attribute<'_>; 3] =
                    [("class", &class), ("style", &style), ("title", &mark.text)];
                markup.element("span", &attributes, |markup| markup.text(&mark.label));
            }
        }
    }

    /// What a pointer over a part of the time is told.
    fn columns(&self, markup: &mut Markup, told: impl Fn(usize) -> String) {
        markup.element("g", &[("class", &"columns")], |markup| {
            for (place, slice) in self.slices.iter().enumerate() {
                let (x, end) = (self.times.x(slice.begin), self.times.x(slice.end));
                let width = short(end - x);
                if width == "0" {
                    continue;
                }
                let x = short(x);
                markup.element("rect", &[("x", &x), ("width", &width), ("height", &HEIGHT)], |markup| {
                    markup.line("title", "", format_args!("{}{}", self.when(slice).join(" "), told(place)));
                });
            }
        });
    }

    fn table(&self, markup: &mut Markup, names: Vec<String>, cells: impl Fn(usize) -> Vec<String>) {
        markup.element("details", &[], |markup| {
            markup.line("summary", "", "Table");
            let titles: Vec<String> = ["until".to_owned(), "in the run".to_owned()].into_iter().chain(names).collect();
            let row = |(place, slice): (usize, &Slice)| {
                self.when(slice).into_iter().chain(cells(place)).collect::<Vec<String>>()
            };
            markup.table("values", &titles, self.slices.iter().enumerate().map(row));
        });
    }
}
