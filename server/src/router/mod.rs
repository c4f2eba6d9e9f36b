//! The http router: one process between the clients and the workers.
//!
//! It holds what is slow, so that no worker does: idle connections, heads and bodies that drip in, responses that drip
//! out. A request goes to a worker only when all of it is here, and to a thread that is free or will be at once (see
//! `dispatch`); while there is none, it waits in the one queue, in order. A response is read from the worker as fast as it
//! comes and kept until the client has taken it: a megabyte in memory, what is more in a file, until a gigabyte, or the
//! end of the space for such files, makes the worker wait.
//!
//! It is a loop around epoll, as the workers have, rather than tasks of an asynchronous runtime. One owner has all state,
//! and there is nothing to lock or to wake. Events come as edges, and interest in writing is registered only while a
//! socket is full: a unix socket reports "writable" each time the other end reads, which would wake the router once more
//! for every request. A connection costs a few hundred bytes, a request no allocation and at most four system calls
//! besides the waiting: read client, write link, read link, write client; under load, those of the link are shared by up to
//! eight requests. Timeouts are whole seconds that a sweep looks at, because a timer for each request would cost more than
//! all of this.
//!
//! Why not hyper: see "The http router" in `docs/design.md`.
//!
//! What happens when somebody goes:
//! - A client that closes while it waits in the queue is taken out of it. When it closes during the response, what
//!   still comes of it is dropped; a worker that goes on after a second, or a megabyte, finds its link closed and sees an
//!   error at its next write. A client that only ends its sending side (`ncat` does) while it is being served gets its
//!   response.
//! - A worker that is lost before a byte of the response has come: the client gets 502; unless the worker had not begun
//!   with it, when another thread gets it.
//!   After that, the connection is reset, so that nobody takes half a response for a whole one.
//! - A worker that does not begin with what it was sent, because it is stopped or hangs: the request is cancelled when a
//!   thread of another is free (see `not_begun`). A response that breaks off resets its client's connection, too.
//! - A worker that wants to leave says so on its links (see [`rwsgi_protocol::link`]); nothing is lost.
//! - The master: the router finishes what it has and exits, as after a signal. What waits when the last worker has left
//!   gets 503.

mod accept;
mod before_request;
mod bulk;
mod client;
mod dispatch;
mod event_loop;
mod hand_over;
mod intake;
mod keyed;
mod lane;
mod limits;
mod link;
mod listen;
mod not_begun;
mod relay;
mod request;
mod stall;
mod state;
#[cfg(test)]
mod tests;
mod threads;
mod tls;
mod token;

pub(crate) use self::event_loop::run;
pub(crate) use self::limits::Limits;
pub(crate) use self::listen::ListenOptions;
pub(crate) use self::state::RouterConfig;
