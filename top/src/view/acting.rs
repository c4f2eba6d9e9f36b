//! What is done to a server from the screen: each action is told in full and confirmed first, and its answer stands at the
//! foot until the next key.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use rwsgi_stats::control::{Answer, ReloadKind, Request};
use rwsgi_stats::{Snapshot, Worker};

use super::actions::Outcome;
use super::asking::Pending;
use super::inside::blank;
use super::overlay::boxed;
use super::screen::Screen;
use super::table::print_line;
use super::theme::Theme;
use crate::format;
use crate::source::{ControlError, ControlEvent, ControlReply};

/// How long loading an application and finishing requests may take.
const LONG: Duration = Duration::from_secs(3_600);

/// What a key does to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServerAction {
    /// The application is loaded again.
    Reload,
    /// The selected worker has its process replaced.
    Recycle,
    /// The selected worker takes no new requests, or takes them again.
    Drain,
    /// A worker more runs.
    More,
    /// A worker fewer runs.
    Fewer,
}

/// An action, and what is told of it before it is confirmed.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    request: Request,
    /// Its name, for the answer.
    name: String,
    /// What will happen, in lines.
    lines: Vec<String>,
}

/// The processes that a question speaks of: the master's, its generation, and that of the worker which is meant.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Meant {
    server: i32,
    generation: Option<u32>,
    worker: Option<(u32, i32)>,
}

impl Meant {
    /// Of this request as things stand.
    fn by(request: &Request, snapshot: &Snapshot) -> Self {
        let worker = match request {
            Request::Recycle { worker } | Request::Drain { worker } | Request::Undrain { worker } => Some(*worker),
            _ => None,
        };
        let pid = |id| snapshot.workers.iter().find(|worker| worker.id == id).map_or(0, |worker| worker.pid);
        let worker = worker.map(|id| (id, pid(id)));
        Self { server: snapshot.pid, generation: snapshot.generation, worker }
    }
}

/// What waits for a yes.
#[derive(Debug)]
struct Unconfirmed {
    /// The server, by its place on the command line.
    target: usize,
    plan: Plan,
    meant: Meant,
}

/// What is confirmed, under way and answered.
#[derive(Debug, Default)]
pub(super) struct Acting {
    /// `--control` was given: the stats need not name the socket.
    is_named: bool,
    unconfirmed: Option<Unconfirmed>,
    /// Under way, with their names.
    pending: Vec<(Pending, String)>,
    /// For the foot, and whether it is bad news.
    said: Option<(String, bool)>,
}

impl Acting {
    /// `is_named` says that the control socket is named on the command line.
    pub(super) fn new(is_named: bool) -> Self {
        Self { is_named, ..Self::default() }
    }

    /// Whether a question lies over the table.
    pub(super) fn is_open(&self) -> bool {
        self.unconfirmed.is_some()
    }

    /// For the foot of the screen.
    pub(super) fn line(&self, theme: &Theme) -> Option<Span<'static>> {
        let (text, is_bad) = self.said.as_ref()?;
        Some(Span::styled(format!("{text}  "), if *is_bad { theme.alarm() } else { theme.strong() }))
    }

    /// What has no room in one line of that width, over as many at the foot as it needs.
    pub(super) fn draw_long(&self, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let Some((text, is_bad)) = &self.said else { return };
        let lines = format::wrapped(text, usize::from(area.width));
        let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        if height < 2 || height > area.height / 3 {
            return;
        }
        let style = if *is_bad { theme.alarm() } else { theme.strong() };
        for (line, y) in lines.into_iter().zip(area.bottom() - height..) {
            blank(Rect { y, height: 1, ..area }, buf);
            print_line(buf, area.x, y, &Line::styled(line, style), area.width);
        }
    }

    /// A key was pressed: what was said has been seen.
    pub(super) fn seen(&mut self) {
        if self.pending.is_empty() {
            self.said = None;
        }
    }

    /// Says something at the foot until the next key.
    pub(super) fn say(&mut self, text: String, is_bad: bool) {
        self.said = Some((text, is_bad));
    }

    /// Draws the question.
    pub(super) fn draw(&self, label: &str, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let Some(Unconfirmed { plan, .. }) = &self.unconfirmed else { return };
        let mut lines: Vec<Line<'_>> = plan.lines.iter().map(|line| Line::raw(format!(" {line} "))).collect();
        lines.push(Line::default());
        lines.push(Line::from(vec![
            Span::styled(" y ", theme.strong()),
            Span::raw("does it, "),
            Span::styled("any other key ", theme.strong()),
            Span::raw("leaves it "),
        ]));
        let width = lines.iter().map(Line::width).max().unwrap_or(0) + 2;
        let title = format!("{}: {}", format::one_line(label), plan.name);
        boxed(&title, &lines, 0, u16::try_from(width).unwrap_or(u16::MAX).max(40), theme, area, buf);
    }
}

