//! Stacks as text: one form for the log, `rwsgi --stacks` and `rtop --stacks`.

use std::fmt::{self, Display, Formatter};

use super::{Stacks, ThreadStack, ThreadState};
use crate::is_control;

impl ThreadState {
    /// What the thread was doing, in words.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Native => "in C code, without the global lock",
            Self::Gil => "waiting for the global lock",
            Self::Lock => "waiting for a lock",
            Self::Database => "waiting for a database",
            Self::Waiting => "waiting",
        }
    }
}

impl Display for Stacks {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.threads.is_empty() {
            return writeln!(f, "no worker runs");
        }
        for (place, thread) in self.threads.iter().enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            thread.fmt(f)?;
        }
        Ok(())
    }
}

/// A line of who it is and what it does, one of its request, one for each frame, the innermost first.
impl Display for ThreadStack {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { worker, pid, tid, core, name, state, request, route, elapsed, frames, problem } = self;
        write!(f, "worker {worker} (pid {pid}) ")?;
        match core {
            Some(core) => write!(f, "thread {core}")?,
            None => write!(f, "thread of the application")?,
        }
        write!(f, " (tid {tid}, \"{}\")", Escaped(name))?;
        if let Some(state) = state {
            write!(f, ": {}", state.in_words())?;
        }
        writeln!(f)?;
        if !request.is_empty() {
            write!(f, "    {}", Escaped(request))?;
            if !route.is_empty() {
                write!(f, " (route {})", Escaped(route))?;
            }
            writeln!(f, " for {}.{:03} s", elapsed / 1_000_000, elapsed / 1_000 % 1_000)?;
        }
        for frame in frames {
            writeln!(f, "    {} ({}:{})", Escaped(&frame.function), Escaped(&frame.file), frame.line)?;
        }
        if !problem.is_empty() {
            writeln!(f, "    - {}", Escaped(problem))?;
        }
        Ok(())
    }
}

/// The application chose these texts: none of them is to be obeyed by a terminal.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0.chars().try_for_each(|character| match is_control(character) {
            true => write!(f, "{}", character.escape_default()),
            false => f.write_char(character),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Frame;
    use super::*;

    #[test]
    fn stacks_are_text_that_no_terminal_obeys() {
        let frame = |function: &str, line| Frame { function: function.into(), file: "/srv/app.py".into(), line };
        let serving = ThreadStack {
            worker: 1,
            pid: 40,
            tid: 41,
            core: Some(0),
            name: "rwsgi w1".into(),
            state: Some(ThreadState::Lock),
            request: "GET /orders/7".into(),
            route: "/orders/{}".into(),
            elapsed: 12_345_678,
            frames: vec![frame("wait\u{1b}[2J", 3), frame("Orders.show", 70)],
            problem: String::new(),
        };
        let other =
            ThreadStack { pid: 40, worker: 1, tid: 50, problem: "it is stopped".into(), ..ThreadStack::default() };
        let text = Stacks { threads: vec![serving, other] }.to_string();
        let expected = "worker 1 (pid 40) thread 0 (tid 41, \"rwsgi w1\"): waiting for a lock
    GET /orders/7 (route /orders/{}) for 12.345 s
    wait\\u{1b}[2J (/srv/app.py:3)
    Orders.show (/srv/app.py:70)

worker 1 (pid 40) thread of the application (tid 50, \"\")
    - it is stopped
";
        assert_eq!(text, expected);
        assert_eq!(Stacks::default().to_string(), "no worker runs\n");
    }
}
