//! `rwsgi ctl reload --canary`: has a new generation tried on a few workers, watches it beside the others, and keeps or
//! undoes it. Whatever happens to this program, the server undoes what nobody has kept in time.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rwsgi_assertions::{Assertion, Judged, METRICS, Metric, Outcome, Sureness, Window, judge, numbers};
use rwsgi_stats::control::{Answer, Reply, Request};
use rwsgi_stats::{Generation, Snapshot};
use serde_json::json;

use super::client::Client;
use super::find;
use super::interrupt::Interrupt;
use super::print::{self, complain};
use super::words::Server;
use super::words::Trial;
use super::{DONE, FAILED, NO_SERVER};

/// It was undone, for there was too little to tell by.
pub(super) const NOT_TOLD: i32 = 4;
/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// How often a line is printed, at most.
const LINE: Duration = Duration::from_secs(5);
/// The server undoes so much later than this program decides.
const GRACE: Duration = Duration::from_secs(5);

/// How a trial ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Keep,
    /// An assertion does not hold.
    Undo,
    /// There was too little to tell by.
    CannotTell,
}

/// Both generations, as they were at the beginning and are now.
struct Beside {
    number: u32,
    /// The one that serves, at the beginning.
    old: Generation,
    begun: Instant,
}

/// What both did in the same time.
struct Windows {
    new: Window,
    old: Window,
    /// Workers of both.
    workers: [u32; 2],
}

/// Does it; returns the exit status.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn run(server: &Server, trial: &Trial, as_json: bool) -> anyhow::Result<i32> {
    let interrupt = Interrupt::catch().context("cannot watch for signals")?;
    let mut client = match find::client(server) {
        Ok(client) => client,
        Err(why) => {
            complain(&format!("{why:#}"));
            return Ok(NO_SERVER);
        }
    };
    let seconds = (trial.time + GRACE).as_secs_f64();
    let begun = client.ask_unless(&Request::Canary { workers: trial.workers, seconds }, print::progress, || {
        interrupt.wait(Duration::ZERO)
    });
    match begun {
        Ok(Some(Reply::Done(_))) => {}
        Ok(Some(Reply::Failed(why) | Reply::Progress(why))) => {
            complain(&why);
            return Ok(FAILED);
        }
        Ok(None) => return Ok(undo(server, "interrupted")),
        Err(why) => {
            complain(&format!("{why:#}"));
            return Ok(FAILED);
        }
    }
    match watch(&mut client, trial, &interrupt, as_json) {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Ok(undo(server, "interrupted")),
        Err(why) => Ok(undo(server, &format!("{why:#}"))),
    }
}

/// Undoes it over a connection of its own: on the other one, an answer may still be awaited.
fn undo(server: &Server, why: &str) -> i32 {
    let undone = find::client(server).and_then(|mut client| client.ask(&Request::CanaryUndo, |_| ()));
    match undone {
        Ok(Reply::Done(Answer::Text(text))) => complain(&format!("{why}: {text}")),
        Ok(Reply::Failed(failed)) => complain(&format!("{why}; {failed}")),
        _ => complain(&format!("{why}; the server does not answer; it undoes by itself what is not kept in time")),
    }
    FAILED
}

/// Watches until the end; `None` when it was interrupted.
fn watch(client: &mut Client, trial: &Trial, interrupt: &Interrupt, as_json: bool) -> anyhow::Result<Option<i32>> {
    let beside = Beside::begin(&stats(client)?)?;
    say(as_json, &format!("generation {} is tried for {}", beside.number, time(trial.time)))?;
    let mut printed = beside.begun;
    loop {
        let left = trial.time.saturating_sub(beside.begun.elapsed());
        if interrupt.wait(left.min(LOOK)) {
            return Ok(None);
        }
        let snapshot = stats(client)?;
        let is_over = beside.begun.elapsed() >= trial.time;
        let windows = match beside.windows(&snapshot) {
            Ok(windows) => windows,
            Err(Ended::Kept) => {
                say(as_json, "kept by somebody else")?;
                return Ok(Some(DONE));
            }
            Err(Ended::Undone) => {
                complain(&format!("generation {} was undone: the server's log says why", beside.number));
                return Ok(Some(FAILED));
            }
            Err(Ended::Lost) => bail!("the stats document no longer has both generations"),
        };
        if is_over || printed.elapsed() >= LINE {
            printed = Instant::now();
            say(as_json, &beside.line(&windows))?;
        }
        let judged = trial.judge(&windows, if is_over { Sureness::Once } else { Sureness::AgainAndAgain });
        let decision = match trial.decide(&judged) {
            decision if is_over => decision,
            Decision::Undo if trial.is_lost(&judged) => Decision::Undo,
            _ => continue,
        };
        return conclude(client, trial, &beside, &judged, decision, interrupt, as_json).map(Some);
    }
}

