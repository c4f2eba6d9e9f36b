//! A control socket whose answers a test decides; it lives as long as the test.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server says to a request: lines, and whether it leaves the connection open afterwards without an end.
pub(crate) type Says = fn(&serde_json::Value) -> Vec<String>;

pub(crate) struct Control {
    path: PathBuf,
    /// The requests that came.
    pub(crate) asked: Arc<Mutex<Vec<serde_json::Value>>>,
}

impl Control {
    pub(crate) fn start(says: Says) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("rtop-fake-{}-{number}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, requests) = (stream.unwrap(), Arc::clone(&requests));
                thread::spawn(move || serve(stream, &requests, says));
            }
        });
        Self { path, asked }
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// A stats document that names it.
    pub(crate) fn document(&self) -> String {
        format!(
            r#"{{"version":"0.2.0","server":"rwsgi","pid":7,"control":"{}","workers":[{{"id":1,"pid":8,"status":"busy",
            "requests":100,"rss":52428800,"respawn_count":1,"cores":[{{"id":0,"requests":100,"in_request":1}}]}}]}}"#,
            self.path()
        )
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(mut stream: UnixStream, requests: &Mutex<Vec<serde_json::Value>>, says: Says) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        let request = serde_json::from_str(&line).unwrap();
        let answer = says(&request);
        requests.lock().unwrap().push(request);
        for line in answer {
            if stream.write_all(format!("{line}\n").as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// What a server with one busy worker says.
pub(crate) fn busy(request: &serde_json::Value) -> Vec<String> {
    let frames = r#"{"function":"execute","file":"/venv/lib/python3.12/site-packages/psycopg/cursor.py","line":97},
        {"function":"export","file":"/srv/shop/views.py","line":41}"#
        .replace('\n', "");
    match request["do"].as_str() {
        Some("stats") => vec![r#"{"done":{"stats":{"version":"0.2.0","server":"rwsgi","pid":7,"workers":[{"id":1,"pid":8,"status":"busy","requests":4711}]}}}"#.to_owned()],
        Some("stacks") => vec![format!(
            r#"{{"done":{{"stacks":{{"threads":[{{"worker":1,"pid":8,"tid":8,"core":0,"name":"","state":"database","request":"GET /orders/7","route":"/orders/{{}}","elapsed":2345678,"frames":[{frames}],"problem":""}}]}}}}}}"#
        )],
        Some("profile") => vec![
            r#"{"progress":"sampling 1 worker"}"#.to_owned(),
            format!(
                r#"{{"done":{{"profile":{{"micros":1000000,"rate":100,"samples":100,"missed":2,"frames":[{frames}],"stacks":[{{"route":"/orders/{{}}","state":"database","frames":[1,0],"count":80}},{{"route":"/","state":"gil","frames":[1],"count":20}}]}}}}}}"#
            ),
        ],
        _ => vec![r#"{"failed":"this server does not know that"}"#.to_owned()],
    }
}