impl Screen {
    /// Asks whether this is to be done to the server that is meant, and its selected worker.
    pub(super) fn intend(&mut self, action: ServerAction) {
        let target = self.server_shown().unwrap_or(self.selection.server);
        match self.plan(target, action) {
            Ok((plan, meant)) => self.acting.unconfirmed = Some(Unconfirmed { target, plan, meant }),
            Err(why) => self.acting.say(why, true),
        }
    }

    fn plan(&self, target: usize, action: ServerAction) -> Result<(Plan, Meant), String> {
        if self.playback.past().is_some() {
            return Err("what is shown is the past: return to the present before anything is done".to_owned());
        }
        let sample = self.sample_of(target).ok_or("the server has not answered yet: nothing is known of it")?;
        let snapshot = &sample.snapshot;
        if snapshot.server.as_deref() != Some("rwsgi") {
            return Err("uWSGI has no control socket: that takes rwsgi".to_owned());
        }
        if snapshot.control.is_none() && !self.acting.is_named {
            return Err("the server has no control socket: start it with --control PATH".to_owned());
        }
        let selected = self.table.selected.filter(|_| !self.all()).map(|(place, _)| place);
        let plan = plan(snapshot, selected.and_then(|place| snapshot.workers.get(place)), action)?;
        let meant = Meant::by(&plan.request, snapshot);
        Ok((plan, meant))
    }

    /// A key while a question lies over the table.
    pub(super) fn confirm(&mut self, key: KeyEvent) -> Outcome {
        let is_yes = matches!(key.code, KeyCode::Char('y' | 'Y'))
            && !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
        let Some(Unconfirmed { target, plan, meant }) = self.acting.unconfirmed.take().filter(|_| is_yes) else {
            return Outcome::Draw;
        };
        // What was told was of those processes.
        if self.sample_of(target).map(|sample| Meant::by(&plan.request, &sample.snapshot)) != Some(meant) {
            let why = "not done: another process or generation has come meanwhile; look again, and ask again";
            self.acting.say(format!("{}: {why}", plan.name), true);
            return Outcome::Draw;
        }
        match self.asking.ask(target, plan.request, LONG) {
            Ok(pending) => {
                self.acting.say(format!("{}: asked", plan.name), false);
                self.acting.pending.push((pending, plan.name));
            }
            Err(why) => self.acting.say(format!("{}: {why}", plan.name), true),
        }
        Outcome::Draw
    }

    /// What a server says of an action; gives back what is of something else.
    pub(super) fn acting_told(&mut self, told: ControlReply) -> Result<bool, ControlReply> {
        let Some(place) = self.acting.pending.iter().position(|(pending, _)| pending.is(&told)) else {
            return Err(told);
        };
        let name = self.acting.pending[place].1.clone();
        match told.said {
            ControlEvent::Progress(text) => self.acting.say(format!("{name}: {text}"), false),
            ControlEvent::Answer(answer) => {
                self.acting.pending.remove(place);
                match answer {
                    Ok(Answer::Text(text)) => self.acting.say(format!("{name}: {text}"), false),
                    Ok(_) => self.acting.say(format!("{name}: {}", ControlError::Another), true),
                    Err(error) => self.acting.say(format!("{name}: {error}"), true),
                }
            }
        }
        Ok(true)
    }
}

