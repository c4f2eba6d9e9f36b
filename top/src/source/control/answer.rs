//! What a server answers made safe: every text a plain line, every list of bounded length, every number of a frame one that
//! there is. Types are taken apart whole, so that a new key is a decision.

use rwsgi_stats::control::{Answer, Frame, MemoryReport, MemoryRow, Profile, ProfileStack, Stacks, ThreadStack};

use crate::format;

/// No pool has more threads that somebody would look at.
const MOST_THREADS: usize = 20_000;
/// Python's own limit of recursion is a thousand; what an application has raised it to is cut at the outer end.
const MOST_FRAMES: usize = 2_000;
/// Different frames, and different stacks, of a profile.
const MOST_DIFFERENT: usize = 200_000;
/// Rows of a memory report.
const MOST_ROWS: usize = 10_000;

pub(super) fn clean(answer: &mut Answer) {
    match answer {
        Answer::Text(text) => line(text),
        // The model cleans it as it does with every document.
        Answer::Stats(_) => {}
        Answer::Stacks(Stacks { threads }) => {
            threads.truncate(MOST_THREADS);
            threads.iter_mut().for_each(thread);
        }
        Answer::Profile(answer) => profile(answer),
        Answer::Memory(MemoryReport { worker: _, pid: _, took: _, note, rows }) => {
            line(note);
            rows.truncate(MOST_ROWS);
            for MemoryRow { name, count: _, count_growth: _, bytes: _, bytes_growth: _ } in rows {
                line(name);
            }
        }
    }
}

fn thread(thread: &mut ThreadStack) {
    let ThreadStack { worker: _, pid: _, tid: _, core: _, name, state: _, request, route, elapsed: _, frames, problem } =
        thread;
    [name, request, route, problem].into_iter().for_each(line);
    frames.truncate(MOST_FRAMES);
    frames.iter_mut().for_each(frame);
}

fn profile(profile: &mut Profile) {
    let Profile { micros: _, rate: _, samples, missed: _, frames, stacks } = profile;
    frames.truncate(MOST_DIFFERENT);
    frames.iter_mut().for_each(frame);
    stacks.truncate(MOST_DIFFERENT);
    let known = frames.len();
    for ProfileStack { route, state: _, frames, count: _ } in stacks.iter_mut() {
        line(route);
        frames.retain(|place| (*place as usize) < known);
        // The innermost are what is looked for.
        let outer = frames.len().saturating_sub(MOST_FRAMES);
        frames.drain(..outer);
    }
    // Shares are of what the stacks tell: they and nothing else are drawn. Counts are bounded, so that no sum overflows.
    let largest = u64::MAX / (stacks.len().max(1) as u64);
    for stack in stacks.iter_mut() {
        stack.count = stack.count.min(largest);
    }
    *samples = stacks.iter().map(|stack| stack.count).sum();
}

fn frame(frame: &mut Frame) {
    let Frame { function, file, line: _ } = frame;
    [function, file].into_iter().for_each(line);
}

fn line(text: &mut String) {
    if !format::is_plain_line(text) {
        *text = format::one_line(text);
    }
}