/// Does what was decided, and says so.
fn conclude(
    client: &mut Client,
    trial: &Trial,
    beside: &Beside,
    judged: &[Judged],
    decision: Decision,
    interrupt: &Interrupt,
    as_json: bool,
) -> anyhow::Result<i32> {
    let request = if decision == Decision::Keep { Request::CanaryKeep } else { Request::CanaryUndo };
    let is_enough = || interrupt.wait(Duration::ZERO);
    let Some(reply) = client.ask_unless(&request, print::progress, is_enough)? else {
        complain(
            "interrupted: the new generation is kept, but not all workers serve it yet: rwsgi ctl stats says when",
        );
        return Ok(FAILED);
    };
    let (text, status) = match reply {
        Reply::Done(Answer::Text(text)) => (
            text,
            match decision {
                Decision::Keep => DONE,
                Decision::Undo => FAILED,
                Decision::CannotTell => NOT_TOLD,
            },
        ),
        Reply::Failed(why) => (why, FAILED),
        _ => bail!("the server does not speak the control protocol"),
    };
    let mut out = Vec::new();
    if as_json {
        let rows = trial.assertions.iter().zip(judged).map(|(assertion, judged)| {
            json!({
                "assert": assertion.text,
                "actual": judged.value,
                "threshold": judged.threshold,
                "result": word(&judged.outcome),
                "note": note(judged),
            })
        });
        let rows: Vec<_> = rows.collect();
        let line = json!({
            "generation": beside.number,
            "kept": status == DONE,
            "seconds": beside.begun.elapsed().as_secs_f64(),
            "exit": status,
            "what": text,
            "assertions": rows,
        });
        rwsgi_stats::write_json(&mut out, &line)?;
        out.push(b'\n');
    } else {
        out.extend_from_slice(table(trial, judged).as_bytes());
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }
    print(&out)?;
    Ok(status)
}

impl Trial {
    fn judge(&self, windows: &Windows, sure: Sureness) -> Vec<Judged> {
        self.assertions.iter().map(|assertion| judge(assertion, &windows.new, Some(&windows.old), sure)).collect()
    }

    fn decide(&self, judged: &[Judged]) -> Decision {
        let any = |is_meant: fn(&Outcome) -> bool| judged.iter().any(|judged| is_meant(&judged.outcome));
        if any(|outcome| *outcome == Outcome::Fail) {
            Decision::Undo
        } else if any(|outcome| matches!(outcome, Outcome::Unknown(_)))
            || any(|outcome| *outcome == Outcome::TooFew) && !self.keep_if_idle
        {
            Decision::CannotTell
        } else {
            Decision::Keep
        }
    }

    /// Whether one that does not hold never will, whatever comes.
    fn is_lost(&self, judged: &[Judged]) -> bool {
        let lost = |(assertion, judged): (&Assertion, &Judged)| {
            judged.outcome == Outcome::Fail && assertion.is_lost_for_good()
        };
        self.assertions.iter().zip(judged).any(lost)
    }
}

/// How a canary has ended without us.
enum Ended {
    Kept,
    Undone,
    Lost,
}

impl Beside {
    fn begin(snapshot: &Snapshot) -> anyhow::Result<Self> {
        let Some(canary) = &snapshot.canary else { bail!("the canary was undone: the server's log says why") };
        let generations = snapshot.generations.as_deref().unwrap_or_default();
        let Some(old) = generations.iter().find(|generation| generation.state == "serving") else {
            bail!("the stats document does not have the generation that serves");
        };
        Ok(Self { number: canary.generation, old: old.clone(), begun: Instant::now() })
    }

    fn windows(&self, snapshot: &Snapshot) -> Result<Windows, Ended> {
        let generations = snapshot.generations.as_deref().unwrap_or_default();
        let of = |number: u32| generations.iter().find(|generation| generation.generation == number);
        let new = of(self.number).ok_or(Ended::Lost)?;
        match new.state.as_str() {
            "canary" => {}
            "serving" => return Err(Ended::Kept),
            _ => return Err(Ended::Undone),
        }
        let old = of(self.old.generation).ok_or(Ended::Lost)?;
        let seconds = self.begun.elapsed().as_secs_f64();
        Ok(Windows {
            new: Window { seconds, ..Window::of_generation(new) },
            old: Window::of_generation_since(old, &self.old, seconds).ok_or(Ended::Lost)?,
            workers: [new.workers, old.workers],
        })
    }

    /// Both beside each other.
    fn line(&self, windows: &Windows) -> String {
        let side = |number: u32, window: &Window, workers: u32| {
            let shown = ["p50", "p99", "error_rate"].map(|name| {
                let metric = METRICS.iter().find(|metric| metric.name == name);
                let value = metric.and_then(|metric| Some(metric.unit.show((metric.value)(window).ok()?)));
                format!("{name} {}", value.unwrap_or_else(|| "-".to_owned()))
            });
            let s = if workers == 1 { "" } else { "s" };
            format!("generation {number} ({workers} worker{s}): {} requests, {}", window.requests, shown.join(", "))
        };
        format!(
            "+{:.0}s  {}  |  {}",
            self.begun.elapsed().as_secs_f64(),
            side(self.number, &windows.new, windows.workers[0]),
            side(self.old.generation, &windows.old, windows.workers[1]),
        )
    }
}