/// What will happen, or why it cannot be done.
fn plan(snapshot: &Snapshot, selected: Option<&Worker>, action: ServerAction) -> Result<Plan, String> {
    let running: Vec<&Worker> = snapshot.workers.iter().filter(|worker| worker.pid > 0).collect();
    let selected = || selected.ok_or("select a worker first (↑ ↓)");
    let with_process = || match selected()? {
        worker if worker.pid > 0 => Ok(worker),
        worker => Err(format!("worker {} has no process at the moment", worker.id)),
    };
    let count = running.len();
    Ok(match action {
        ServerAction::Reload => {
            let held: u64 = running.iter().map(|worker| held(worker)).sum();
            let generation = snapshot.generation.unwrap_or_default();
            Plan {
                request: Request::Reload { how: ReloadKind::Rolling },
                name: "reload".to_owned(),
                lines: vec![
                    format!(
                        "The application is loaded again beside generation {generation}, which serves until the new one does."
                    ),
                    format!("Then {} replaced; they finish what they have ({} now).", all(count), requests(held)),
                    format!(
                        "When it cannot be loaded, generation {generation} goes on. Until then both are in memory."
                    ),
                ],
            }
        }
        ServerAction::Recycle => {
            let worker = with_process()?;
            Plan {
                request: Request::Recycle { worker: worker.id },
                name: format!("recycle of worker {}", worker.id),
                lines: vec![
                    format!("A new process of the same code is started for worker {}. When it serves,", worker.id),
                    format!(
                        "process {} finishes what it has ({} now) and leaves. No request is lost;",
                        worker.pid,
                        requests(held(worker))
                    ),
                    match count {
                        1 => "it is the only worker, and serves until then.".to_owned(),
                        2 => "the other worker is not touched.".to_owned(),
                        _ => format!("the other {} workers are not touched.", count - 1),
                    },
                ],
            }
        }
        ServerAction::Drain => {
            let worker = with_process()?;
            let others = running.iter().filter(|other| other.id != worker.id && other.accepting > 0).count();
            if worker.accepting == 0 {
                return Ok(Plan {
                    request: Request::Undrain { worker: worker.id },
                    name: format!("undrain of worker {}", worker.id),
                    lines: vec![format!("Worker {} (pid {}) takes requests again.", worker.id, worker.pid)],
                });
            }
            if others == 0 {
                return Err(format!("worker {} is the only one that takes requests: they would wait", worker.id));
            }
            Plan {
                request: Request::Drain { worker: worker.id },
                name: format!("drain of worker {}", worker.id),
                lines: vec![
                    format!("Worker {} (pid {}) takes no new requests from the next second on.", worker.id, worker.pid),
                    format!("It finishes what it has ({} now), and stays.", requests(held(worker))),
                    match others {
                        1 => "1 other worker takes its requests. The same key ends it.".to_owned(),
                        _ => format!("{others} other workers take its requests. The same key ends it."),
                    },
                ],
            }
        }
        ServerAction::More => {
            let space = snapshot.workers.len();
            if count >= space {
                return Err(format!("all {space} workers run: more take a restart with another number of processes"));
            }
            Plan {
                request: Request::Workers { count: count as u32 + 1 },
                name: "a worker more".to_owned(),
                lines: vec![
                    format!("{} of {space} workers run instead of {count}: a process is started.", count + 1),
                    "Where cheaper decides that, it is the most that run from now on.".to_owned(),
                ],
            }
        }
        ServerAction::Fewer => {
            // The server lets the last one go.
            let Some(last) = running.last().filter(|_| count > 1) else {
                return Err("only one worker runs: it is needed".to_owned());
            };
            Plan {
                request: Request::Workers { count: count as u32 - 1 },
                name: "a worker fewer".to_owned(),
                lines: vec![
                    format!("{} of {} workers run instead of {count}:", count - 1, snapshot.workers.len()),
                    format!(
                        "worker {} (pid {}) finishes what it has ({} now) and leaves.",
                        last.id,
                        last.pid,
                        requests(held(last))
                    ),
                    "Where cheaper decides that, it is the most that run from now on.".to_owned(),
                ],
            }
        }
    })
}

