//! The request that a thread of a worker serves now, for what the application asks of it from anywhere in that thread.
//!
//! What is kept of it costs a request that makes no use of it two stores and a comparison.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;

use super::active::CurrentRequest;

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CurrentConnection {
    /// Its socket.
    pub(crate) fd: RawFd,
    /// It is the router's link, which other requests use too.
    pub(crate) is_link: bool,
}

thread_local! {
    static THREAD: Cell<Option<u32>> = const { Cell::new(None) };
    static CONNECTION: Cell<Option<CurrentConnection>> = const { Cell::new(None) };
    /// Whether there is something in `NOTES`.
    static IS_NOTED: Cell<bool> = const { Cell::new(false) };
    static NOTES: RefCell<Notes> = const {
        RefCell::new(Notes { line: LineChoice::AsConfigured, variables: Vec::new(), set: Vec::new(), route: None })
    };
}

/// Whether a request is to have a line in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LineChoice {
    /// As the configuration says.
    #[default]
    AsConfigured,
    /// In any case: `uwsgi.log_this_request`, a rule's `log`.
    Logged,
    /// In no case, whatever else is asked for: a rule's `donotlog`.
    NotLogged,
}

/// What the application and the rules want of a request's line in the log.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Whether it is to have one.
    pub(crate) line: LineChoice,
    /// What is to be added to it: names and values.
    pub(crate) variables: Vec<(Vec<u8>, Vec<u8>)>,
    /// Variables of the request that rules have set: names and values, the last of a name counts.
    pub(crate) set: Vec<(Vec<u8>, Vec<u8>)>,
    /// Which route it is of, for the stats.
    pub(crate) route: Option<Vec<u8>>,
}

impl Notes {
    /// Adds a variable to the line, or changes it.
    pub(crate) fn set_variable(&mut self, name: Vec<u8>, value: Vec<u8>) {
        match self.variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.variables.push((name, value)),
        }
    }

    /// Which route the request is of, when that was said.
    pub(crate) fn route(&self) -> Option<&[u8]> {
        let variable = || self.variables.iter().find(|(name, _)| name == b"route").map(|(_, value)| value.as_slice());
        self.route.as_deref().or_else(variable)
    }

    /// What a variable of the request was set to.
    pub(crate) fn set_to(&self, name: &[u8]) -> Option<&[u8]> {
        self.set.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }
}

/// This thread is the worker's thread of that number.
pub(crate) fn enter(thread: u32) {
    THREAD.set(Some(thread));
}

/// Which of the worker's threads this is; `None` in a thread of the application's.
pub(crate) fn thread() -> Option<u32> {
    THREAD.get()
}

/// This thread's request came over this connection.
#[inline]
pub(crate) fn begin(fd: RawFd, is_link: bool) {
    CONNECTION.set(Some(CurrentConnection { fd, is_link }));
}

/// The request is over: what the application wanted of its line in the log.
#[inline]
pub(crate) fn end() -> Option<Notes> {
    CONNECTION.set(None);
    IS_NOTED.replace(false).then(|| NOTES.take())
}

/// The connection of the request that this thread serves; `None` when it serves none.
pub(crate) fn connection() -> Option<CurrentConnection> {
    CONNECTION.get()
}

/// What reaches the request that this thread serves; `None` when it serves none.
pub(crate) fn current() -> Option<CurrentRequest> {
    connection()?;
    CurrentRequest::of_thread()
}

/// Takes note of something for the line of the request that this thread serves.
pub(crate) fn note(change: impl FnOnce(&mut Notes)) {
    IS_NOTED.set(true);
    NOTES.with_borrow_mut(change);
}

/// Looks at what was noted.
pub(crate) fn noted<T>(look: impl FnOnce(&Notes) -> T) -> T {
    NOTES.with_borrow(look)
}
