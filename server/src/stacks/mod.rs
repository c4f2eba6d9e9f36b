//! What a thread executes, found out while it executes it: the master sends the thread a signal, and the handler, which
//! runs on that very thread, walks the thread's own Python frames and writes them into shared memory ([`area`]).
//!
//! So it works while C code holds the global lock and while the thread is stuck; it needs no rights to trace, no thread
//! of its own, and costs nothing while nobody asks. `docs/stacks.md` compares it with the other ways.

pub(crate) mod answer;
pub(crate) mod area;
pub(crate) mod check;
pub(crate) mod drivers;
pub(crate) mod handler;
mod interrupted;
mod layouts;
mod lines;
mod own_memory;
mod walk;
