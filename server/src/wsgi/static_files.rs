//! Answers a request with a file if there is one (`--static-map`, `--check-static`), and passes all others to the
//! application.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use super::beneath::{open_beneath, open_file, open_itself, real_path};
use super::file_wrapper::FileWrapper;
use super::mounted::Mounted;
use super::serving;
use super::static_rules::{Answered, Coding, Rules, accepted, latin};
use rwsgi_config::{Config, ServeMode};
use rwsgi_protocol::conditional::{Conditions, Selected, Stored};
use rwsgi_protocol::date::HttpDate;

/// The route of all requests that files answer.
const STATIC_ROUTE: &str = "(static)";

/// A directory for the paths that begin with a prefix.
struct Place {
    /// Without a slash at its end; empty for all paths.
    prefix: Vec<u8>,
    /// A directory, or a file for the prefix alone.
    root: PathBuf,
}

/// A file that answers a request.
struct Found {
    file: File,
    stored: Stored,
    /// What it is called, when that is not the end of the request's path.
    own_name: Option<PathBuf>,
    /// Its real path, where a rule asks for it.
    real: Option<PathBuf>,
    /// Whether another version may be sent to another client.
    varies: bool,
    /// How this version is compressed.
    coding: Option<Coding>,
}

/// What a request says of the file that it wants.
struct Wanted {
    path_info: Vec<u8>,
    /// `Accept-Encoding`, empty if no compressed version is sent to anybody.
    accept: Vec<u8>,
    /// `DOCUMENT_ROOT`, when that counts.
    docroot: Option<PathBuf>,
}

/// A WSGI application in front of the application.
#[pyclass(frozen, module = "rwsgi", name = "static_files")]
pub(super) struct StaticFiles {
    application: Py<PyAny>,
    /// In the order in which they are searched.
    places: Vec<Place>,
    mounted: Mounted,
    looks_in_docroot: bool,
    /// Rules guard paths. They see `//` as it is, and below a directory it would be the same as one slash.
    is_guarded: bool,
    rules: Rules,
    /// `--static-safe`: directories that links may lead to, as real paths.
    safe: Vec<PathBuf>,
    /// `mimetypes.guess_type`
    guess_type: Py<PyAny>,
    /// `io.FileIO`
    file_io: Py<PyAny>,
}

impl StaticFiles {
    /// In front of `application`, as configured.
    ///
    /// # Errors
    /// When Python has no memory left.
    pub(super) fn new(py: Python<'_>, application: Py<PyAny>, config: &Config) -> PyResult<Self> {
        let everywhere = config.check_static.iter().map(|root| Place { prefix: Vec::new(), root: real(root) });
        let below = config
            .static_map
            .iter()
            .map(|map| Place { prefix: map.prefix.trim_end_matches('/').into(), root: real(&map.root) });
        let mimetypes = py.import("mimetypes")?;
        // Reads files: here rather than at the first request.
        mimetypes.call_method0("init")?;
        Ok(Self {
            application,
            // As uWSGI asks them.
            places: everywhere.chain(below).collect(),
            mounted: Mounted::new(config),
            looks_in_docroot: config.static_files.docroot,
            is_guarded: rwsgi_routing::Rules::compile(&config.routing.rules).is_ok_and(|rules| rules.guards_paths()),
            rules: Rules::new(&config.static_files),
            safe: safe_places(config),
            guess_type: mimetypes.getattr("guess_type")?.unbind(),
            file_io: py.import("io")?.getattr("FileIO")?.unbind(),
        })
    }

    /// Whether the path may name a file, without a look at the disk. No file name has a NUL.
    fn may_have(&self, path: &[u8]) -> bool {
        let gets_around = self.is_guarded && path.windows(2).any(|two| two == b"//");
        !path.contains(&0)
            && !gets_around
            && !self.rules.skips(path)
            && (self.looks_in_docroot || self.places.iter().any(|place| path.starts_with(&place.prefix)))
    }

    /// Finds the file.
    fn find(&self, wanted: &Wanted) -> Option<Found> {
        let path = &wanted.path_info;
        let docroot = wanted.docroot.as_ref().map(|root| Place { prefix: Vec::new(), root: real(root) });
        self.places.iter().chain(&docroot).find_map(|place| {
            let below = path.strip_prefix(&place.prefix[..])?;
            self.open(place, below).and_then(|(file, own_name)| self.settle(place, file, own_name, wanted))
        })
    }

