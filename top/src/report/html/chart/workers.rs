//! The memory of each worker: a line for each; of many the largest, and between which bounds all the others are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::axis::{Values, short};
use super::super::markup::Markup;
use super::{Frame, KEYS, LINES};
use crate::model::{LARGEST, MOST_LINES};
use rwsgi_assertions::Unit;

pub(super) const TITLE: &str = "Memory by worker";

/// A worker's memory, bytes, in each part of the run.
struct Worker {
    id: u32,
    line: Vec<Option<f64>>,
}

impl Worker {
    fn most(&self) -> f64 {
        self.line.iter().copied().flatten().fold(0.0, f64::max)
    }
}

/// The lowest and the highest of several workers in each part of the run.
fn bounds(workers: &[Worker], parts: usize) -> [Vec<Option<f64>>; 2] {
    let all = |part: usize| workers.iter().filter_map(move |worker| worker.line[part]);
    let bound = |choose: fn(f64, f64) -> f64| (0..parts).map(|part| all(part).reduce(choose)).collect();
    [bound(f64::min), bound(f64::max)]
}

impl Frame<'_> {
    fn workers(&self) -> Vec<Worker> {
        let mut lines: BTreeMap<u32, Vec<Option<f64>>> = BTreeMap::new();
        for (part, slice) in self.slices.iter().enumerate() {
            for (id, rss) in &slice.memory {
                let line = lines.entry(*id).or_insert_with(|| vec![None; self.slices.len()]);
                line[part] = Some(*rss as f64);
            }
        }
        let mut workers: Vec<Worker> = lines.into_iter().map(|(id, line)| Worker { id, line }).collect();
        workers.sort_by(|a, b| b.most().total_cmp(&a.most()));
        workers
    }

    /// Draws the chart; `false` when the server does not tell it.
    pub(super) fn workers_memory(&self, markup: &mut Markup) -> bool {
        let mut largest = self.workers();
        if largest.is_empty() {
            return false;
        }
        let many = largest.len() > MOST_LINES;
        let rest = largest.split_off(LARGEST.min(largest.len()));
        let all = || largest.iter().chain(&rest).flat_map(|worker| worker.line.iter().copied().flatten());
        let values = Values::around(Unit::Bytes, all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
        let bounds = bounds(&rest, self.slices.len());
        let name = |worker: &Worker| format!("worker {}", worker.id);
        // What the table and a pointer over the chart tell.
        let [lowest, highest] = &bounds;
        let mut series: Vec<(String, &[Option<f64>])> =
            largest.iter().map(|worker| (name(worker), worker.line.as_slice())).collect();
        if many {
            series.push(("others, highest".to_owned(), highest));
            series.push(("others, lowest".to_owned(), lowest));
        } else {
            series.extend(rest.iter().map(|worker| (name(worker), worker.line.as_slice())));
        }
        markup.element("figure", &[], |markup| {
            markup.element("figcaption", &[], |markup| {
                markup.line("h3", "", TITLE);
                for (place, worker) in largest.iter().enumerate() {
                    markup.element("span", &[("class", &KEYS[place])], |markup| {
                        markup.text(name(worker));
                        markup.line("small", "", format_args!(" at most {}", Unit::Bytes.show(worker.most())));
                    });
                }
                if !rest.is_empty() {
                    let others = if rest.len() == 1 { "other" } else { "others" };
                    let class = if many { "key between" } else { "key others" };
                    markup.line("span", class, format_args!("{} {others}", rest.len()));
                }
                markup.line("small", "", "Resident. The scale does not begin at 0.");
            });
            let label = format!("{TITLE} over time; the same values are in the table below");
            self.plot(markup, &values, &label, |markup| {
                if many {
                    markup.leaf("path", &[("class", &"band"), ("d", &self.band(lowest, highest, &values))]);
                } else {
                    for worker in &rest {
                        markup.leaf("path", &[("class", &"rest"), ("d", &self.path(&worker.line, &values))]);
                    }
                }
                // The largest last: where they meet, it is seen.
                for (worker, class) in largest.iter().zip(LINES).rev() {
                    markup.leaf("path", &[("class", &class), ("d", &self.path(&worker.line, &values))]);
                }
                self.columns(markup, |part| {
                    let known = series.iter().filter_map(|(name, line)| Some((name, line[part]?)));
                    known.map(|(name, value)| format!("\n{name}: {}", Unit::Bytes.show(value))).collect()
                });
            });
            self.table(markup, series.iter().map(|(name, _)| name.clone()).collect(), |part| {
                let cell =
                    |line: &[Option<f64>]| line[part].map_or_else(|| "-".to_owned(), |value| Unit::Bytes.show(value));
                series.iter().map(|(_, line)| cell(line)).collect()
            });
        });
        markup.newline();
        true
    }

    /// What lies between two lines, in pieces where there is nothing for a while.
    fn band(&self, lowest: &[Option<f64>], highest: &[Option<f64>], values: &Values) -> String {
        let known = |part: usize| Some((self.middle(self.slices.get(part)?), lowest[part]?, highest[part]?));
        let (mut path, mut part) = (String::new(), 0);
        while part < self.slices.len() {
            let piece: Vec<(f64, f64, f64)> = (part..self.slices.len()).map_while(known).collect();
            let above = piece.iter().map(|(x, _, high)| (x, high));
            let below = piece.iter().rev().map(|(x, low, _)| (x, low));
            for (place, (x, value)) in above.chain(below).enumerate() {
                let _ = write!(path, "{}{} {}", if place == 0 { 'M' } else { 'L' }, short(*x), short(values.y(*value)));
            }
            path.push_str(if piece.is_empty() { "" } else { "Z" });
            part += piece.len().max(1);
        }
        path
    }
}
