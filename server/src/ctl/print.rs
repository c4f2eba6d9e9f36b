//! Answers, for people and for programs.

use std::io::{self, Write};

use rwsgi_stats::control::Answer;

/// Prints an answer.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn print(answer: &Answer, as_json: bool) -> io::Result<()> {
    let mut bytes = Vec::new();
    match answer {
        Answer::Text(text) if !as_json => bytes.extend_from_slice(text.as_bytes()),
        Answer::Text(text) => rwsgi_stats::write_json(&mut bytes, text)?,
        Answer::Stats(snapshot) => rwsgi_stats::write_json(&mut bytes, snapshot)?,
        Answer::Stacks(stacks) => rwsgi_stats::write_json(&mut bytes, stacks)?,
        Answer::Profile(profile) => rwsgi_stats::write_json(&mut bytes, profile)?,
        Answer::Memory(report) => rwsgi_stats::write_json(&mut bytes, report)?,
    }
    bytes.push(b'\n');
    match io::stdout().write_all(&bytes) {
        // `rwsgi ctl stats | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}