    /// Opens what is `below` the place. The path is its own name if the request's path is not: a `static-map` to one
    /// file, or a directory's index.
    fn open(&self, place: &Place, below: &[u8]) -> Option<(File, Option<PathBuf>)> {
        let mut name = &b""[..];
        if below.is_empty() {
            if let Some(file) = open_file(&place.root) {
                return Some((file, Some(place.root.clone())));
            }
        } else {
            name = below.strip_prefix(b"/")?;
            name = &name[name.iter().take_while(|&&byte| byte == b'/').count()..];
            if let Some(file) = open_beneath(&place.root, name, &self.safe) {
                return Some((file, None));
            }
        }
        let slash: &[u8] = if name.is_empty() || name.ends_with(b"/") { b"" } else { b"/" };
        self.rules.index.iter().find_map(|index| {
            let file = open_beneath(&place.root, &[name, slash, index.as_bytes()].concat(), &self.safe)?;
            Some((file, Some(PathBuf::from(index))))
        })
    }

    /// Applies the rules to a file that was found: it may be none for this server, or a compressed version may take its
    /// place.
    fn settle(&self, place: &Place, file: File, own_name: Option<PathBuf>, wanted: &Wanted) -> Option<Found> {
        let about = |file: &File| {
            let about = file.metadata().ok()?;
            let nanos = u32::try_from(about.mtime_nsec()).unwrap_or(0);
            Some(Stored { size: about.size(), modified: about.mtime(), nanos })
        };
        if !self.rules.need_real_path() {
            let stored = about(&file)?;
            return Some(Found { file, stored, own_name, real: None, varies: false, coding: None });
        }
        let path = real_path(&file)?;
        if self.rules.skips(path.as_os_str().as_encoded_bytes()) {
            return None;
        }
        let varies = self.rules.compresses(path.as_os_str().as_encoded_bytes());
        if varies {
            for coding in accepted(&wanted.accept) {
                let mut compressed = path.clone().into_os_string();
                compressed.push(coding.end);
                let compressed = PathBuf::from(compressed);
                let own_name = own_name.clone();
                if let Some(file) = self.open_beside(place, &compressed) {
                    let (stored, real) = (about(&file)?, Some(compressed));
                    return Some(Found { file, stored, own_name, real, varies, coding: Some(coding) });
                }
            }
        }
        let stored = about(&file)?;
        Some(Found { file, stored, own_name, real: Some(path), varies, coding: None })
    }

    /// Opens a file beside one that was found in this place, or in a safe one that a link has led to.
    fn open_beside(&self, place: &Place, path: &Path) -> Option<File> {
        let is_file = place.root.parent().filter(|above| path.parent() == Some(above));
        [&*place.root].into_iter().chain(is_file).chain(self.safe.iter().map(|safe| &**safe)).find_map(|root| {
            let below = path.strip_prefix(root).ok()?;
            open_beneath(root, below.as_os_str().as_encoded_bytes(), &self.safe)
        })
    }

