//! Probes of orchestrators and balancers: whether the server lives, and whether it wants requests.

use std::fmt;
use std::io;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::http::{Request, refuse, response};

/// Whether the server wants requests; if not, why, in a line for people.
pub type Readiness = Result<(), String>;

/// The way to who knows. Who asks is answered by the server's loop, and so by a loop that runs.
#[derive(Clone, Default)]
pub struct Probes(Option<Rc<dyn Fn(oneshot::Sender<Readiness>)>>);

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Probes" } else { "no probes" })
    }
}

impl Probes {
    /// Probes that `ask` has answered; a dropped sender means that the server is stopping.
    pub fn new(ask: impl Fn(oneshot::Sender<Readiness>) + 'static) -> Self {
        Self(Some(Rc::new(ask)))
    }

    /// The answer to a GET of this path; `None` when it is no probe's.
    ///
    /// # Errors
    /// When the server's loop has ended.
    pub(super) async fn respond(&self, path: &str, head_only: bool) -> io::Result<Option<Vec<u8>>> {
        let (Some(ask), "/-/live" | "/-/ready") = (&self.0, path) else { return Ok(None) };
        let (sender, receiver) = oneshot::channel();
        ask(sender);
        let readiness = receiver.await.map_err(io::Error::other)?;
        let (status, line) = match (path, readiness) {
            ("/-/live", _) => ("200 OK", "alive\n".to_owned()),
            (_, Ok(())) => ("200 OK", "ready\n".to_owned()),
            (_, Err(why)) => ("503 Service Unavailable", format!("{why}\n")),
        };
        Ok(Some(response(status, "text/plain", line.as_bytes(), "Cache-Control: no-store\r\n", head_only)))
    }

    /// The answer to a request on an address that has nothing but probes.
    ///
    /// # Errors
    /// When the server's loop has ended.
    pub(super) async fn answer(&self, request: &Request) -> io::Result<Vec<u8>> {
        let Request::Get { head_only, path, .. } = request else { return Ok(refuse(request)) };
        let answer = self.respond(path, *head_only).await?;
        let other = || response("404 Not Found", "text/plain", b"there is /-/live and /-/ready\n", "", *head_only);
        Ok(answer.unwrap_or_else(other))
    }
}
