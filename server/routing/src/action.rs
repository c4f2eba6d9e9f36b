//! The actions of rules, by name: one table, from which each is read and which the documentation lists.

use super::template::{Template, number};

/// An entry of a table that people read.
#[derive(Debug)]
pub struct Listed {
    /// Its names; the first is the one to use.
    pub names: &'static [&'static str],
    /// What its argument is; empty for none.
    pub takes: &'static str,
    /// What it does.
    pub help: &'static str,
    parse: fn(&str) -> Result<Action, String>,
}

/// What a rule does.
#[derive(Debug)]
pub(crate) enum Action {
    Nothing,
    Continue,
    Break(Option<Vec<u8>>),
    Return(u16),
    Goto(Template),
    Log(Template),
    LogVariable(Vec<u8>, Template),
    DoNotLog,
    SetVariable(Vec<u8>, Template),
    SetUser(Template),
    FixPathInfo,
    AddHeader(Template),
    RemoveHeader(Template),
    NewHead(Template),
    WithoutHead,
    Signal(u8),
    Harakiri(u32),
    Send(Template, &'static [u8]),
    Gzip,
    Chunked,
    Redirect(&'static str, Template),
    Rewrite { to: Template, is_last: bool },
    BasicAuth(BasicAuth),
    Static { path: Template, else_next: bool },
    File(ServedFile),
    Expires { file: Option<Template>, unix: Option<Template>, later: Option<Template> },
}

/// `basicauth`: who is let in.
#[derive(Debug)]
pub(crate) struct BasicAuth {
    pub(crate) realm: String,
    pub(crate) who: Who,
    /// Someone with a wrong password meets the next rule, which may know better.
    pub(crate) else_next: bool,
}

/// Whom `basicauth` knows.
#[derive(Debug)]
pub(crate) enum Who {
    Nobody,
    /// A name and a password, with the colon; how long the name is.
    One(Vec<u8>, usize),
    /// Those of a file of `htpasswd`.
    File(Vec<u8>),
}

/// `file`: what is sent.
#[derive(Debug)]
pub(crate) struct ServedFile {
    pub(crate) path: Template,
    pub(crate) status: Template,
    pub(crate) content_type: String,
    /// By the end of the name, if that says.
    pub(crate) by_name: bool,
    pub(crate) else_next: bool,
}

impl Action {
    /// Whether it reads the disk, or takes its time for another reason.
    pub(crate) fn may_take_time(&self) -> bool {
        match self {
            Self::Static { .. } | Self::File(_) => true,
            Self::Expires { file, .. } => file.is_some(),
            Self::BasicAuth(auth) => matches!(auth.who, Who::File(_)),
            _ => false,
        }
    }

    /// Whether it uses what the rule's pattern found.
    pub(crate) fn has_groups(&self) -> bool {
        match self {
            Self::Goto(text)
            | Self::Log(text)
            | Self::LogVariable(_, text)
            | Self::SetVariable(_, text)
            | Self::SetUser(text)
            | Self::AddHeader(text)
            | Self::RemoveHeader(text)
            | Self::NewHead(text)
            | Self::Send(text, _)
            | Self::Redirect(_, text)
            | Self::Rewrite { to: text, .. }
            | Self::Static { path: text, .. } => text.has_groups(),
            Self::File(file) => file.path.has_groups() || file.status.has_groups(),
            Self::Expires { file, unix, later } => [file, unix, later].into_iter().flatten().any(Template::has_groups),
            _ => false,
        }
    }

    /// Reads `name:argument`.
    ///
    /// # Errors
    /// What was expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, argument) = text.split_once(':').ok_or("ACTION:ARGUMENT (the colon is needed without one, too)")?;
        match ACTIONS.iter().find(|action| action.names.contains(&name)) {
            Some(action) => (action.parse)(argument),
            None => {
                let known: Vec<_> = ACTIONS.iter().map(|action| action.names[0]).collect();
                let what =
                    if NOT_HERE.contains(&name) { "is an action of uWSGI's that is not here" } else { "is none" };
                Err(format!("an action ({}), and '{name}' {what}", known.join(", ")))
            }
        }
    }
}

/// Actions of uWSGI's, in its core and in its plugins, that are not here.
const NOT_HERE: [&str; 68] = [
    "*",
    "+",
    "-",
    "/",
    "access",
    "alarm",
    "cache",
    "cache-continue",
    "cache-store",
    "cachedec",
    "cachediv",
    "cacheinc",
    "cachemul",
    "cacheset",
    "cachestore",
    "cachevar",
    "call",
    "cgi",
    "cgihelper",
    "chdir",
    "fcgi",
    "fcgiauth",
    "gridfs",
    "hash",
    "http",
    "httpconnect",
    "httpdumb",
    "ldapauth",
    "ldapauth-next",
    "memcached",
    "memcached-continue",
    "memcached-store",
    "memcachedstore",
    "metricdec",
    "metricdiv",
    "metricinc",
    "metricmul",
    "metricset",
    "offload",
    "proxyhttp",
    "proxyhttpconnect",
    "proxyuwsgi",
    "radius",
    "radius-next",
    "redis",
    "redis-continue",
    "redis-store",
    "redisstore",
    "rpc",
    "rpcblob",
    "rpcnext",
    "rpcraw",
    "rpcret",
    "rpcvar",
    "setfile",
    "setmodifier1",
    "setmodifier2",
    "setprocname",
    "spnego",
    "spnego-next",
    "ssi",
    "symcall",
    "symcall-next",
    "template",
    "to-file",
    "tofile",
    "toupper",
    "uwsgi",
];

/// Those of them that change no response: they only cache, count or report.
const CAN_BE_LEFT_OUT: [&str; 21] = [
    "alarm",
    "cache",
    "cache-continue",
    "cache-store",
    "cachedec",
    "cacheinc",
    "cacheset",
    "cachestore",
    "memcached",
    "memcached-continue",
    "memcached-store",
    "memcachedstore",
    "metricdec",
    "metricdiv",
    "metricinc",
    "metricmul",
    "metricset",
    "offload",
    "setprocname",
    "to-file",
    "tofile",
];

/// Whether there is an action of that name.
pub(crate) fn is_known(name: &str) -> bool {
    ACTIONS.iter().any(|action| action.names.contains(&name))
}

/// Whether this action of uWSGI's changes no response.
pub(crate) fn can_be_left_out(name: &str) -> bool {
    CAN_BE_LEFT_OUT.contains(&name)
}

/// Every action.
#[rustfmt::skip]
pub static ACTIONS: &[Listed] = &[
    Listed { names: &["donotlog"], takes: "", help: "The request has no line in the access log",
             parse: |_| Ok(Action::DoNotLog) },
    Listed { names: &["log"], takes: "TEXT", help: "Writes a line to the log",
             parse: |text| Ok(Action::Log(Template::new(text)?)) },
    Listed { names: &["logvar"], takes: "NAME=VALUE", help: "Adds a variable to the request's line in the access log",
             parse: |text| pair(text, Action::LogVariable) },
    Listed { names: &["addvar"], takes: "NAME=VALUE", help: "Sets a variable: of the environ, and for later rules",
             parse: |text| pair(text, Action::SetVariable) },
    Listed { names: &["addheader"], takes: "NAME: VALUE", help: "Adds a header to the response",
             parse: |text| Ok(Action::AddHeader(Template::new(text)?)) },
    Listed { names: &["remheader", "delheader"], takes: "NAME",
             help: "Leaves out a header of the application's. In a `response-route` it comes too late for that, as in uWSGI",
             parse: |text| Ok(Action::RemoveHeader(Template::new(text)?)) },
    Listed { names: &["clearheaders", "resetheaders"], takes: "STATUS",
             help: "In a `response-route`: leaves out all headers, and answers with this status",
             parse: |text| Ok(Action::NewHead(Template::new(text)?)) },
    Listed { names: &["disableheaders"], takes: "", help: "Sends the body without a head",
             parse: |_| Ok(Action::WithoutHead) },
    Listed { names: &["signal"], takes: "N", help: "Raises a signal of `uwsgi.register_signal`",
             parse: |text| Ok(Action::Signal(u8::try_from(number(text.as_bytes())).map_err(|_| "a signal's number from 0 to 255")?)) },
    Listed { names: &["send"], takes: "TEXT", help: "Sends this before the body",
             parse: |text| Ok(Action::Send(Template::new(text)?, b"")) },
    Listed { names: &["send-crnl"], takes: "TEXT", help: "The same with a line end",
             parse: |text| Ok(Action::Send(Template::new(text)?, b"\r\n")) },
    Listed { names: &["chunked"], takes: "", help: "Sends the body in chunks to clients of HTTP/1.1",
             parse: |_| Ok(Action::Chunked) },
    Listed { names: &["gzip"], takes: "",
             help: "Compresses the body, whatever the client accepts: ask for that with `contains:${HTTP_ACCEPT_ENCODING};gzip`",
             parse: |_| Ok(Action::Gzip) },
    Listed { names: &["flush", "fixcl", "forcecl", "donotoffload"], takes: "",
             help: "Nothing: the body is sent as it comes, and its length is right", parse: |_| Ok(Action::Nothing) },
    Listed { names: &["harakiri"], takes: "SECONDS", help: "Ends the worker when the request takes longer",
             parse: |text| Ok(Action::Harakiri(u32::try_from(number(text.as_bytes())).unwrap_or(0))) },
    Listed { names: &["redirect", "redirect-302"], takes: "URL", help: "Answers 302 with this Location",
             parse: |text| Ok(Action::Redirect("302 Found", Template::new(text)?)) },
    Listed { names: &["redirect-permanent", "redirect-301"], takes: "URL", help: "Answers 301 with this Location",
             parse: |text| Ok(Action::Redirect("301 Moved Permanently", Template::new(text)?)) },
    Listed { names: &["return", "break-with-status"], takes: "CODE", help: "Answers with this status and its reason as the body",
             parse: |text| Ok(Action::Return(u16::try_from(number(text.as_bytes())).unwrap_or(0))) },
    Listed { names: &["break"], takes: "STATUS", help: "Answers with this status and no body; without one closes the connection",
             parse: |text| Ok(Action::Break((text.len() >= 3).then(|| super::status::complete(text.as_bytes())))) },
    Listed { names: &["last", "continue"], takes: "", help: "Passes over the rules that follow",
             parse: |_| Ok(Action::Continue) },
    Listed { names: &["goto"], takes: "LABEL", help: "Goes on at a label further down",
             parse: |text| Ok(Action::Goto(Template::new(text)?)) },
    Listed { names: &["basicauth"], takes: "REALM,NAME:PASSWORD or REALM,FILE",
             help: "Lets in who has this name and password, or one of a file of `htpasswd` (`{SHA}`, `$apr1$`, what the system's `crypt()` knows)",
             parse: |text| basic_auth(text, false) },
    Listed { names: &["basicauth-next"], takes: "REALM,NAME:PASSWORD or REALM,FILE",
             help: "The same, but someone else goes on to the next rule",
             parse: |text| basic_auth(text, true) },
    Listed { names: &["static"], takes: "PATH", help: "Answers with a file: its type, conditions, ranges",
             parse: |text| Ok(Action::Static { path: Template::new(text)?, else_next: false }) },
    Listed { names: &["static-next"], takes: "PATH", help: "The same, if there is one",
             parse: |text| Ok(Action::Static { path: Template::new(text)?, else_next: true }) },
    Listed { names: &["file", "sendfile", "fastfile"], takes: "filename=PATH[,status=STATUS][,content_type=TYPE][,mime=1]",
             help: "Answers with a file", parse: |text| file(text, false) },
    Listed { names: &["file-next", "sendfile-next", "fastfile-next"], takes: "the same",
             help: "The same, if there is one", parse: |text| file(text, true) },
    Listed { names: &["rewrite"], takes: "PATH[?QUERY]", help: "Changes PATH_INFO and QUERY_STRING",
             parse: |text| Ok(Action::Rewrite { to: Template::new(text)?, is_last: false }) },
    Listed { names: &["rewrite-last"], takes: "PATH[?QUERY]", help: "The same, and passes over the rules that follow",
             parse: |text| Ok(Action::Rewrite { to: Template::new(text)?, is_last: true }) },
    Listed { names: &["expires"], takes: "[filename=PATH,][unix=SECONDS,]value=SECONDS",
             help: "Adds Expires: so long after a file's date or a time", parse: expires },
    Listed { names: &["setscriptname"], takes: "VALUE", help: "Sets SCRIPT_NAME", parse: |text| set("SCRIPT_NAME", text) },
    Listed { names: &["setpathinfo"], takes: "VALUE", help: "Sets PATH_INFO", parse: |text| set("PATH_INFO", text) },
    Listed { names: &["fixpathinfo"], takes: "", help: "Takes SCRIPT_NAME off the beginning of PATH_INFO",
             parse: |_| Ok(Action::FixPathInfo) },
    Listed { names: &["setuser"], takes: "VALUE", help: "Sets REMOTE_USER, up to a colon",
             parse: |text| Ok(Action::SetUser(Template::new(text)?)) },
    Listed { names: &["seturi"], takes: "VALUE", help: "Sets REQUEST_URI", parse: |text| set("REQUEST_URI", text) },
    Listed { names: &["setmethod"], takes: "VALUE", help: "Sets REQUEST_METHOD", parse: |text| set("REQUEST_METHOD", text) },
    Listed { names: &["setremoteaddr"], takes: "VALUE", help: "Sets REMOTE_ADDR", parse: |text| set("REMOTE_ADDR", text) },
    Listed { names: &["setscheme"], takes: "VALUE", help: "Sets wsgi.url_scheme", parse: |text| set("UWSGI_SCHEME", text) },
    Listed { names: &["setdocroot"], takes: "VALUE", help: "Sets DOCUMENT_ROOT", parse: |text| set("DOCUMENT_ROOT", text) },
    Listed { names: &["sethome"], takes: "VALUE", help: "Sets UWSGI_HOME", parse: |text| set("UWSGI_HOME", text) },
    Listed { names: &["setapp"], takes: "VALUE", help: "Sets UWSGI_APPID", parse: |text| set("UWSGI_APPID", text) },
];

fn set(variable: &str, text: &str) -> Result<Action, String> {
    Ok(Action::SetVariable(variable.into(), Template::new(text)?))
}

fn pair(text: &str, make: fn(Vec<u8>, Template) -> Action) -> Result<Action, String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE")?;
    Ok(make(name.into(), Template::new(value)?))
}

