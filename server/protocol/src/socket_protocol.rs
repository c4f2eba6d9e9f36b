//! What is spoken on a socket that requests come in by.

use serde::{Deserialize, Serialize};

/// What is spoken with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketProtocol {
    /// HTTP/1, on a socket of the workers' own or through the http router.
    Http,
    /// The uwsgi protocol: the response is HTTP's, and its connection is closed after each.
    Uwsgi,
}

impl SocketProtocol {
    /// As uWSGI's stats name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Uwsgi => "uwsgi",
        }
    }
}
