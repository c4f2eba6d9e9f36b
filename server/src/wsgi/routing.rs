//! Rules for requests and responses, for one thread: hooks of the [gateway](super::gateway) at four places. What they
//! say is [`rwsgi_routing`]'s; what becomes of a response is in [`super::routed`].

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use tracing::{info, warn};

use super::active::{CurrentRequest, RequestPlace};
use super::mounted::Mounted;
use super::respond::{ResponseFailure, respond};
use super::routed::Routed;
use super::rules::SharedRules;
use super::serving::{self, LineChoice};
use super::static_files::StaticFiles;
use super::strings::{from_latin1, latin1};
use super::transport::Transport;
use crate::clock::UnixMicros;
use crate::log_limit::{self, LineKind};
use crate::log_text::Foreign;
use rwsgi_config::Config;
use rwsgi_routing::{Answer, Effect, Next, Phase};

/// What rules may do that is the worker's to do: a signal of uWSGI's, and harakiri; 0 seconds end that.
pub(crate) type Act = fn(Python<'_>, &Effect);

/// See the module.
pub(crate) struct Routing {
    shared: Arc<SharedRules>,
    act: Act,
    worker: u32,
    /// For the next request.
    spare: Option<Box<Routed>>,
    /// Knows how a file is sent; `None` when no rule sends one.
    files: Option<Py<StaticFiles>>,
    mounted: Mounted,
}

impl Routing {
    /// For a thread of the worker of that number.
    ///
    /// # Errors
    /// When Python has no memory left.
    pub(crate) fn new(
        py: Python<'_>,
        worker: u32,
        shared: Arc<SharedRules>,
        config: &Config,
        act: Act,
    ) -> PyResult<Self> {
        let files = match shared.rules.serve_files() {
            true => Some(Py::new(py, StaticFiles::new(py, py.None(), config)?)?),
            false => None,
        };
        Ok(Self { shared, act, worker, spare: None, files, mounted: Mounted::new(config) })
    }

    /// The page that is configured for a response of the server's own.
    pub(super) fn page(&self, status: u16) -> Option<Vec<u8>> {
        self.shared.page(status)
    }

    /// Before the application: what the rules answer in its place, if they do. Variables that they set are in the
    /// environ afterwards.
    pub(super) fn begin<C: Transport + 'static>(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        place: &RequestPlace<C>,
    ) -> PyResult<Option<Answer>> {
        let mut routed = self.spare.take().unwrap_or_else(|| Box::new(Routed::new(Arc::clone(&self.shared))));
        routed.clear();
        let rules = &self.shared.rules;
        let mut answer = None;
        if !rules.is_empty() {
            let visit = &mut routed.visit;
            visit.facts.worker = self.worker;
            visit.facts.began = UnixMicros::now().as_micros();
            // As with uWSGI, rules see the path that the application will see.
            let path = environ.get_item("PATH_INFO")?;
            if let Some(path) = path.as_ref().and_then(|path| latin1(path.cast().ok()?)) {
                self.mounted.move_prefix(py, environ, path)?;
            }
            for (name, value) in environ.iter() {
                if let (Ok(name), Ok(value)) = (name.cast::<PyString>(), value.cast::<PyString>())
                    && let (Some(name), Some(value)) = (latin1(name), latin1(value))
                {
                    visit.variables.came_with(name, value);
                }
            }
            let next = match rules.may_take_time(Phase::Request) {
                true => py.detach(|| rules.run(Phase::Request, visit)),
                false => rules.run(Phase::Request, visit),
            };
            for (name, value) in visit.variables.set_by_rules() {
                if name == b"UWSGI_SCHEME" {
                    environ.set_item("wsgi.url_scheme", from_latin1(py, value)?)?;
                }
                environ.set_item(from_latin1(py, name)?, from_latin1(py, value)?)?;
            }
            if let Next::Answer(given) = next {
                answer = Some(given);
            }
            self.do_effects(py, &mut routed);
        }
        place.lock().routed = Some(routed);
        Ok(answer)
    }

    /// Answers in place of the application.
    ///
    /// # Errors
    /// Why the response did not come out as it should.
    pub(super) fn answer(
        &self,
        py: Python<'_>,
        current: &CurrentRequest,
        answer: Answer,
        environ: &Bound<'_, PyDict>,
        start_response: &Bound<'_, PyAny>,
    ) -> Result<(), ResponseFailure> {
        match (answer, &self.files) {
            (Answer::Static(path), Some(files)) => {
                let place = Path::new(OsStr::from_bytes(&path));
                match files.get().answer_path(py, place, environ, start_response)? {
                    Some(result) => respond(py, current, &result),
                    None => self.answer(py, current, Answer::Page(404), environ, start_response),
                }
            }
            (Answer::File { status, content_type, file }, Some(files)) => {
                let (status, kind) = (from_latin1(py, &status)?, from_latin1(py, &content_type)?);
                let result = files.get().answer_open(py, file, status, kind, start_response)?;
                respond(py, current, &result)
            }
            (answer, _) => current.with(|active| active.send_made(answer).map_err(ResponseFailure::from)),
        }
    }

    /// When the response was sent.
    pub(super) fn end(&mut self, py: Python<'_>, mut routed: Box<Routed>, status: u16, body_sent: u64) {
        let rules = &self.shared.rules;
        if rules.has(Phase::Final) {
            let took = u64::try_from(routed.began.elapsed().as_micros()).unwrap_or(u64::MAX);
            let visit = &mut routed.visit;
            (visit.facts.status, visit.facts.body_sent, visit.facts.took) = (status, body_sent, took);
            // It is too late for an answer.
            let _ = match rules.may_take_time(Phase::Final) {
                true => py.detach(|| rules.run(Phase::Final, visit)),
                false => rules.run(Phase::Final, visit),
            };
        }
        self.do_effects(py, &mut routed);
        let set = routed.visit.variables.set_by_rules();
        let set: Vec<_> = set.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        if !set.is_empty() {
            serving::note(|notes| notes.set = set);
        }
        if routed.has_harakiri {
            (self.act)(py, &Effect::Harakiri(0));
        }
        self.spare = Some(routed);
    }

    fn do_effects(&self, py: Python<'_>, routed: &mut Routed) {
        for effect in routed.visit.effects.drain(..) {
            match effect {
                Effect::Log(line) => info!("{}", Foreign(&line)),
                Effect::Complain(problem) if log_limit::allows(LineKind::Rule) => warn!("{problem}"),
                Effect::Complain(_) => {}
                Effect::LogVariable(name, value) => serving::note(|notes| notes.set_variable(name, value)),
                Effect::DoNotLog => serving::note(|notes| notes.line = LineChoice::NotLogged),
                Effect::Signal(_) => (self.act)(py, &effect),
                Effect::Harakiri(_) => {
                    routed.has_harakiri = true;
                    (self.act)(py, &effect);
                }
            }
        }
    }
}
