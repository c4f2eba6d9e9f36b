//! Files that are served without the application: what is sent of them, beyond the directories that they are in.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::row::FILES;
use super::row::{Kind, Row};
use super::value::{leading_number, understood};
use Kind::{Always, Custom, Flag, Paths, Texts};

/// `--static-*` and `--mimefile`: how a file is answered with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticConfig {
    /// `--check-static-docroot`: also look in the directory that a proxy names in `DOCUMENT_ROOT`.
    pub docroot: bool,
    /// `--static-index`: names of files that stand for their directory, in the order in which they are tried.
    pub index: Vec<String>,
    /// `--static-skip-ext`: ends of names that are never files.
    pub skip_ext: Vec<String>,
    /// `--static-gzip*`: of which files a compressed version is sent.
    pub gzip: GzipRules,
    /// `--static-expires*`, in the order in which they are tried.
    pub expires: Vec<Expires>,
    /// `--mimefile`: files with the types of names, which count before the system's.
    pub mime_files: Vec<PathBuf>,
    /// `--file-serve-mode`: who sends the file.
    pub serve_mode: ServeMode,
}

/// Of which files a compressed version beside them, `.br` or `.gz`, is sent to clients that take it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GzipRules {
    /// `--static-gzip-all`: of all.
    pub all: bool,
    /// `--static-gzip-dir`: of those whose real path begins so.
    pub beginnings: Vec<String>,
    /// `--static-gzip-ext`: of those whose real path ends so.
    pub ends: Vec<String>,
    /// `--static-gzip`: of those whose real path matches this pattern.
    pub patterns: Vec<String>,
}

/// A rule for the header `Expires`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expires {
    /// What is compared.
    pub of: ExpiresOf,
    /// The type itself for [`ExpiresOf::Type`], else a pattern that `regex::bytes` takes.
    pub what: String,
    /// How long the file is good for, seconds.
    pub seconds: u32,
    /// Since when.
    pub since: ExpiresSince,
}

/// What a rule for `Expires` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpiresOf {
    /// The file's real path.
    File,
    /// `PATH_INFO`.
    PathInfo,
    /// `REQUEST_URI`.
    Uri,
    /// The file's type.
    Type,
}

/// From when the seconds of a rule for `Expires` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpiresSince {
    /// The request.
    Now,
    /// The file's last change.
    Modified,
}

/// Who sends the bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServeMode {
    /// This server.
    #[default]
    Own,
    /// nginx, which the header `X-Accel-Redirect` names the file to.
    Accel,
    /// Apache or lighttpd, which the header `X-Sendfile` names the file to.
    Sendfile,
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["check-static-docroot"], kind: Flag(|c| &mut c.static_files.docroot),
          help: "Serve a path from a file in the directory that the proxy names in DOCUMENT_ROOT", ..FILES },
    Row { names: &["static-index"], kind: Texts(|c| &mut c.static_files.index), takes: "NAME",
          help: "Serve this file of a directory when the directory is asked for", ..FILES },
    Row { names: &["static-skip-ext"], kind: Texts(|c| &mut c.static_files.skip_ext), takes: "END",
          help: "Give names that end so to the application, whether there is a file or not", ..FILES },
    Row { names: &["static-gzip-all"], kind: Flag(|c| &mut c.static_files.gzip.all),
          help: "Send FILE.br or FILE.gz instead of FILE to clients that take it", ..FILES },
    Row { names: &["static-gzip-dir", "static-gzip-prefix"], kind: Texts(|c| &mut c.static_files.gzip.beginnings), takes: "DIR",
          help: "The same for files whose real path begins so", ..FILES },
    Row { names: &["static-gzip-ext", "static-gzip-suffix"], kind: Texts(|c| &mut c.static_files.gzip.ends), takes: "END",
          help: "The same for files whose name ends so", ..FILES },
    Row { names: &["static-gzip"], kind: Custom(gzip), takes: "REGEX", repeats: true,
          help: "The same for files whose real path matches", ..FILES },
    Row { names: &["static-expires"], kind: Custom(|c, v| by_pattern(c, v, ExpiresOf::File, ExpiresSince::Now)),
          takes: "REGEX SECONDS", repeats: true,
          help: "Let caches keep files whose real path matches for so long (Expires)", ..FILES },
    Row { names: &["static-expires-mtime"], kind: Custom(|c, v| by_pattern(c, v, ExpiresOf::File, ExpiresSince::Modified)),
          takes: "REGEX SECONDS", repeats: true,
          help: "The same, from the file's last change on", ..FILES },
    Row { names: &["static-expires-path-info"], kind: Custom(|c, v| by_pattern(c, v, ExpiresOf::PathInfo, ExpiresSince::Now)),
          takes: "REGEX SECONDS", repeats: true,
          help: "Let caches keep files whose PATH_INFO matches for so long", ..FILES },
    Row { names: &["static-expires-path-info-mtime"],
          kind: Custom(|c, v| by_pattern(c, v, ExpiresOf::PathInfo, ExpiresSince::Modified)),
          takes: "REGEX SECONDS", repeats: true,
          help: "The same, from the file's last change on", ..FILES },
    Row { names: &["static-expires-uri"], kind: Custom(|c, v| by_pattern(c, v, ExpiresOf::Uri, ExpiresSince::Now)),
          takes: "REGEX SECONDS", repeats: true,
          help: "Let caches keep files whose REQUEST_URI matches for so long", ..FILES },
    Row { names: &["static-expires-uri-mtime"], kind: Custom(|c, v| by_pattern(c, v, ExpiresOf::Uri, ExpiresSince::Modified)),
          takes: "REGEX SECONDS", repeats: true,
          help: "The same, from the file's last change on", ..FILES },
    Row { names: &["static-expires-type"], kind: Custom(|c, v| by_type(c, v, ExpiresSince::Now)),
          takes: "TYPE=SECONDS", repeats: true,
          help: "Let caches keep files of this Content-Type for so long", ..FILES },
    Row { names: &["static-expires-type-mtime"], kind: Custom(|c, v| by_type(c, v, ExpiresSince::Modified)),
          takes: "TYPE=SECONDS", repeats: true,
          help: "The same, from the file's last change on", ..FILES },
    Row { names: &["mimefile", "mime-file"], kind: Paths(|c| &mut c.static_files.mime_files), takes: "FILE",
          help: "Take the types of files from this file, in the format of /etc/mime.types", ..FILES },
    Row { names: &["file-serve-mode", "fileserve-mode"], kind: Custom(serve_mode), takes: "MODE",
          help: "Let the proxy send files: nginx (X-Accel-Redirect) or x-sendfile get their real paths in a header", ..FILES },
    Row { names: &["static-cache-paths"], kind: Always, takes: "SECONDS",
          help: "Nothing to do: a file is found with one system call", ..FILES },
    Row { names: &["static-cache-paths-name"], kind: Always, takes: "CACHE",
          help: "Nothing to do, as with static-cache-paths", ..FILES },
];

