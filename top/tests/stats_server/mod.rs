//! A stats server whose answers a test decides; it lives as long as the test.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server says to whoever connects.
#[derive(Clone)]
pub(crate) enum Answer {
    /// This text, then the end.
    Text(String),
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// This text, and then nothing for as long as the client waits.
    Hang(String),
}

type Decide = Box<dyn FnMut(u64) -> Answer + Send>;

pub(crate) struct Server {
    pub(crate) address: String,
    decide: Arc<Mutex<Decide>>,
    dead: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Answers the connection of each number, from 0, as `decide` says.
    pub(crate) fn start(decide: impl FnMut(u64) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let decide: Arc<Mutex<Decide>> = Arc::new(Mutex::new(Box::new(decide)));
        let decider = Arc::clone(&decide);
        let dead = Arc::new(AtomicBool::new(false));
        let is_dead = Arc::clone(&dead);
        let thread = thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(mut stream) = stream else { return };
                if is_dead.load(Ordering::SeqCst) {
                    return;
                }
                let answer = decider.lock().unwrap()(number as u64);
                thread::spawn(move || match answer {
                    Answer::Text(text) => drop(stream.write_all(text.as_bytes())),
                    Answer::Bytes(bytes) => drop(stream.write_all(&bytes)),
                    Answer::Hang(text) => {
                        let _ = stream.write_all(text.as_bytes());
                        let _ = stream.read(&mut [0]);
                    }
                });
            }
        });
        Self { address, decide, dead, thread: Some(thread) }
    }

    /// Ends: from now on nobody listens at its address.
    pub(crate) fn die(&mut self) {
        self.dead.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Answers so from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        *self.decide.lock().unwrap() = Box::new(move |_| answer.clone());
    }
}

/// An address where nobody listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
