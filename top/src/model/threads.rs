//! What threads were doing, in words, and how often.

use rwsgi_stats::control::{Frame, ThreadState};

/// A state and what it is called.
#[derive(Debug)]
pub(crate) struct StateName {
    /// Which.
    pub(crate) state: ThreadState,
    /// A word for tables, legends and JSON.
    pub(crate) word: &'static str,
    /// What a thread in it does.
    pub(crate) does: &'static str,
    /// The frame that stands for it in the formats of other programs; none for running.
    pub(crate) frame: Option<&'static str>,
}

/// Every state, in the order in which they are shown.
pub(crate) const STATES: [StateName; 6] = [
    named(ThreadState::Running, "running", None),
    named(ThreadState::Gil, "gil", Some("[waiting for the global lock]")),
    named(ThreadState::Lock, "lock", Some("[waiting for a lock]")),
    named(ThreadState::Database, "database", Some("[waiting for a database]")),
    named(ThreadState::Waiting, "waiting", Some("[waiting]")),
    named(ThreadState::Native, "native", Some("[C code, without the global lock]")),
];

const fn named(state: ThreadState, word: &'static str, frame: Option<&'static str>) -> StateName {
    StateName { state, word, does: state.in_words(), frame }
}

/// The place of a state in [`STATES`], and in [`States`].
pub(crate) fn place_of(state: ThreadState) -> usize {
    match state {
        ThreadState::Running => 0,
        ThreadState::Gil => 1,
        ThreadState::Lock => 2,
        ThreadState::Database => 3,
        ThreadState::Waiting => 4,
        ThreadState::Native => 5,
    }
}

/// Samples by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct States(pub(crate) [u64; 6]);

impl States {
    /// Adds samples of a state.
    pub(crate) fn add(&mut self, state: ThreadState, count: u64) {
        let sum = &mut self.0[place_of(state)];
        *sum = sum.saturating_add(count);
    }

    /// All of them.
    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The state with most; of equal ones the first in the order in which they are shown.
    pub(crate) fn most(&self) -> &'static StateName {
        let place = (0..6).rev().max_by_key(|place| self.0[*place]).unwrap_or(0);
        &STATES[place]
    }

    /// The states that occur, with their share of all.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (&'static StateName, f64)> {
        let all = self.sum().max(1) as f64;
        STATES.iter().zip(self.0).filter(|(_, count)| *count > 0).map(move |(name, count)| (name, count as f64 / all))
    }
}

/// Where installed packages are; what stands behind it is the package's name.
const INSTALLED: [&str; 2] = ["/site-packages/", "/dist-packages/"];

/// The package of a frame that is not the application's own: an installed one, or a module of Python's.
pub(crate) fn package_of(frame: &Frame) -> Option<&str> {
    let file = frame.file.as_str();
    let module = |path: &str| -> usize { path.find(['/', '.']).unwrap_or(path.len()) };
    for directory in INSTALLED {
        if let Some(at) = file.rfind(directory) {
            let path = &file[at + directory.len()..];
            return Some(&path[..module(path)]);
        }
    }
    if let Some(at) = file.find("/python3") {
        // Python's own library: /usr/lib/python3.14/socket.py.
        let path = file[at + 1..].split_once('/')?.1;
        return Some(&path[..module(path)]);
    }
    // <frozen importlib._bootstrap>, <string>.
    file.strip_prefix("<frozen ").map(|rest| rest.trim_end_matches('>')).or(match file.is_empty() {
        true => Some("built in"),
        false => None,
    })
}

/// A file as it is named in a sentence: `views.py`; where that says nothing, its directory, too.
pub(crate) fn short_file(file: &str) -> &str {
    let mut parts = file.rmatch_indices('/').map(|(at, _)| at + 1);
    let last = parts.next().unwrap_or(0);
    match &file[last..] {
        "__init__.py" | "__main__.py" => &file[parts.next().unwrap_or(0)..],
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(file: &str) -> Frame {
        Frame { file: file.to_owned(), ..Frame::default() }
    }

    #[test]
    fn a_frame_of_a_library_is_named_by_its_package() {
        for (file, package) in [
            ("/srv/app/views.py", None),
            ("views.py", None),
            ("/srv/venv/lib/python3.12/site-packages/psycopg/cursor.py", Some("psycopg")),
            ("/usr/lib/python3/dist-packages/six.py", Some("six")),
            ("/usr/lib/python3.12/socket.py", Some("socket")),
            ("/usr/lib/python3.12/json/decoder.py", Some("json")),
            ("<frozen importlib._bootstrap>", Some("importlib._bootstrap")),
            ("", Some("built in")),
        ] {
            assert_eq!(package_of(&frame(file)), package, "{file}");
        }
    }

    #[test]
    fn a_file_is_named_shortly() {
        for (file, short) in [
            ("/srv/app/views.py", "views.py"),
            ("/srv/app/orders/__init__.py", "orders/__init__.py"),
            ("__init__.py", "__init__.py"),
            ("", ""),
        ] {
            assert_eq!(short_file(file), short, "{file}");
        }
    }

    #[test]
    fn every_state_has_its_place() {
        for (place, name) in STATES.iter().enumerate() {
            assert_eq!(place_of(name.state), place);
        }
        assert_eq!(States([1, 5, 5, 0, 0, 0]).most().word, "gil");
    }
}
