//! The stacks of live threads as text, as a person reads it at night, and as JSON.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use rwsgi_stats::control::{Answer, Request, Stacks, ThreadStack, ThreadState};
use serde::Serialize;

use crate::format;
use crate::model::threads::{STATES, package_of, place_of};
use crate::source::{Control, ControlError, Target};

/// What a part of the text is, for its looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A thread.
    Head,
    /// What it was doing.
    State(ThreadState),
    /// A frame of the application's own.
    Own,
    /// A frame of a library.
    Library,
    /// What could not be told.
    Problem,
}

/// Gives a part of the text its looks; plain text is left as it is.
pub(crate) type Painter<'a> = &'a dyn Fn(Part, &str) -> String;

#[derive(Serialize)]
struct StacksLine<'a> {
    target: &'a str,
    #[serde(flatten)]
    stacks: &'a Stacks,
}

/// Asks servers what their threads execute, and prints it.
///
/// # Errors
/// What the first server that has no answer says; what the others say is printed all the same.
pub(crate) fn stacks(
    targets: &[Target],
    control: Option<&Path>,
    timeout: Duration,
    worker: Option<u32>,
    json: bool,
    painter: Painter<'_>,
) -> anyhow::Result<()> {
    let request = Request::Stacks { worker };
    let mut failed = None;
    for target in targets {
        let label = target.to_string();
        let answer = Control::find(control, target, &request, timeout)
            .and_then(|control| control.ask(&request, Duration::ZERO, &mut |_| true));
        let text = match answer {
            Ok(Answer::Stacks(stacks)) if json => {
                // Maps of texts and numbers cannot fail.
                serde_json::to_string(&StacksLine { target: &label, stacks: &stacks }).unwrap_or_default() + "\n"
            }
            Ok(Answer::Stacks(stacks)) => {
                let head = if targets.len() > 1 { format!("{label}\n\n") } else { String::new() };
                head + &text(&stacks, painter)
            }
            Ok(_) => {
                failed = failed.or(Some((label, ControlError::Another)));
                continue;
            }
            Err(error) => {
                failed = failed.or(Some((label, error)));
                continue;
            }
        };
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    match failed {
        Some((label, error)) => Err(anyhow::Error::new(error).context(label)),
        None => Ok(()),
    }
}

/// What a thread was doing, in words.
pub(crate) fn doing(thread: &ThreadStack) -> &'static str {
    match thread.state {
        Some(state) => STATES[place_of(state)].does,
        None if thread.request.is_empty() => "idle",
        None => "in a request",
    }
}

/// A thread's name: its place in its worker, or, of one that the application has started, the name it has itself.
pub(crate) fn name_of(thread: &ThreadStack) -> String {
    match thread.core {
        Some(core) => format!("thread {core}"),
        None if thread.name.is_empty() => "thread of the application".to_owned(),
        None => format!("thread of the application, \"{}\"", thread.name),
    }
}

/// The request of a thread and for how long it has run; empty when it is in none.
pub(crate) fn request_of(thread: &ThreadStack) -> String {
    if thread.request.is_empty() {
        return String::new();
    }
    let route = if thread.route.is_empty() { String::new() } else { format!(" (route {})", thread.route) };
    format!("{}{route} for {}", thread.request, format::micros(thread.elapsed))
}

/// The text that the server writes into its log, with looks.
fn text(stacks: &Stacks, painter: Painter<'_>) -> String {
    let mut text = String::new();
    for thread in &stacks.threads {
        // The frames are the last lines but one for the problem, the thread's own is the first.
        let plain = thread.to_string();
        let mut frames = thread.frames.iter();
        for (place, line) in plain.lines().enumerate() {
            let request = usize::from(!thread.request.is_empty());
            let painted = match (place, thread.state) {
                (0, Some(state)) => match line.split_at_checked(line.len() - state.in_words().len()) {
                    Some((head, words)) => painter(Part::Head, head) + &painter(Part::State(state), words),
                    None => line.to_owned(),
                },
                (0, None) => painter(Part::Head, line),
                (place, _) if place <= request => line.to_owned(),
                _ => match frames.next().map(package_of) {
                    Some(None) => painter(Part::Own, line),
                    Some(Some(_)) => painter(Part::Library, line),
                    None => painter(Part::Problem, line),
                },
            };
            text.push_str(&painted);
            text.push('\n');
        }
        text.push('\n');
    }
    if stacks.threads.is_empty() { stacks.to_string() } else { text.trim_end().to_owned() + "\n" }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use insta::assert_snapshot;
    use rwsgi_stats::control::Frame;

    fn frame(function: &str, file: &str, line: u32) -> Frame {
        Frame { function: function.into(), file: file.into(), line }
    }

    /// A thread that waits for a database, one that is stuck in C, one that is idle, one of the application's own.
    pub(crate) fn stacks() -> Stacks {
        let thread = |core, tid, state, request: &str, elapsed, frames| ThreadStack {
            worker: 1,
            pid: 4_101,
            tid,
            core,
            state,
            request: request.into(),
            elapsed,
            frames,
            ..ThreadStack::default()
        };
        let database = vec![
            frame("Cursor.execute", "/venv/lib/python3.12/site-packages/psycopg/cursor.py", 97),
            frame("export", "/srv/shop/views.py", 41),
            frame("WSGIHandler.__call__", "/venv/lib/python3.12/site-packages/django/core/handlers/wsgi.py", 124),
        ];
        let stuck = ThreadStack {
            problem: "it is in C code that does not let the GIL go".into(),
            ..thread(Some(1), 4_102, Some(ThreadState::Running), "POST /thumbnails?size", 41_300_000, vec![])
        };
        let own = ThreadStack {
            name: "refresher".into(),
            ..thread(None, 4_120, Some(ThreadState::Waiting), "", 0, vec![frame("refresh", "/srv/shop/cache.py", 8)])
        };
        let mut first =
            thread(Some(0), 4_101, Some(ThreadState::Database), "GET /orders/7/export", 2_345_678, database);
        first.route = "/orders/{}/export".into();
        let idle = ThreadStack { worker: 2, pid: 4_105, ..thread(Some(0), 4_105, None, "", 0, vec![]) };
        Stacks { threads: vec![first, stuck, own, idle] }
    }

    #[test]
    fn the_text_is_the_one_of_the_server_s_log() {
        for stacks in [stacks(), Stacks::default()] {
            assert_eq!(text(&stacks, &|_, text| text.to_owned()), stacks.to_string());
        }
    }

    #[test]
    fn what_is_the_application_s_own_is_marked_and_states_have_their_looks() {
        let text = text(&stacks(), &|part, text| format!("{{{part:?}|{text}}}"));
        assert_snapshot!(text);
    }
}
