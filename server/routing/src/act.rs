//! What each action does to a request on its way.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;

use super::action::{Action, BasicAuth, ServedFile, Who};
use super::htpasswd::{self, Verdict};
use super::pattern::Groups;
use super::status;
use super::template::{Template, number, parents};
use super::visit::{Answer, Effect, Visit};

/// What an action says of the rules that follow.
pub(crate) enum Step {
    /// They are looked at.
    Next,
    /// They are passed over.
    Continue,
    /// They are passed over, and this is the response.
    Answer(Answer),
    /// The next one is behind this label.
    Goto(Vec<u8>),
}

/// Does what a rule says.
pub(crate) fn act(action: &Action, visit: &mut Visit, groups: &Groups) -> Step {
    let render = |text: &Template, visit: &Visit| text.render(visit, groups);
    match action {
        Action::Nothing => {}
        Action::Continue => return Step::Continue,
        Action::Break(None) => return Step::Answer(unsaid(visit)),
        Action::Break(Some(status)) => {
            let headers = vec![("Connection", b"close".to_vec()), ("Content-Type", b"text/plain".to_vec())];
            return Step::Answer(Answer::Text { status: status.clone(), headers, body: Vec::new() });
        }
        Action::Return(code) => {
            let Some(reason) = status::reason(*code) else { return Step::Answer(unsaid(visit)) };
            let headers = vec![("Content-Type", b"text/plain".to_vec())];
            let status = format!("{code} {reason}").into_bytes();
            return Step::Answer(Answer::Text { status, headers, body: reason.into() });
        }
        Action::Goto(label) => return Step::Goto(render(label, visit)),
        Action::Log(text) => visit.effects.push(Effect::Log(render(text, visit))),
        Action::LogVariable(name, text) => {
            visit.effects.push(Effect::LogVariable(name.clone(), render(text, visit)));
        }
        Action::DoNotLog => visit.effects.push(Effect::DoNotLog),
        Action::SetVariable(name, text) => {
            let value = render(text, visit);
            visit.variables.set(name, &value);
        }
        Action::SetUser(text) => {
            let value = render(text, visit);
            let name = value.split(|byte| *byte == b':').next().unwrap_or_default();
            visit.variables.set(b"REMOTE_USER", name);
        }
        Action::FixPathInfo => fix_path_info(visit),
        Action::AddHeader(text) => {
            let line = render(text, visit);
            visit.add_headers.push(line);
        }
        Action::RemoveHeader(text) => {
            let name = render(text, visit);
            visit.remove_headers.push(name);
        }
        Action::NewHead(text) => {
            let status = status::complete(&render(text, visit));
            // Later rules see the new one.
            visit.facts.status = status::code(&status);
            visit.new_head = Some(status);
        }
        Action::WithoutHead => visit.without_head = true,
        Action::Signal(number) => visit.effects.push(Effect::Signal(*number)),
        Action::Harakiri(0) => {}
        Action::Harakiri(seconds) => visit.effects.push(Effect::Harakiri(*seconds)),
        Action::Send(text, end) => {
            let text = render(text, visit);
            visit.before_body.extend_from_slice(&text);
            visit.before_body.extend_from_slice(end);
        }
        Action::Gzip => visit.gzip = true,
        Action::Chunked => visit.chunked = true,
        Action::Redirect(status, to) => {
            let body = &status[4..];
            let body = if status.starts_with("302") { "Moved" } else { body };
            let headers = vec![("Location", render(to, visit))];
            return Step::Answer(Answer::Text { status: (*status).into(), headers, body: body.into() });
        }
        Action::Rewrite { to, is_last } => {
            rewrite(&render(to, visit), visit);
            if *is_last {
                return Step::Continue;
            }
        }
        Action::BasicAuth(auth) => return authenticate(auth, visit),
        Action::Static { path, else_next } => {
            let file = render(path, visit);
            let may_be = may_be_served(path, &file);
            if *else_next && !(may_be && Path::new(std::ffi::OsStr::from_bytes(&file)).is_file()) {
                return Step::Next;
            }
            return Step::Answer(if may_be { Answer::Static(file) } else { Answer::Page(403) });
        }
        Action::File(file) => return serve(file, visit, groups),
        Action::Expires { file, unix, later } => {
            let mut at = 0;
            if let Some(file) = file {
                let path = render(file, visit);
                let about = std::fs::metadata(Path::new(std::ffi::OsStr::from_bytes(&path)));
                let Ok(modified) = about.and_then(|about| about.modified()) else {
                    let path = String::from_utf8_lossy(&path).into_owned();
                    let problem = format!("expires: the date of '{path}' cannot be read: the request ends");
                    visit.effects.push(Effect::Complain(problem));
                    return Step::Answer(Answer::Page(500));
                };
                at = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
            } else if let Some(unix) = unix {
                at = number(&render(unix, visit));
            }
            if let Some(later) = later {
                at = at.saturating_add(number(&render(later, visit)));
            }
            // httpdate knows years of four digits.
            let at = UNIX_EPOCH + Duration::from_secs(at.max(0).unsigned_abs().min(250_000_000_000));
            visit.add_headers.push(format!("Expires: {}", httpdate::fmt_http_date(at)).into_bytes());
        }
    }
    Step::Next
}

