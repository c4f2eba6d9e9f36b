//! Python as the application meets it: the interpreter, loading the application, files that are sent without it, the
//! environ, the call, and what the application holds of a request (PEP 3333). It knows no sockets: a request comes as a
//! parsed head and a [`transport::Transport`] for its bytes.

pub(crate) mod active;
pub mod application;
mod beneath;
mod caught;
mod client_tls;
mod environ;
mod file_wrapper;
mod gaps;
pub mod gateway;
mod incoming;
mod input;
pub mod interpreter;
mod loaders;
mod mounted;
mod raised;
pub(crate) mod respond;
mod response_times;
mod routed;
pub(crate) mod routing;
pub(crate) mod rules;
mod send_routed;
pub(crate) mod serving;
mod start_response;
mod static_files;
mod static_rules;
mod strings;
pub(crate) mod threads;
mod trace_header;
pub mod traceback;
pub mod transport;
pub mod websocket;
