//! Collapsed stacks, a line for each: what flamegraph.pl, inferno and others read.

use std::fmt::Write as _;

use rwsgi_stats::control::{Frame, Profile};

use crate::model::flame::By;
use crate::model::hot::frames_of;
use crate::model::threads::{STATES, place_of};

/// A frame as these formats name it.
pub(super) fn frame_name(frame: &Frame) -> String {
    match (frame.file.is_empty(), frame.line) {
        (true, _) => frame.function.clone(),
        (false, 0) => format!("{} ({})", frame.function, frame.file),
        (false, line) => format!("{} ({}:{line})", frame.function, frame.file),
    }
}

/// The stacks, the outermost frame first. What a thread waited for is a last frame.
pub(super) fn collapsed(profile: &Profile, by: By) -> String {
    let mut text = String::new();
    for stack in profile.stacks.iter().filter(|stack| stack.count > 0) {
        let group = by.group(&stack.route, stack.state).map(str::to_owned);
        let state = STATES[place_of(stack.state)].frame.map(str::to_owned);
        let frames = frames_of(profile, &stack.frames).map(frame_name);
        let names: Vec<String> =
            group.into_iter().chain(frames).chain(state).map(|name| name.replace(';', ":")).collect();
        let names = if names.is_empty() { "(no frames)".to_owned() } else { names.join(";") };
        let _ = writeln!(text, "{names} {}", stack.count);
    }
    text
}