fn basic_auth(text: &str, else_next: bool) -> Result<Action, String> {
    let (realm, who) = text.split_once(',').ok_or("REALM,NAME:PASSWORD or REALM,FILE for basicauth")?;
    let who = match who.find(':') {
        _ if who.is_empty() => Who::Nobody,
        Some(colon) => Who::One(who.into(), colon),
        None => Who::File(who.into()),
    };
    Ok(Action::BasicAuth(BasicAuth { realm: realm.into(), who, else_next }))
}

/// `key=value,key=value`; a comma after a backslash is part of the value.
fn settings(text: &str) -> Vec<(String, String)> {
    let mut pairs = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, pairs.last_mut()) {
            (',', _) => pairs.push(String::new()),
            ('\\', Some(last)) => last.extend(characters.next()),
            (other, Some(last)) => last.push(other),
            (_, None) => {}
        }
    }
    let pairs = pairs.iter().filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

fn file(text: &str, else_next: bool) -> Result<Action, String> {
    let (mut path, mut status, mut content_type, mut by_name) =
        (None, "200 OK".to_owned(), "text/html".to_owned(), false);
    for (key, value) in settings(text) {
        match key.as_str() {
            "filename" => path = Some(Template::new(&value)?),
            "status" => status = value,
            "content_type" => content_type = value,
            "mime" => by_name = true,
            // The length is the server's to say.
            "nocl" | "no_cl" | "no_content_length" => {}
            key => {
                return Err(format!("filename, status, content_type or mime for a file, and '{key}' is none of them"));
            }
        }
    }
    let path = path.ok_or("filename=PATH for a file")?;
    Ok(Action::File(ServedFile { path, status: Template::new(&status)?, content_type, by_name, else_next }))
}

