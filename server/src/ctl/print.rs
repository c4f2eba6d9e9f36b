//! What `rwsgi ctl` prints: answers for people and for programs on standard output, everything else on standard error.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use rwsgi_stats::control::{Answer, Reply, Request};
use rwsgi_stats::{Snapshot, is_control, write_json};
use serde_json::json;

use super::find::Found;

/// How long a server has to tell how it is, when all are listed.
const PATIENCE: Duration = Duration::from_secs(3);

/// Prints an answer.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn answer(answer: &Answer, as_json: bool) -> io::Result<()> {
    let mut bytes = Vec::new();
    match answer {
        Answer::Text(text) if !as_json => bytes.extend_from_slice(plain(text).as_bytes()),
        Answer::Text(text) => write_json(&mut bytes, text)?,
        Answer::Stats(snapshot) => write_json(&mut bytes, snapshot)?,
        Answer::Stacks(stacks) if !as_json => bytes.extend_from_slice(plain(stacks.to_string().trim_end()).as_bytes()),
        Answer::Stacks(stacks) => write_json(&mut bytes, stacks)?,
        Answer::Profile(profile) => write_json(&mut bytes, profile)?,
        Answer::Memory(report) => write_json(&mut bytes, report)?,
    }
    bytes.push(b'\n');
    out(&bytes)
}

/// Prints the servers that run, a line for each.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn servers(found: Vec<Found>, as_json: bool) -> io::Result<()> {
    let mut bytes = Vec::new();
    if !as_json {
        bytes.extend_from_slice(row("PID", "USER", "GEN", "WORKERS", "BUSY", "CONTROL SOCKET").as_bytes());
    }
    for mut server in found {
        let path = server.path.to_string_lossy();
        // One that hangs does not hide the others.
        let begun = Instant::now();
        let told = server.client.ask_unless(&Request::Stats, progress, || begun.elapsed() > PATIENCE);
        let Ok(Some(Reply::Done(Answer::Stats(stats)))) = told else {
            complain(&format!("server {} on '{path}' does not tell how it is", server.pid));
            continue;
        };
        let Snapshot { uid, generation, workers, .. } = &*stats;
        let user = User::from_uid(Uid::from_raw(*uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        let running = workers.iter().filter(|worker| worker.pid > 0).count();
        let busy = workers.iter().filter(|worker| worker.status == "busy").count();
        if as_json {
            let line = json!({
                "pid": server.pid, "user": user, "generation": generation, "running": running,
                "workers": workers.len(), "busy": busy, "control": path,
            });
            write_json(&mut bytes, &line)?;
            bytes.push(b'\n');
        } else {
            let generation = generation.unwrap_or_default().to_string();
            let running = format!("{running}/{}", workers.len());
            let line = row(&server.pid.to_string(), &user, &generation, &running, &busy.to_string(), &path);
            bytes.extend_from_slice(line.as_bytes());
        }
    }
    out(&bytes)
}

fn row(pid: &str, user: &str, generation: &str, workers: &str, busy: &str, path: &str) -> String {
    plain(&format!("{pid:>8} {user:<10} {generation:>4} {workers:>8} {busy:>5}  {path}")) + "\n"
}

/// What the server says before its answer.
pub(super) fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "{}", plain(text));
}

/// What went wrong.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "rwsgi ctl: {}", plain(text));
}

/// Text without what a terminal would obey.
fn plain(text: &str) -> String {
    text.replace(|character| is_control(character) && character != '\n', "?")
}

fn out(bytes: &[u8]) -> io::Result<()> {
    match io::stdout().write_all(bytes) {
        // `rwsgi ctl stats | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}