fn gzip(config: &mut Config, value: &str) -> Result<(), String> {
    if is_pattern(config, value) {
        config.static_files.gzip.patterns.push(value.into());
    }
    Ok(())
}

fn by_pattern(config: &mut Config, value: &str, of: ExpiresOf, since: ExpiresSince) -> Result<(), String> {
    let (pattern, seconds) = value.split_once(' ').ok_or("a pattern, a space and seconds, as in '\\.css$ 3600'")?;
    let seconds = leading_number(config, seconds.trim_start(), &(0..=u32::MAX))?;
    if is_pattern(config, pattern) {
        config.static_files.expires.push(Expires { of, what: pattern.into(), seconds, since });
    }
    Ok(())
}

fn by_type(config: &mut Config, value: &str, since: ExpiresSince) -> Result<(), String> {
    let (kind, seconds) = value.split_once('=').ok_or("a type and seconds, as in text/css=3600")?;
    let seconds = leading_number(config, seconds, &(0..=u32::MAX))?;
    config.static_files.expires.push(Expires { of: ExpiresOf::Type, what: kind.into(), seconds, since });
    Ok(())
}

/// Warns of what cannot be a pattern here. The rule is left out then: no file is kept from anybody by that.
fn is_pattern(config: &mut Config, pattern: &str) -> bool {
    let built = regex::bytes::RegexBuilder::new(pattern).unicode(false).build();
    if built.is_err() {
        config.lose(format!("the pattern '{pattern}' is left out: write one without look-around and references back"));
    }
    built.is_ok()
}

/// As in uWSGI, what is none of these changes nothing.
fn serve_mode(config: &mut Config, value: &str) -> Result<(), String> {
    config.static_files.serve_mode = match value.to_ascii_lowercase().as_str() {
        "x-sendfile" | "xsendfile" => ServeMode::Sendfile,
        "x-accel-redirect" | "xaccelredirect" | "nginx" => ServeMode::Accel,
        _ => {
            understood(config, value, "none: the server sends files itself; nginx and x-sendfile are others");
            return Ok(());
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_for_expires_is_a_pattern_and_seconds() {
        let mut config = Config::default();
        by_pattern(&mut config, "\\.(css|js)$ 3600", ExpiresOf::File, ExpiresSince::Now).unwrap();
        by_pattern(&mut config, "/static/*  60s", ExpiresOf::Uri, ExpiresSince::Modified).unwrap();
        by_type(&mut config, "text/css=10", ExpiresSince::Now).unwrap();
        let rules: Vec<_> = config.static_files.expires.iter().map(|rule| (rule.what.as_str(), rule.seconds)).collect();
        assert_eq!(rules, [("\\.(css|js)$", 3600), ("/static/*", 60), ("text/css", 10)]);
        assert_eq!(config.warnings.len(), 1, "of the unit: {:?}", config.warnings);
        assert!(by_pattern(&mut config, "\\.css$", ExpiresOf::File, ExpiresSince::Now).is_err());
        assert!(by_type(&mut config, "text/css", ExpiresSince::Now).is_err());
    }

    #[test]
    fn a_pattern_that_cannot_be_read_is_a_warning_and_no_rule() {
        let mut config = Config::default();
        by_pattern(&mut config, "(?!admin).* 60", ExpiresOf::Uri, ExpiresSince::Now).unwrap();
        gzip(&mut config, "(").unwrap();
        assert_eq!(config.static_files, StaticConfig::default());
        assert_eq!(config.warnings.len(), 2);
    }

    #[test]
    fn a_serve_mode_has_several_names() {
        for (value, mode) in
            [("nginx", ServeMode::Accel), ("X-Sendfile", ServeMode::Sendfile), ("other", ServeMode::Own)]
        {
            let mut config = Config::default();
            serve_mode(&mut config, value).unwrap();
            assert_eq!(config.static_files.serve_mode, mode, "{value}");
        }
    }
}