/// The answer when the rules end without one: what was sent before, if anything was.
fn unsaid(visit: &mut Visit) -> Answer {
    match (visit.new_head.take(), visit.before_body.is_empty()) {
        (None, true) => Answer::Nothing,
        (status, _) => {
            let status = status.unwrap_or_else(|| b"200 OK".to_vec());
            Answer::Text { status, headers: Vec::new(), body: Vec::new() }
        }
    }
}

fn fix_path_info(visit: &mut Visit) {
    let prefix = visit.variables.get(b"SCRIPT_NAME").map_or(0, <[u8]>::len);
    if prefix == 0 {
        return;
    }
    let path = visit.variables.get(b"PATH_INFO").and_then(|path| path.get(prefix..)).unwrap_or_default().to_vec();
    visit.variables.set(b"PATH_INFO", &path);
}

fn rewrite(to: &[u8], visit: &mut Visit) {
    let (path, query) = match to.iter().position(|byte| *byte == b'?') {
        Some(mark) => (&to[..mark], Some(&to[mark + 1..])),
        None => (to, None),
    };
    let before = visit.variables.get(b"QUERY_STRING").unwrap_or_default().to_vec();
    let query = match query {
        None => before,
        Some(query) if before.is_empty() => query.to_vec(),
        Some(query) => [query, b"&", &before].concat(),
    };
    visit.variables.set(b"PATH_INFO", &decoded(path));
    visit.variables.set(b"QUERY_STRING", &query);
}

/// With `%41` and the like as the bytes that they stand for.
fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        if let [b'%', high, low, ..] = text[at..]
            && let (Some(high), Some(low)) = (digit(high), digit(low))
        {
            out.push((high * 16 + low) as u8);
            at += 3;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out
}

fn authenticate(auth: &BasicAuth, visit: &mut Visit) -> Step {
    if visit.variables.get(b"REMOTE_USER").is_some_and(|user| !user.is_empty()) {
        return Step::Next;
    }
    let given = visit.variables.get(b"HTTP_AUTHORIZATION").and_then(credentials);
    if let Some(given) = given
        && !matches!(auth.who, Who::Nobody)
    {
        let name = match &auth.who {
            Who::One(pair, name) if htpasswd::are_same(pair, &given) => Some(*name),
            Who::File(file) => match given.iter().position(|byte| *byte == b':') {
                Some(colon) => match htpasswd::check(file, &given[..colon], &given[colon + 1..]) {
                    Verdict::Right => Some(colon),
                    Verdict::Wrong => None,
                    Verdict::NoFile(problem) => {
                        visit.effects.push(Effect::Complain(problem));
                        None
                    }
                },
                None => None,
            },
            _ => None,
        };
        match name {
            // An empty name would be nobody's for the next rule.
            Some(name) if name > 0 => {
                visit.variables.set(b"REMOTE_USER", &given[..name]);
                return Step::Next;
            }
            _ if auth.else_next => return Step::Next,
            _ => {}
        }
    }
    let headers = vec![("WWW-Authenticate", format!("Basic realm=\"{}\"", auth.realm).into_bytes())];
    let status = b"401 Authorization Required".to_vec();
    Step::Answer(Answer::Text { status, headers, body: b"Unauthorized".to_vec() })
}

/// A name and a password, with the colon, of an `Authorization` header.
fn credentials(header: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let rest = rest.trim_ascii();
    let config = base64::engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, config).decode(rest).ok()
}

/// What a client has a hand in must not lead out of a directory.
fn may_be_served(path: &Template, rendered: &[u8]) -> bool {
    !rendered.contains(&0) && parents(rendered) <= path.parents()
}

fn serve(file: &ServedFile, visit: &mut Visit, groups: &Groups) -> Step {
    let path = file.path.render(visit, groups);
    if !may_be_served(&file.path, &path) {
        return if file.else_next { Step::Next } else { Step::Answer(Answer::Page(403)) };
    }
    let place = Path::new(std::ffi::OsStr::from_bytes(&path));
    // A fifo would be waited for.
    let opened = std::fs::metadata(place).ok().filter(std::fs::Metadata::is_file).and_then(|_| File::open(place).ok());
    match opened {
        None if file.else_next => Step::Next,
        None => Step::Answer(Answer::Page(404)),
        Some(opened) => {
            let by_name = file.by_name.then(|| super::mime::of(&path)).flatten();
            Step::Answer(Answer::File {
                status: status::complete(&file.status.render(visit, groups)),
                content_type: by_name.unwrap_or(&file.content_type).into(),
                file: opened,
            })
        }
    }
}
