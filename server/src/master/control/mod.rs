//! The control socket: operators look at the server and act on it through it. `docs/control.md` has its protocol, whose
//! messages are in [`rwsgi_stats::control`].
//!
//! [`socket`] binds it, [`connections`] are tasks that only read and write, and what they read is an event of the loop
//! ([`asked`]). [`dispatch`] is the one place that knows which module does what is asked for.

mod asked;
mod connections;
mod dispatch;
mod peer;
mod socket;

#[allow(unused_imports, reason = "for the modules that answer")]
pub(super) use self::asked::{Answering, Asked};
pub(super) use self::connections::serve;
pub(super) use self::socket::{ControlFile, open};
