//! What the http router and the workers' own sockets have in common: accepting a connection,
//! gathering a request's body, sending what a client does not take at once, closing. One copy, so that a request is
//! treated the same wherever it comes in.
//!
//! Below the worker and the router, and knows neither; above `protocol`. No policy: who waits for what, and for how
//! long, is theirs to say.

pub(crate) mod accept;
pub(crate) mod body;
pub(crate) mod close;
pub(crate) mod descriptors;
pub(crate) mod pace;
pub(crate) mod pass_fd;
pub(crate) mod proxied;
pub(crate) mod receive;
pub(crate) mod segment;
pub(crate) mod temp;
pub(crate) mod unsent;
pub(crate) mod wait;
