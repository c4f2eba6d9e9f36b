//! Reports of a worker's memory as text, as a person reads it, and as JSON.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rwsgi_stats::control::{Answer, MemoryReport, MemoryRequest, MemoryRow, Request};
use serde::Serialize;

use crate::format;
use crate::source::{Control, ControlError, Target};

/// What a worker may take beyond the time that a server has to answer: until a thread of it is free, and for the report.
pub(crate) const LONGER: Duration = Duration::from_secs(65);

/// What can be asked of a worker's memory: the word for it, what it is, and what it costs; empty where it costs nothing
/// that anybody would notice.
pub(crate) const QUESTIONS: [(MemoryRequest, &str, &str, &str); 5] = [
    (
        MemoryRequest::Types,
        "types",
        "objects by type, and how many more than the last time",
        "one thread of the worker stands still while they are counted, about 170 ms for 100,000 objects",
    ),
    (
        MemoryRequest::TraceStart,
        "trace-start",
        "record where memory is allocated",
        "code that allocates runs 10 to 20 times slower in this worker until it is stopped, and the records take memory",
    ),
    (
        MemoryRequest::Trace,
        "trace",
        "lines that allocate, and how much more than the last time",
        "one thread of the worker stands still while the records are read, about a second for a million",
    ),
    (MemoryRequest::TraceStop, "trace-stop", "stop that, and forget what was recorded", ""),
    (MemoryRequest::Savings, "savings", "what recycling, refork, loading before the fork and gc.freeze save", ""),
];

/// The question of that word.
///
/// # Errors
/// When there is none, with all that there are.
pub(crate) fn memory_question(word: &str) -> Result<MemoryRequest, String> {
    let found = QUESTIONS.iter().find(|(_, known, _, _)| *known == word);
    found.map(|(question, ..)| *question).ok_or_else(|| {
        let all: Vec<&str> = QUESTIONS.iter().map(|(_, word, _, _)| *word).collect();
        format!("one of {}", all.join(", "))
    })
}

#[derive(Serialize)]
struct MemoryLine<'a> {
    target: &'a str,
    #[serde(flatten)]
    report: &'a MemoryReport,
}

/// Asks a server about the memory of a worker, and prints it. What the server says meanwhile goes to standard error.
///
/// # Errors
/// When there is no answer.
pub(crate) fn memory(
    target: &Target,
    control: Option<&Path>,
    timeout: Duration,
    worker: Option<u32>,
    what: MemoryRequest,
    json: bool,
) -> anyhow::Result<()> {
    let label = target.to_string();
    let any = Request::Memory { worker: 1, what };
    let control = Control::find(control, target, &any, timeout).with_context(|| label.clone())?;
    let worker = worker.map_or_else(|| largest(&control), Ok)?;
    let request = Request::Memory { worker, what };
    let answer = control.ask(&request, LONGER, &mut |words| {
        if let Some(words) = words {
            let _ = writeln!(io::stderr(), "{words}");
        }
        true
    })?;
    let Answer::Memory(report) = answer else { return Err(ControlError::Another.into()) };
    let text = if json {
        // Texts and numbers cannot fail.
        serde_json::to_string(&MemoryLine { target: &label, report: &report }).unwrap_or_default() + "\n"
    } else {
        report_lines(&report).into_iter().fold(String::new(), |text, line| text + line.trim_end() + "\n")
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The worker with the most resident memory.
fn largest(control: &Control) -> anyhow::Result<u32> {
    match control.ask(&Request::Stats, Duration::ZERO, &mut |_| true)? {
        Answer::Stats(snapshot) => {
            let largest = snapshot.workers.iter().max_by_key(|worker| worker.rss).map(|worker| worker.id);
            largest.context("the server has no worker")
        }
        _ => Err(ControlError::Another.into()),
    }
}

/// A report in lines: what it is, and its rows below their titles.
pub(crate) fn report_lines(report: &MemoryReport) -> Vec<String> {
    let MemoryReport { worker, pid, took, note, rows } = report;
    let mut lines = vec![format!("worker {worker} (pid {pid}): {note}"), format!("took {}", format::micros(*took))];
    if rows.is_empty() {
        return lines;
    }
    let has_counts = rows.iter().any(|row| row.count > 0);
    let mut title = String::new();
    if has_counts {
        let _ = write!(title, "{:>9} {:>9} ", "COUNT", "+COUNT");
    }
    lines.push(String::new());
    lines.push(title + &format!("{:>7} {:>7} NAME", "SIZE", "+SIZE"));
    lines.extend(rows.iter().map(|row| line(row, has_counts)));
    lines
}

fn line(row: &MemoryRow, has_counts: bool) -> String {
    let MemoryRow { name, count, count_growth, bytes, bytes_growth } = row;
    let blank = |text: String, nothing: bool| if nothing { String::new() } else { text };
    let mut line = String::new();
    if has_counts {
        let growth = blank(format!("{count_growth:+}"), *count_growth == 0);
        let _ = write!(line, "{:>9} {growth:>9} ", blank(count.to_string(), *count == 0));
    }
    let sign = if *bytes_growth < 0 { "-" } else { "+" };
    let growth = blank(format!("{sign}{}", format::size(bytes_growth.unsigned_abs())), *bytes_growth == 0);
    line + &format!("{:>7} {growth:>7} {name}", format::size(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table_that_says_what_grew() {
        let row = |name: &str, count, count_growth, bytes, bytes_growth| MemoryRow {
            name: name.into(),
            count,
            count_growth,
            bytes,
            bytes_growth,
        };
        let rows = vec![row("shop.Order", 2_000, 1_500, 96_000, 72_000), row("dict", 7, -3, 448, -192)];
        let report = MemoryReport { worker: 2, pid: 77, took: 12_000, note: "objects by type".into(), rows };
        assert_eq!(
            report_lines(&report),
            [
                "worker 2 (pid 77): objects by type",
                "took 12.0ms",
                "",
                "    COUNT    +COUNT    SIZE   +SIZE NAME",
                "     2000     +1500   93.8K  +70.3K shop.Order",
                "        7        -3     448    -192 dict",
            ]
        );
        let savings = MemoryReport { rows: vec![row("recycling", 0, 0, 1 << 20, 0)], ..MemoryReport::default() };
        assert_eq!(report_lines(&savings)[3..], ["   SIZE   +SIZE NAME", "   1.0M         recycling"]);
    }

    #[test]
    fn a_word_that_is_no_question_names_those_that_are() {
        assert_eq!(memory_question("trace-start"), Ok(MemoryRequest::TraceStart));
        assert!(memory_question("tpyes").unwrap_err().contains("types, trace-start"));
    }
}
