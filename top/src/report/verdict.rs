//! What came of assertions, told as a table, as JSON, as Markdown, as JUnit.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::tz::TimeZone;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};

use super::lines::number;
use super::lines::one_line_json;
use super::window::offset;
use crate::format;
use crate::source::LocalMicros;
use rwsgi_assertions::{Aggregate, Assertion};

/// When the worst was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// By this machine's clock.
    pub(crate) taken: LocalMicros,
    /// Since all servers answered.
    pub(crate) after: Duration,
}

/// The part of all that is the worst.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    /// Of several servers.
    pub(crate) server: Option<String>,
    /// The worker's number, where workers have values of their own.
    pub(crate) worker: Option<u32>,
    /// Its value.
    pub(crate) value: f64,
}

/// What was measured; of several windows, of the worst.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    /// The metric's value.
    pub(crate) value: f64,
    /// Who is the worst.
    pub(crate) part: Option<Part>,
    /// When it was the worst: the end of the interval between two samples.
    pub(crate) moment: Option<Moment>,
    /// What has to be said of how it was measured.
    pub(crate) note: Option<String>,
}

/// An assertion and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    /// What had to hold.
    pub(crate) assertion: Assertion,
    /// What it was held against; `None` when that is not known.
    pub(crate) threshold: Option<f64>,
    /// What was measured, or why nothing was.
    pub(crate) actual: Result<Measured, String>,
    /// Whether it held; `None` when it could not be measured.
    pub(crate) holds: Option<bool>,
    /// How many samples it rests on.
    pub(crate) samples: u64,
    /// How many windows had to hold.
    pub(crate) windows: u64,
}

impl Judgement {
    fn show(&self, value: f64) -> String {
        self.assertion.metric.unit.show(value)
    }

    /// What was expected, with what a baseline or the previous generation makes of it.
    fn expected(&self) -> String {
        let is_relative = self.assertion.needs_baseline() || self.assertion.previous_generation().is_some();
        match self.threshold.filter(|_| is_relative) {
            Some(threshold) => format!("{} ({})", self.assertion.text, self.show(threshold)),
            None => self.assertion.text.clone(),
        }
    }

    /// What was measured, as text.
    fn actual(&self) -> String {
        match &self.actual {
            Ok(measured) => self.show(measured.value),
            Err(why) => why.clone(),
        }
    }

    /// The verdict in a word.
    fn word(&self) -> &'static str {
        match self.holds {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None => "not measured",
        }
    }

    /// Who was the worst, and how bad.
    fn worst(&self) -> Option<String> {
        let part = self.actual.as_ref().ok()?.part.as_ref()?;
        let metric = self.assertion.metric;
        if let Some(servers) = part.server.as_ref().filter(|_| metric.is_state()) {
            let state = metric.of_route();
            return Some(format!("{servers}: {}{state}", if state == "up" { "not " } else { "" }));
        }
        let worker = part.worker.map(|worker| format!("worker {worker}"));
        let named: Vec<String> = part.server.clone().into_iter().chain(worker).collect();
        Some(format!("{}: {}", named.join(" "), self.show(part.value)))
    }

    /// When the worst was.
    fn when(&self, zone: &TimeZone) -> Option<String> {
        let moment = self.actual.as_ref().ok()?.moment?;
        let clock = format::local(moment.taken.0 / 1_000_000, "%H:%M:%S", zone);
        Some(format!("{clock} {}", offset(moment.after)))
    }

    fn note(&self) -> Option<&str> {
        self.actual.as_ref().ok()?.note.as_deref()
    }

    /// The samples it rests on.
    fn rests_on(&self) -> String {
        match self.windows {
            0 | 1 => self.samples.to_string(),
            windows => format!("{} in {windows} windows", self.samples),
        }
    }

    fn json(&self) -> Value {
        let measured = self.actual.as_ref().ok();
        let part = measured.and_then(|measured| measured.part.as_ref());
        json!({
            "assert": self.assertion.text,
            "metric": self.assertion.metric.name,
            "servers": self.assertion.servers.map(Aggregate::name),
            "route": self.assertion.route,
            "threshold": self.threshold.map(number),
            "actual": measured.map(|measured| number(measured.value)),
            "holds": self.holds,
            "why": self.actual.as_ref().err(),
            "note": self.note(),
            "worst": part.map(|part| json!({
                "target": part.server,
                "worker": part.worker,
                "value": number(part.value),
            })),
            "when": measured.and_then(|measured| measured.moment).map(|moment| moment.taken.0 as f64 / 1e6),
            "samples": self.samples,
            "windows": self.windows,
        })
    }
}

