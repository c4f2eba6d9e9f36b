//! Answers a request with a file if there is one (`--static-map`, `--check-static`), and passes all others to the
//! application.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use super::beneath::{open_beneath, open_file};
use super::file_wrapper::FileWrapper;
use rwsgi_config::Config;
use rwsgi_protocol::conditional::{Conditions, Selected, Stored};
use rwsgi_protocol::date::HttpDate;

/// A directory for the paths that begin with a prefix.
struct Place {
    /// Without a slash at its end; empty for all paths.
    prefix: Vec<u8>,
    /// A directory, or a file for the prefix alone.
    root: PathBuf,
}

/// A WSGI application in front of the application.
#[pyclass(frozen, module = "rwsgi", name = "static_files")]
pub(super) struct StaticFiles {
    application: Py<PyAny>,
    /// In the order in which they are searched.
    places: Vec<Place>,
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
        let mut places: Vec<_> = config
            .static_map
            .iter()
            .map(|map| Place { prefix: map.prefix.trim_end_matches('/').into(), root: real(&map.root) })
            .collect();
        places.sort_by_key(|place| std::cmp::Reverse(place.prefix.len()));
        places.extend(config.check_static.iter().map(|root| Place { prefix: Vec::new(), root: real(root) }));
        let mimetypes = py.import("mimetypes")?;
        // Reads files: here rather than at the first request.
        mimetypes.call_method0("init")?;
        Ok(Self {
            application,
            places,
            safe: config.static_safe.iter().map(|root| real(root)).collect(),
            guess_type: mimetypes.getattr("guess_type")?.unbind(),
            file_io: py.import("io")?.getattr("FileIO")?.unbind(),
        })
    }

    /// Whether the path may name a file, without a look at the disk. No file name has a NUL.
    fn may_have(&self, path: &[u8]) -> bool {
        !path.contains(&0) && self.places.iter().any(|place| path.starts_with(&place.prefix))
    }

    /// Finds the file. The path is its own name if the request's path is not (a `static-map` to one file).
    fn find(&self, path: &[u8]) -> Option<(File, Stored, Option<&Path>)> {
        let (file, own_name) = self.places.iter().find_map(|place| {
            let below = path.strip_prefix(&place.prefix[..])?;
            if below.is_empty() {
                return Some((open_file(&place.root)?, Some(&*place.root)));
            }
            let name = below.strip_prefix(b"/")?;
            let slashes = name.iter().take_while(|&&byte| byte == b'/').count();
            Some((open_beneath(&place.root, &name[slashes..], &self.safe)?, None))
        })?;
        let about = file.metadata().ok()?;
        let nanos = u32::try_from(about.mtime_nsec()).unwrap_or(0);
        Some((file, Stored { size: about.size(), modified: about.mtime(), nanos }, own_name))
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
        let found = py.detach(|| {
            // As with uWSGI, a link leads elsewhere only if that is a safe place.
            let real = std::fs::canonicalize(path).ok()?;
            let is_itself = real.starts_with(std::path::absolute(path).ok()?);
            if !is_itself && !self.safe.iter().any(|safe| real.starts_with(safe)) {
                return None;
            }
            let file = open_file(&real)?;
            let about = file.metadata().ok()?;
            let nanos = u32::try_from(about.mtime_nsec()).unwrap_or(0);
            Some((file, Stored { size: about.size(), modified: about.mtime(), nanos }, Some(path)))
        });
        let is_head = text_of(environ, "REQUEST_METHOD")?.as_deref() == Some(b"HEAD");
        found.map(|found| self.answer(py, found, environ, start_response, is_head)).transpose()
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
        (file, stored, own_name): (File, Stored, Option<&Path>),
        environ: &Bound<'py, PyDict>,
        start_response: &Bound<'py, PyAny>,
        is_head: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let tag = stored.entity_tag();
        let headers = PyList::empty(py);
        let selected = stored.select(&tag, &Asked::of(environ, is_head)?.conditions(), now);
        if selected != Selected::PreconditionFailed {
            headers.append(("Last-Modified", HttpDate::from_unix(stored.last_modified(now)).to_string()))?;
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
        let name = match own_name {
            Some(own) => own.display().to_string(),
            None => environ.as_any().get_item("PATH_INFO")?.extract()?,
        };
        headers.append(("Content-Type", self.kind_of(py, &name)?))?;
        headers.append(("Content-Length", len.to_string()))?;
        if is_head {
            return without_body(start_response, status, headers);
        }
        start_response.call1((status, headers))?;
        let mut file = file;
        file.seek(SeekFrom::Start(first))?;
        let filelike = self.file_io.bind(py).call1((file.into_raw_fd(),))?;
        Ok(Bound::new(py, FileWrapper::over(filelike.unbind()))?.into_any())
    }

    fn kind_of(&self, py: Python<'_>, path: &str) -> PyResult<String> {
        // `guess_type` reads a URL: it would take text after two slashes for a host, and before a colon for a scheme.
        let name = path.rsplit('/').next().unwrap_or(path);
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
            && self.may_have(&path)
            // The disk may be slow: other threads run meanwhile.
            && let Some(found) = py.detach(|| self.find(&path))
        {
            return self.answer(py, found, &environ, &start_response, method == b"HEAD");
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

/// The real path; the absolute one if nothing is there yet.
fn real(path: &Path) -> PathBuf {
    let real = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    real.unwrap_or_else(|_| path.to_owned())
}