    /// Answers with the file of this name, wherever it is; `None` when there is none.
    ///
    /// # Errors
    /// What Python raises.
    pub(super) fn answer_path<'py>(
        &self,
        py: Python<'py>,
        path: &Path,
        environ: &Bound<'py, PyDict>,
        start_response: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let wanted = self.wanted(environ, text_of(environ, "PATH_INFO")?.unwrap_or_default())?;
        let found = py.detach(|| {
            let (file, root) = open_itself(path, &self.safe)?;
            self.settle(&Place { prefix: Vec::new(), root }, file, Some(path.to_owned()), &wanted)
        });
        let is_head = text_of(environ, "REQUEST_METHOD")?.as_deref() == Some(b"HEAD");
        found.map(|found| self.answer(py, found, &wanted, environ, start_response, is_head)).transpose()
    }

    /// Answers with a file that is open, as it is.
    ///
    /// # Errors
    /// What Python raises.
    pub(super) fn answer_open<'py>(
        &self,
        py: Python<'py>,
        file: File,
        status: Bound<'py, PyString>,
        kind: Bound<'py, PyString>,
        start_response: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        serving::note(|notes| notes.route = Some(STATIC_ROUTE.into()));
        let headers = PyList::empty(py);
        headers.append(("Content-Type", kind))?;
        headers.append(("Content-Length", file.metadata()?.len().to_string()))?;
        start_response.call1((status, headers))?;
        let filelike = self.file_io.bind(py).call1((file.into_raw_fd(),))?;
        Ok(Bound::new(py, FileWrapper::over(filelike.unbind()))?.into_any())
    }

    fn answer<'py>(
        &self,
        py: Python<'py>,
        found: Found,
        wanted: &Wanted,
        environ: &Bound<'py, PyDict>,
        start_response: &Bound<'py, PyAny>,
        is_head: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        serving::note(|notes| notes.route = Some(STATIC_ROUTE.into()));
        let Found { mut file, stored, own_name, real, varies, coding } = found;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let name = match own_name {
            Some(own) => own.display().to_string(),
            None => environ.as_any().get_item("PATH_INFO")?.extract()?,
        };
        let kind = self.kind_of(py, &name)?;
        let headers = PyList::empty(py);
        if varies {
            headers.append(("Vary", "Accept-Encoding"))?;
        }
        let expires = self.rules.expires(&Answered {
            real: real.as_ref().map(|path| path.as_os_str().as_encoded_bytes()),
            path_info: &wanted.path_info,
            uri: &text_of(environ, "REQUEST_URI")?.unwrap_or_default(),
            kind: &kind,
            modified: stored.modified,
            now: now.cast_signed(),
        });
        if let Some(expires) = expires {
            headers.append(("Expires", HttpDate::from_unix(expires.max(0).cast_unsigned()).to_string()))?;
        }
        let is_sent_by_proxy = self.rules.serve_mode != ServeMode::Own;
        let tag = stored.entity_tag();
        let asked = Asked::of(environ, is_head || is_sent_by_proxy)?;
        let selected = stored.select(&tag, &asked.conditions(), now);
        if selected != Selected::PreconditionFailed {
            headers.append(("Last-Modified", HttpDate::from_unix(stored.last_modified(now)).to_string()))?;
        }
        if selected != Selected::PreconditionFailed && !is_sent_by_proxy {
            headers.append(("ETag", tag))?;
            headers.append(("Accept-Ranges", "bytes"))?;
        }
        let (status, first, len) = match selected {
            Selected::Whole => ("200 OK", 0, stored.size),
            Selected::Part { first, len } => {
                headers.append(("Content-Range", format!("bytes {first}-{}/{}", first + len - 1, stored.size)))?;
                ("206 Partial Content", first, len)
            }
            Selected::NotModified => return without_body(start_response, "304 Not Modified", headers),
            Selected::PreconditionFailed => return without_body(start_response, "412 Precondition Failed", headers),
            Selected::Unsatisfiable => {
                headers.append(("Content-Range", format!("bytes */{}", stored.size)))?;
                return without_body(start_response, "416 Range Not Satisfiable", headers);
            }
        };
        headers.append(("Content-Type", kind))?;
        if let Some(coding) = coding {
            headers.append(("Content-Encoding", coding.name))?;
        }
        let told = match self.rules.serve_mode {
            ServeMode::Own => None,
            ServeMode::Accel => Some("X-Accel-Redirect"),
            ServeMode::Sendfile => Some("X-Sendfile"),
        };
        if let (Some(told), Some(real)) = (told, &real) {
            headers.append((told, latin(real)))?;
            return without_body(start_response, status, headers);
        }
        headers.append(("Content-Length", len.to_string()))?;
        if is_head {
            return without_body(start_response, status, headers);
        }
        start_response.call1((status, headers))?;
        file.seek(SeekFrom::Start(first))?;
        let filelike = self.file_io.bind(py).call1((file.into_raw_fd(),))?;
        Ok(Bound::new(py, FileWrapper::over(filelike.unbind()))?.into_any())
    }

    fn wanted(&self, environ: &Bound<'_, PyDict>, path_info: Vec<u8>) -> PyResult<Wanted> {
        let docroot = match self.looks_in_docroot {
            true => text_of(environ, "DOCUMENT_ROOT")?.filter(|root| !root.is_empty() && !root.contains(&0)),
            false => None,
        };
        let docroot = docroot.map(|root| PathBuf::from(OsString::from_vec(root)));
        Ok(Wanted { path_info, accept: text_of(environ, "HTTP_ACCEPT_ENCODING")?.unwrap_or_default(), docroot })
    }

    fn kind_of(&self, py: Python<'_>, path: &str) -> PyResult<String> {
        // `guess_type` reads a URL: it would take text after two slashes for a host, and before a colon for a scheme.
        let name = path.rsplit('/').next().unwrap_or(path);
        if let Some(kind) = self.rules.type_of(name) {
            return Ok(kind.to_owned());
        }
        let guess = self.guess_type.bind(py).call1((format!("/{name}"),))?;
        let (kind, encoding): (Option<String>, Option<String>) = guess.extract()?;
        Ok(kind.filter(|_| encoding.is_none()).unwrap_or_else(|| "application/octet-stream".into()))
    }
}

