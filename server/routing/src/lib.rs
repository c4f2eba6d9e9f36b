//! uWSGI's internal routing: rules that look at a request or its response and act on it. Read once, compiled once in
//! each process, and evaluated here without sockets and without Python: what is to be done outside comes back as data.
//!
//! The way through: [`rule`] reads an option's value into a rule, whose parts are a [`pattern`] or a [`condition`], and
//! an [`action`] from the table of actions; texts with `$1` and `${VAR}` are [`template`]s. [`Rules::run`] goes through
//! the rules of one [`Phase`] and changes the request's [`Visit`]. What uWSGI does decides
//! (`core/routing.c`, `plugins/router_*`), save where it would let a client write a header or leave a directory.

mod act;
mod action;
mod condition;
mod crypt;
mod htpasswd;
mod mime;
mod pattern;
#[cfg(test)]
mod reference;
mod rule;
mod run;
mod status;
mod template;
mod variables;
mod visit;

pub use action::{ACTIONS, Listed};
pub use condition::CONDITIONS;
pub use mime::of as mime_type;
pub use rule::{Fault, Phase, RuleText, Subject, Test};
pub use run::{Next, Rules};
pub use status::reason;
pub use template::FUNCTIONS;
pub use variables::Variables;
pub use visit::{Answer, Effect, Facts, Visit};
