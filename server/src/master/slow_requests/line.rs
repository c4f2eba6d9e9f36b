//! A slow request in a line of the log.

use std::fmt::Write as _;

use rwsgi_config::SlowRequestLog;
use rwsgi_stats::{PhaseTimes, SlowRequest};

/// Frames of a stack in a line: enough to see who called what is slow.
const FRAMES: usize = 3;

/// The line; `None` when the log says nothing of it.
pub(super) fn of(request: &SlowRequest, form: SlowRequestLog) -> Option<String> {
    match form {
        SlowRequestLog::Unset | SlowRequestLog::Off => None,
        SlowRequestLog::Text => Some(text(request)),
        SlowRequestLog::Json => {
            let mut json = Vec::new();
            // Writing to memory cannot fail, and the document has text for keys.
            let _ = rwsgi_stats::write_json(&mut json, request);
            Some(String::from_utf8_lossy(&json).into_owned())
        }
    }
}

fn text(request: &SlowRequest) -> String {
    let seconds = |micros: u64| micros as f64 / 1e6;
    let PhaseTimes { queue, body, gil, application, write } = request.phases;
    let of = match request.remote_addr.as_str() {
        "" => String::new(),
        client => format!(" of {client}"),
    };
    let mut line = format!(
        "{} {}{of} took {:.2} s (queue {:.2}, body {:.2}, gil {:.2}, application {:.2}, write {:.2})",
        request.method,
        request.uri,
        seconds(request.elapsed),
        seconds(queue),
        seconds(body),
        seconds(gil),
        seconds(application),
        seconds(write),
    );
    // Writing to a String cannot fail.
    let _ = match request.outcome.as_str() {
        "done" => write!(line, ", status {}", request.status),
        "harakiri" => write!(line, ", ended by harakiri"),
        _ => write!(line, ", lost: its process died"),
    };
    let _ = write!(line, ", worker {} (pid {}) core {}", request.worker, request.pid, request.core);
    if !request.route.is_empty() {
        let _ = write!(line, ", route {}", request.route);
    }
    if request.rss_before > 0 && request.rss_after > request.rss_before {
        let _ = write!(line, ", {} kB more memory", (request.rss_after - request.rss_before) / 1024);
    }
    if !request.exception.is_empty() {
        let _ = write!(line, ", raised {}", request.exception);
    }
    if !request.stack.is_empty() {
        let frames = request.stack.iter().take(FRAMES).map(String::as_str).collect::<Vec<_>>().join(" < ");
        let more = if request.stack.len() > FRAMES { " < …" } else { "" };
        let _ = write!(line, ", at {:.2} s in {frames}{more}", seconds(request.stack_at));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> SlowRequest {
        SlowRequest {
            worker: 2,
            core: 1,
            pid: 7,
            elapsed: 2_310_000,
            method: "GET".into(),
            uri: "/orders/7?a=…".into(),
            remote_addr: "192.0.2.1".into(),
            status: 200,
            outcome: "done".into(),
            phases: PhaseTimes { gil: 100_000, application: 2_200_000, write: 10_000, ..PhaseTimes::default() },
            stack: ["views.py:41 in export", "views.py:9 in all", "app.py:5 in call", "app.py:1 in app"]
                .map(str::to_owned)
                .to_vec(),
            stack_at: 1_000_000,
            rss_before: 1 << 20,
            rss_after: 3 << 20,
            ..SlowRequest::default()
        }
    }

    #[test]
    fn a_person_reads_where_the_time_went() {
        assert_eq!(
            of(&request(), SlowRequestLog::Text).unwrap(),
            "GET /orders/7?a=… of 192.0.2.1 took 2.31 s (queue 0.00, body 0.00, gil 0.10, application 2.20, write 0.01), \
             status 200, worker 2 (pid 7) core 1, 2048 kB more memory, at 1.00 s in views.py:41 in export < views.py:9 in \
             all < app.py:5 in call < …"
        );
        let lost = SlowRequest {
            outcome: "died".into(),
            exception: "ValueError: no".into(),
            route: "/orders/{}".into(),
            stack: Vec::new(),
            ..request()
        };
        let line = of(&lost, SlowRequestLog::Text).unwrap();
        assert!(
            line.ends_with(
                ", lost: its process died, worker 2 (pid 7) core 1, route /orders/{}, 2048 kB more memory, raised \
                 ValueError: no"
            ),
            "{line}"
        );
        assert_eq!(of(&lost, SlowRequestLog::Off), None);
    }

    #[test]
    fn a_program_reads_the_same_as_in_the_stats_whatever_is_in_it() {
        let request = SlowRequest { uri: "/\u{7f}\u{2028}\n".into(), ..request() };
        let line = of(&request, SlowRequestLog::Json).unwrap();
        assert!(!line.chars().any(rwsgi_stats::is_control));
        assert_eq!(serde_json::from_str::<SlowRequest>(&line).unwrap(), request);
    }
}