fn stats(client: &mut Client) -> anyhow::Result<Snapshot> {
    match client.ask(&Request::Stats, |_| ())? {
        Reply::Done(Answer::Stats(snapshot)) => Ok(*snapshot),
        Reply::Failed(why) => bail!("{why}"),
        _ => bail!("the server does not speak the control protocol"),
    }
}

const fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::TooFew => "not enough requests to tell",
        Outcome::Unknown(_) => "not measured",
    }
}

fn note(judged: &Judged) -> Option<String> {
    match &judged.outcome {
        Outcome::Unknown(why) => Some(why.clone()),
        _ => judged.note.clone(),
    }
}

/// The table that `rtop` prints of assertions, as far as it has the same cells.
fn table(trial: &Trial, judged: &[Judged]) -> String {
    let show =
        |metric: &Metric, value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| metric.unit.show(value));
    let rows = trial.assertions.iter().zip(judged).map(|(assertion, judged)| {
        let expected = match judged.threshold.filter(|_| assertion.previous_generation().is_some()) {
            Some(threshold) => format!("{} ({})", assertion.text, assertion.metric.unit.show(threshold)),
            None => assertion.text.clone(),
        };
        [expected, show(assertion.metric, judged.value), word(&judged.outcome).to_owned()]
    });
    let titles = ["EXPECTED", "ACTUAL", "RESULT"].map(str::to_owned);
    let rows: Vec<[String; 3]> = std::iter::once(titles).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1)];
    let mut text = String::new();
    for [expected, actual, result] in &rows {
        let [first, second] = widths;
        let _ = writeln!(text, "{expected:<first$}  {actual:<second$}  {result}");
    }
    for (assertion, judged) in trial.assertions.iter().zip(judged) {
        if let Some(note) = note(judged) {
            let _ = writeln!(text, "{}: {note}", assertion.text);
        }
    }
    text
}

fn time(time: Duration) -> String {
    numbers::micros(time.as_micros() as u64)
}

/// A line for people; programs read one line at the end.
fn say(as_json: bool, line: &str) -> io::Result<()> {
    if as_json { Ok(()) } else { print(format!("{line}\n").as_bytes()) }
}

fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // Who has read enough still wants it judged.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(assertions: &[&str], keep_if_idle: bool) -> Trial {
        let assertions = assertions.iter().map(|text| text.parse().unwrap()).collect();
        Trial { assertions, keep_if_idle, ..Trial::default() }
    }

    fn judged(outcome: Outcome) -> Judged {
        Judged { value: None, threshold: None, outcome, note: None }
    }

    #[test]
    fn one_that_fails_undoes_it_and_what_cannot_be_told_does_unless_it_is_said_otherwise() {
        let decide = |keep_if_idle, outcomes: &[Outcome]| {
            let judged: Vec<_> = outcomes.iter().cloned().map(judged).collect();
            trial(&[], keep_if_idle).decide(&judged)
        };
        assert_eq!(decide(false, &[Outcome::Pass, Outcome::Pass]), Decision::Keep);
        assert_eq!(decide(true, &[Outcome::TooFew, Outcome::Fail]), Decision::Undo);
        assert_eq!(decide(false, &[Outcome::Pass, Outcome::TooFew]), Decision::CannotTell);
        assert_eq!(decide(true, &[Outcome::Pass, Outcome::TooFew]), Decision::Keep);
        assert_eq!(decide(true, &[Outcome::Unknown("uWSGI".into())]), Decision::CannotTell);
    }

    #[test]
    fn it_does_not_wait_for_the_end_when_nothing_can_help() {
        for (text, expected) in [
            ("exceptions == 0", true),
            ("p99 < 1.1 * previous_generation", true),
            ("p99 < 50ms", false),
            ("pss.mean < previous_generation", false),
            ("requests > 100", false),
        ] {
            assert_eq!(trial(&[text], false).is_lost(&[judged(Outcome::Fail)]), expected, "{text}");
            assert!(!trial(&[text], false).is_lost(&[judged(Outcome::Pass)]));
        }
    }

    #[test]
    fn the_generations_of_two_documents_are_set_beside_each_other() {
        let generation = |number, state: &str, requests| Generation {
            generation: number,
            state: state.into(),
            requests,
            workers: number,
            ..Generation::default()
        };
        let document = |new: &str, requests| Snapshot {
            generations: Some(vec![generation(2, new, requests), generation(1, "serving", 100 + requests)]),
            canary: Some(rwsgi_stats::Canary { generation: 2, ..Default::default() }),
            ..Snapshot::default()
        };
        let beside = Beside::begin(&document("canary", 5)).unwrap();
        let windows = beside.windows(&document("canary", 9)).ok().unwrap();
        assert_eq!((windows.new.requests, windows.old.requests), (9, 4), "of the new one all, of the other since then");
        let line = beside.line(&windows);
        assert!(
            line.contains("generation 2 (2 workers): 9 requests, p50 -") && line.contains("(1 worker): 4"),
            "{line}"
        );
        assert!(matches!(beside.windows(&document("undone", 9)), Err(Ended::Undone)));
        assert!(matches!(beside.windows(&document("serving", 9)), Err(Ended::Kept)));
        assert!(Beside::begin(&Snapshot::default()).is_err());
    }
}