/// Requests that a worker holds.
fn held(worker: &Worker) -> u64 {
    worker.cores.iter().map(|core| u64::from(core.in_request > 0)).sum()
}

fn requests(count: u64) -> String {
    match count {
        0 => "no request".to_owned(),
        1 => "1 request".to_owned(),
        _ => format!("{count} requests"),
    }
}

fn all(workers: usize) -> String {
    if workers == 1 { "the worker is".to_owned() } else { format!("all {workers} workers are") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_stats::Core;

    fn server() -> Snapshot {
        let worker = |id: u32, busy| Worker {
            id,
            pid: 4240 + id as i32,
            accepting: 1,
            cores: vec![Core { in_request: busy, ..Core::default() }],
            ..Worker::default()
        };
        Snapshot { generation: Some(3), workers: vec![worker(1, 0), worker(2, 1), worker(3, 1)], ..Snapshot::default() }
    }

    fn told(snapshot: &Snapshot, place: Option<usize>, action: ServerAction) -> Result<(Request, String), String> {
        plan(snapshot, place.map(|place| &snapshot.workers[place]), action)
            .map(|plan| (plan.request, plan.lines.join(" ")))
    }

    #[test]
    fn what_will_happen_is_told_with_numbers() {
        let mut server = server();
        let (request, text) = told(&server, Some(1), ServerAction::Recycle).unwrap();
        assert_eq!(request, Request::Recycle { worker: 2 });
        assert!(text.contains("process 4242 finishes what it has (1 request now)"), "{text}");
        assert!(text.contains("the other 2 workers are not touched"), "{text}");
        let (request, text) = told(&server, None, ServerAction::Reload).unwrap();
        assert_eq!(request, Request::Reload { how: ReloadKind::Rolling });
        assert!(text.contains("all 3 workers are replaced; they finish what they have (2 requests now)"), "{text}");
        let (request, text) = told(&server, None, ServerAction::Fewer).unwrap();
        assert_eq!(request, Request::Workers { count: 2 });
        assert!(text.contains("worker 3 (pid 4243) finishes"), "{text}");
        assert_eq!(told(&server, Some(0), ServerAction::Drain).unwrap().0, Request::Drain { worker: 1 });
        server.workers[0].accepting = 0;
        assert_eq!(told(&server, Some(0), ServerAction::Drain).unwrap().0, Request::Undrain { worker: 1 });
        server.workers[2].pid = 0;
        assert_eq!(told(&server, None, ServerAction::More).unwrap().0, Request::Workers { count: 3 });
    }

    #[test]
    fn what_cannot_be_done_is_told_instead_of_being_asked() {
        let mut server = server();
        assert!(told(&server, None, ServerAction::Recycle).unwrap_err().contains("select a worker"));
        assert!(told(&server, None, ServerAction::More).unwrap_err().contains("all 3 workers run"));
        server.workers[2].pid = 0;
        server.workers[1].accepting = 0;
        assert!(told(&server, Some(2), ServerAction::Recycle).unwrap_err().contains("no process"));
        assert!(told(&server, Some(0), ServerAction::Drain).unwrap_err().contains("only one that takes requests"));
        server.workers.truncate(1);
        assert!(told(&server, None, ServerAction::Fewer).unwrap_err().contains("only one worker runs"));
    }
}
