//! A stats server whose answers a test decides; it lives as long as the test.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server says to whoever connects.
#[derive(Clone)]
pub(crate) enum Answer {
    /// This text, then the end.
    Text(String),
    /// This text, and then nothing for as long as the client waits.
    Hang(String),
}

type Decide = Box<dyn FnMut(u64) -> Answer + Send>;

pub(crate) struct Server {
    pub(crate) address: String,
    decide: Arc<Mutex<Decide>>,
}

impl Server {
    /// Answers the connection of each number, from 0, as `decide` says.
    pub(crate) fn start(decide: impl FnMut(u64) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let decide: Arc<Mutex<Decide>> = Arc::new(Mutex::new(Box::new(decide)));
        let decider = Arc::clone(&decide);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(mut stream) = stream else { return };
                let answer = decider.lock().unwrap()(number as u64);
                thread::spawn(move || match answer {
                    Answer::Text(text) => drop(stream.write_all(text.as_bytes())),
                    Answer::Hang(text) => {
                        let _ = stream.write_all(text.as_bytes());
                        let _ = stream.read(&mut [0]);
                    }
                });
            }
        });
        Self { address, decide }
    }

    /// Answers so from now on.
    #[allow(dead_code, reason = "not every test changes its mind")]
    pub(crate) fn answer(&self, answer: Answer) {
        *self.decide.lock().unwrap() = Box::new(move |_| answer.clone());
    }
}

/// An address where nobody listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
