//! `--exporter`: what stats servers tell, as Prometheus reads it, over HTTP. A server is read when its metrics are asked
//! for: nothing is kept, and no number is older than the scrape.
//!
//! One server: `/metrics`. Several, in Prometheus's multi-target pattern: `/probe?target=ADDRESS`. Only servers that were
//! named at the start are read: otherwise anybody who reaches the exporter could have it connect to any address.

mod answer;
mod http;
mod listen;
mod render;
mod watched;

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

pub(crate) use self::listen::Listen;
pub(crate) use self::render::UwsgiExporter;

use self::answer::Exporter;
use self::http::Response;
use crate::source::Target;

/// How many requests are answered at the same time; further ones get 503. Each has a thread.
const MOST_CLIENTS: usize = 64;
/// How long a client may take to send its request, and again to take the answer.
const CLIENT: Duration = Duration::from_secs(5);
/// What a thread that answers needs at most: reading a document is not recursive beyond its format's depth.
const STACK: usize = 512 << 10;
/// After accepting has failed, for want of descriptors for example.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the metrics of `targets` until SIGTERM or SIGINT ends the program with status 0.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) fn run(
    listen: &Listen,
    targets: &[Target],
    timeout: Duration,
    compat: Option<UwsgiExporter>,
) -> anyhow::Result<Infallible> {
    let listener = listen.bind().with_context(|| format!("--exporter {listen}: cannot listen there"))?;
    let address = listener.local_addr()?;
    for signal in [SIGINT, SIGTERM] {
        // Nothing is kept, and so nothing has to be finished: who is being answered asks again.
        flag::register_conditional_shutdown(signal, 0, Arc::new(true.into()))?;
    }
    let exporter = Arc::new(Exporter::new(targets, timeout, compat));
    note(&format!("serves {} on http://{address}", exporter.summary()));
    accept(&listener, &exporter)
}

fn accept(listener: &TcpListener, exporter: &Arc<Exporter>) -> ! {
    let clients = Arc::new(AtomicUsize::new(0));
    let mut failing = false;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                failing = false;
                let place = Place::take(&clients);
                let exporter = Arc::clone(exporter);
                if place.is_beyond() {
                    // Without reading: whoever fills all places is not waited for.
                    let _ = Response::busy().send(&stream, CLIENT);
                    continue;
                }
                let answer = move || {
                    let _place = place;
                    // Whoever is gone gets no answer.
                    let _ = serve(&stream, &exporter);
                };
                // Without a thread the connection is closed, and asked for again.
                let _ = thread::Builder::new().name("client".into()).stack_size(STACK).spawn(answer);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    note(&format!("cannot accept connections: {error}; trying again"));
                }
                thread::sleep(PAUSE);
            }
        }
    }
}

fn serve(stream: &TcpStream, exporter: &Exporter) -> io::Result<()> {
    let response = match http::read(stream, Instant::now() + CLIENT)? {
        Ok(request) => exporter.answer(&request),
        Err(refusal) => refusal,
    };
    response.send(stream, CLIENT)
}

/// A client's place among [`MOST_CLIENTS`].
struct Place {
    clients: Arc<AtomicUsize>,
    number: usize,
}

impl Place {
    fn take(clients: &Arc<AtomicUsize>) -> Self {
        Self { number: clients.fetch_add(1, Ordering::Relaxed), clients: Arc::clone(clients) }
    }

    /// Whether there was none left.
    fn is_beyond(&self) -> bool {
        self.number >= MOST_CLIENTS
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A line for the journal.
fn note(line: &str) {
    let _ = writeln!(io::stderr(), "rtop: {line}");
}
