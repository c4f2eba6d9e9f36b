//! Bytes to requests and back. Pure: no sockets, no Python, so that it is fuzzed and measured alone.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`http`] | a request head, by RFC 9112, strictly |
//! | [`target`] | the parts of a request target |
//! | [`path`] | the path that an application sees |
//! | [`chunked`] | a chunked request body, decoded as it arrives; a chunk's head, written |
//! | [`uwsgi`] | a uwsgi packet |
//! | [`response`] | a response head, and how its body ends |
//! | [`conditional`] | what a conditional request, or one for a part, gets of a file |
//! | [`date`] | the `Date` header |
//! | [`proxy`] | the PROXY protocol's header |
//! | [`request_start`] | when a proxy took a request |
//! | [`traceparent`] | which trace a request belongs to |
//! | [`x509`] | of a certificate, whose it is and how long |
//! | [`link`] | what the http router and the workers say to each other |
//!
//! The http router and the workers' own sockets use this one parser, so that neither lets through what the other
//! refuses.

pub mod chunked;
pub mod conditional;
pub mod date;
pub mod http;
pub mod link;
pub mod path;
pub mod proxy;
mod range;
mod refusal;
pub mod request_start;
pub mod response;
mod socket_protocol;
pub mod target;
pub mod traceparent;
pub mod uwsgi;
mod version;
pub mod x509;

pub use socket_protocol::SocketProtocol;
