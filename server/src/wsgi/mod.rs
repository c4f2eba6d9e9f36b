//! Python: the interpreter, loading the application, the environ, the call, and what the application holds of a
//! request (PEP 3333). The only room that touches pyo3. It knows no sockets: a request comes as a parsed head and a
//! [`transport::Transport`] for its bytes.

pub mod application;
mod environ;
pub(crate) mod exchange;
mod file_wrapper;
pub mod gateway;
mod input;
pub mod interpreter;
pub(crate) mod raised;
pub(crate) mod respond;
pub(crate) mod serving;
mod start_response;
mod strings;
pub mod transport;
