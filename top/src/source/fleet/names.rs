//! The addresses of hosts, asked for by threads of their own: whoever knows names may take longer than any server.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rwsgi_stats::Address;
use socket2::SockAddr;

use crate::source::{SourceError, Target};

/// So many questions are under way at once.
const THREADS: usize = 4;
/// For so long an answer is good. Afterwards it is asked again, and the old one used until the new one is there.
const FRESH: Duration = Duration::from_secs(30);

/// What came of a question.
pub(super) type Resolved = Result<Vec<IpAddr>, String>;

/// All addresses of a host, in the system's order.
pub(super) fn resolve(host: &str) -> Resolved {
    let found = (host, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|address| address.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// What is known of a host.
#[derive(Debug, Default)]
struct Known {
    answer: Option<Resolved>,
    at: Option<Instant>,
    asked: bool,
}

/// What is known of all hosts.
pub(super) struct Names {
    known: HashMap<String, Known>,
    questions: Option<Sender<String>>,
    answered: Arc<dyn Fn(String, Resolved) + Send + Sync>,
}

impl Names {
    /// `answered` is called by another thread, and passes on to [`answer`](Self::answer).
    pub(super) fn new(answered: impl Fn(String, Resolved) + Send + Sync + 'static) -> Self {
        Self { known: HashMap::new(), questions: None, answered: Arc::new(answered) }
    }

    /// What is known of a host now, the last addresses if there ever were any; `None` when it is not known yet.
    pub(super) fn look_up(&mut self, host: &str, now: Instant) -> Option<&Resolved> {
        if !self.known.contains_key(host) {
            self.known.insert(host.to_owned(), Known::default());
        }
        let known = self.known.get_mut(host)?;
        if !known.asked && known.at.is_none_or(|at| now.duration_since(at) >= FRESH) {
            known.asked = true;
            let answered = &self.answered;
            let questions = self.questions.get_or_insert_with(|| start(answered));
            if questions.send(host.to_owned()).is_err() {
                known.answer = Some(Err("there are no threads for it".to_owned()));
            }
        }
        known.answer.as_ref()
    }

    /// Takes an answer in.
    pub(super) fn answer(&mut self, host: &str, resolved: Resolved, now: Instant) {
        let Some(known) = self.known.get_mut(host) else { return };
        known.asked = false;
        // A name that is not known now is asked again soon; its last addresses stay.
        let retry = if resolved.is_err() { FRESH - Duration::from_secs(5) } else { Duration::ZERO };
        known.at = now.checked_sub(retry);
        if resolved.is_ok() || !matches!(known.answer, Some(Ok(_))) {
            known.answer = Some(resolved);
        }
    }
}

fn start(answered: &Arc<dyn Fn(String, Resolved) + Send + Sync>) -> Sender<String> {
    let (questions, asked) = mpsc::channel();
    let asked = Arc::new(Mutex::new(asked));
    for _ in 0..THREADS {
        let (asked, answered) = (Arc::clone(&asked), Arc::clone(answered));
        let work = move || {
            while let Some(host) = next(&asked) {
                let resolved = resolve(&host);
                answered(host, resolved);
            }
        };
        // Without any thread the channel is closed, which is told.
        let _ = thread::Builder::new().name("resolve".into()).spawn(work);
    }
    questions
}

fn next(asked: &Mutex<Receiver<String>>) -> Option<String> {
    asked.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// The addresses to connect to; `None` while they are not known.
pub(super) fn addresses(
    target: &Target,
    names: &mut Names,
    now: Instant,
) -> Result<Option<Vec<SockAddr>>, SourceError> {
    match target.address() {
        Address::Tcp { host, port } => {
            let host = if host.is_empty() { "localhost" } else { host };
            if let Ok(ip) = host.parse::<IpAddr>() {
                return Ok(Some(vec![SocketAddr::new(ip, *port).into()]));
            }
            match names.look_up(host, now) {
                None => Ok(None),
                Some(Ok(found)) => Ok(Some(found.iter().map(|ip| SocketAddr::new(*ip, *port).into()).collect())),
                Some(Err(why)) => Err(SourceError::Resolve(io::Error::other(why.clone()))),
            }
        }
        Address::Unix(path) => Ok(Some(vec![SockAddr::unix(path).map_err(SourceError::Connect)?])),
        // uWSGI binds abstract names with a NUL at their end, which is a part of the name (and may be one too many).
        Address::Abstract(name) => {
            let names = [format!("\0{name}\0"), format!("\0{name}")].map(SockAddr::unix);
            Ok(Some(names.into_iter().flatten().collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_last_addresses_while_it_is_asked_again() {
        let (sender, answers) = mpsc::channel();
        let mut names = Names::new(move |host, resolved| sender.send((host, resolved)).unwrap());
        let now = Instant::now();
        assert_eq!(names.look_up("127.0.0.1", now), None);
        let (host, resolved) = answers.recv().unwrap();
        names.answer(&host, resolved, now);
        let known = Ok(vec![IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(names.look_up("127.0.0.1", now), Some(&known));
        assert!(answers.try_recv().is_err(), "asked again too early");
        let later = now + FRESH;
        assert_eq!(names.look_up("127.0.0.1", later), Some(&known));
        let (host, _) = answers.recv().unwrap();
        names.answer(&host, Err("gone".to_owned()), later);
        assert_eq!(names.look_up("127.0.0.1", later), Some(&known));
    }
}