/// What came of a whole watch.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// Each assertion's.
    pub(crate) judgements: Vec<Judgement>,
    /// Why nothing that was measured counts: no server, a restart.
    pub(crate) void: Option<String>,
    /// Seconds that were judged.
    pub(crate) seconds: f64,
}

/// The titles of [`Verdict::cells`].
pub(super) const TITLES: [&str; 6] = ["EXPECTED", "ACTUAL", "RESULT", "WORST", "WHEN", "SAMPLES"];

impl Verdict {
    /// 0 when all hold, 1 when one fails, 2 when something could not be measured.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.void.is_some() {
            return 2;
        }
        let failed = self.judgements.iter().any(|judgement| judgement.holds == Some(false));
        let unknown = self.judgements.iter().any(|judgement| judgement.holds.is_none());
        if failed { 1 } else { u8::from(unknown) * 2 }
    }

    /// The cells of a row; nothing was measured, when nothing counts.
    pub(super) fn cells(&self, judgement: &Judgement, zone: &TimeZone) -> [String; 6] {
        let dash = || "-".to_owned();
        if self.void.is_some() {
            return [judgement.expected(), dash(), "not measured".to_owned(), dash(), dash(), dash()];
        }
        [
            judgement.expected(),
            judgement.actual(),
            judgement.word().to_owned(),
            judgement.worst().unwrap_or_else(dash),
            judgement.when(zone).unwrap_or_else(dash),
            judgement.rests_on(),
        ]
    }

    /// What has to be said below the table, a line each.
    pub(super) fn remarks(&self) -> Vec<String> {
        let notes = self
            .judgements
            .iter()
            .filter_map(|judgement| Some(format!("{}: {}", judgement.assertion.text, judgement.note()?)));
        match &self.void {
            Some(void) => vec![format!("not measured: {void}")],
            None => notes.collect(),
        }
    }

    /// The table that is printed.
    pub(crate) fn table(&self, zone: &TimeZone) -> String {
        let rows = self.judgements.iter().map(|judgement| self.cells(judgement, zone));
        let rows: Vec<[String; 6]> = std::iter::once(TITLES.map(str::to_owned)).chain(rows).collect();
        let widths: [usize; 6] =
            std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        let mut text = String::new();
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        for remark in self.remarks() {
            let _ = writeln!(text, "{remark}");
        }
        text
    }

    /// A line for programs.
    pub(crate) fn json(&self) -> String {
        let judgements: Vec<Value> = self.judgements.iter().map(Judgement::json).collect();
        let (exit, void) = (self.exit_code(), &self.void);
        one_line_json(&json!({"seconds": self.seconds, "exit": exit, "void": void, "assertions": judgements}))
    }

    /// The same as [`table`](Self::table) for a CI summary.
    pub(crate) fn markdown(&self, zone: &TimeZone) -> String {
        let mut text = format!("| {} |\n|{}\n", TITLES.join(" | ").to_lowercase(), " --- |".repeat(TITLES.len()));
        let plain = |text: &str| {
            let escape = |c: char| matches!(c, '|' | '\\' | '`' | '*' | '_' | '<' | '>' | '[' | ']' | '&');
            text.chars().flat_map(|c| escape(c).then_some('\\').into_iter().chain([c])).collect::<String>()
        };
        for judgement in &self.judgements {
            let [expected, rest @ ..] = self.cells(judgement, zone);
            let rest: Vec<String> = rest.iter().map(|cell| plain(cell)).collect();
            // Only the name of a route could end code or a cell.
            let expected = expected.replace('`', "'").replace('|', "\\|");
            let _ = writeln!(text, "| `{expected}` | {} |", rest.join(" | "));
        }
        for remark in self.remarks() {
            let _ = writeln!(text, "\n{}", plain(&remark));
        }
        text
    }

    /// The same for CI servers: a test case an assertion.
    ///
    /// # Errors
    /// Never, as far as is known: what XML cannot hold is left out.
    pub(crate) fn junit(&self, zone: &TimeZone) -> anyhow::Result<String> {
        let mut suite = TestSuite::new("rtop");
        suite.set_time(Duration::from_secs_f64(self.seconds));
        for judgement in &self.judgements {
            let status = match (&self.void, judgement.holds) {
                (None, Some(true)) => TestCaseStatus::success(),
                (None, Some(false)) => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message(self.sentence(judgement, zone));
                    status
                }
                (void, _) => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                    status.set_message(void.clone().unwrap_or_else(|| judgement.actual()));
                    status
                }
            };
            let mut case = TestCase::new(judgement.expected(), status);
            case.set_classname("rtop");
            if let (None, Some(true)) = (&self.void, judgement.holds) {
                case.set_system_out(self.sentence(judgement, zone));
            }
            suite.add_test_case(case);
        }
        let mut report = Report::new("rtop");
        report.add_test_suite(suite);
        Ok(report.to_string()?)
    }

    fn sentence(&self, judgement: &Judgement, zone: &TimeZone) -> String {
        let [_, actual, _, worst, when, samples] = self.cells(judgement, zone);
        let note = judgement.note().map_or_else(String::new, |note| format!("; {note}"));
        format!("actual: {actual}; worst: {worst}; when: {when}; samples: {samples}{note}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgement(text: &str, actual: Result<Measured, String>, holds: Option<bool>) -> Judgement {
        Judgement {
            assertion: text.parse().unwrap(),
            threshold: Some(55_000.0),
            actual,
            holds,
            samples: 30,
            windows: 1,
        }
    }

    fn verdict() -> Verdict {
        let part = Part { server: Some("web|1:9191".into()), worker: Some(3), value: 120_000.0 };
        let moment = Moment { taken: LocalMicros(1_795_227_110_000_000), after: Duration::from_millis(12_340) };
        let slow = Measured { value: 80_000.0, part: Some(part), moment: Some(moment), note: None };
        let part = Part { server: None, worker: Some(1), value: 0.02 };
        let note = Some("counts exceptions, for web2 does not tell status codes".to_owned());
        let errors = Measured { value: 0.01, part: Some(part), moment: None, note };
        let plain = Measured { value: 666.0, part: None, moment: None, note: None };
        let judgements = vec![
            judgement("p99 < 1.10 * baseline", Ok(slow), Some(false)),
            Judgement { windows: 3, ..judgement("error_rate < 5%", Ok(errors), Some(true)) },
            judgement("rps > 500", Ok(plain), Some(true)),
            judgement("pss.sum < 1G", Err("web2 does not tell".into()), None),
        ];
        Verdict { judgements, void: None, seconds: 30.0 }
    }

    #[test]
    fn every_form_of_the_verdict_names_what_failed() {
        let mut verdict = verdict();
        assert_eq!(verdict.exit_code(), 1);
        let zone = TimeZone::UTC;
        // The report's id and time are of the moment.
        let junit = |verdict: &Verdict| verdict.junit(&zone).unwrap();
        let mut all =
            format!("{}\n{}\n{}\n{}", verdict.table(&zone), verdict.markdown(&zone), verdict.json(), junit(&verdict));
        verdict.void = Some("the server was restarted".into());
        let _ = write!(all, "\n{}\n{}", verdict.table(&zone), junit(&verdict));
        assert_eq!(verdict.exit_code(), 2);
        insta::assert_snapshot!(all);
        verdict.void = None;
        verdict.judgements.remove(0);
        assert_eq!(verdict.exit_code(), 2, "what is not measured is not passed");
    }
}