#[pymethods]
impl StaticFiles {
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        environ: Bound<'py, PyDict>,
        start_response: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let method = text_of(&environ, "REQUEST_METHOD")?.unwrap_or_default();
        if matches!(&method[..], b"GET" | b"HEAD")
            && let Some(path) = text_of(&environ, "PATH_INFO")?
            && let path = self.mounted.without_prefix(&environ, &path)?
            && self.may_have(path)
        {
            let wanted = self.wanted(&environ, path.to_vec())?;
            // The disk may be slow: other threads run meanwhile.
            if let Some(found) = py.detach(|| self.find(&wanted)) {
                return self.answer(py, found, &wanted, &environ, &start_response, method == b"HEAD");
            }
        }
        self.application.bind(py).call1((environ, start_response))
    }
}

/// The headers of the request that [`Conditions`] are made of.
#[derive(Default)]
struct Asked {
    if_match: Option<Vec<u8>>,
    if_unmodified_since: Option<Vec<u8>>,
    if_none_match: Option<Vec<u8>>,
    if_modified_since: Option<Vec<u8>>,
    range: Option<Vec<u8>>,
    if_range: Option<Vec<u8>>,
}

impl Asked {
    fn of(environ: &Bound<'_, PyDict>, is_head: bool) -> PyResult<Self> {
        let mut asked = Self {
            if_match: text_of(environ, "HTTP_IF_MATCH")?,
            if_unmodified_since: text_of(environ, "HTTP_IF_UNMODIFIED_SINCE")?,
            if_none_match: text_of(environ, "HTTP_IF_NONE_MATCH")?,
            if_modified_since: text_of(environ, "HTTP_IF_MODIFIED_SINCE")?,
            ..Self::default()
        };
        // A part is for GET alone (RFC 9110 section 14.2).
        if !is_head {
            asked.range = text_of(environ, "HTTP_RANGE")?;
            asked.if_range = text_of(environ, "HTTP_IF_RANGE")?;
        }
        Ok(asked)
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            if_match: self.if_match.as_deref(),
            if_unmodified_since: self.if_unmodified_since.as_deref(),
            if_none_match: self.if_none_match.as_deref(),
            if_modified_since: self.if_modified_since.as_deref(),
            range: self.range.as_deref(),
            if_range: self.if_range.as_deref(),
        }
    }
}

/// The bytes of a variable, which PEP 3333 has as latin-1 characters.
fn text_of(environ: &Bound<'_, PyDict>, name: &str) -> PyResult<Option<Vec<u8>>> {
    let Some(value) = environ.get_item(name)? else { return Ok(None) };
    let text = value.cast::<PyString>()?.to_str()?;
    Ok(text.chars().map(|character| u8::try_from(character).ok()).collect())
}

fn without_body<'py>(
    start_response: &Bound<'py, PyAny>,
    status: &str,
    headers: Bound<'py, PyList>,
) -> PyResult<Bound<'py, PyAny>> {
    start_response.call1((status, headers))?;
    Ok(PyList::empty(start_response.py()).into_any())
}

/// `--static-safe`: directories that links may lead to, as real paths.
pub(super) fn safe_places(config: &Config) -> Vec<PathBuf> {
    config.static_safe.iter().map(|root| real(root)).collect()
}

/// The real path; the absolute one if nothing is there yet.
fn real(path: &Path) -> PathBuf {
    let real = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    real.unwrap_or_else(|_| path.to_owned())
}