fn expires(text: &str) -> Result<Action, String> {
    let (mut file, mut unix, mut later) = (None, None, None);
    for (key, value) in settings(text) {
        let place = match key.as_str() {
            "filename" | "file" => &mut file,
            "unix" => &mut unix,
            "value" => &mut later,
            key => return Err(format!("filename, unix or value for expires, and '{key}' is none of them")),
        };
        *place = Some(Template::new(&value)?);
    }
    Ok(Action::Expires { file, unix, later })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once() {
        let mut names: Vec<_> = ACTIONS.iter().flat_map(|action| action.names).chain(&NOT_HERE).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(NOT_HERE.is_sorted());
        assert!(CAN_BE_LEFT_OUT.iter().all(|name| NOT_HERE.contains(name)));
    }

    #[test]
    fn others_are_refused_by_name_with_those_that_there_are() {
        let error = Action::parse("cache:key=x").unwrap_err();
        assert!(error.starts_with("an action (donotlog, log, "), "{error}");
        assert!(error.ends_with("and 'cache' is an action of uWSGI's that is not here"), "{error}");
        assert!(Action::parse("nonsense:").unwrap_err().ends_with("and 'nonsense' is none"));
        assert!(Action::parse("donotlog").unwrap_err().starts_with("ACTION:ARGUMENT"));
        for text in ["addvar:x", "basicauth:x", "file:status=200", "file:x=y", "expires:y=1", "signal:256"] {
            assert!(Action::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_may_have_a_comma_behind_a_backslash() {
        let pairs = settings(r"filename=a\,b,status=404 Not Found,");
        assert_eq!(pairs, [("filename".into(), "a,b".into()), ("status".into(), "404 Not Found".into())]);
    }
}
