//! Reads configuration files: text in, keys and values in their order out. What a key means is not known here.

mod ini;
mod json;
#[cfg(test)]
mod tests;
mod xml;
mod yaml;
mod yaml_lines;

/// A way to write a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    Ini,
    Xml,
    Yaml,
    Json,
}

/// One key and its value as written, and the line where it stands, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) line: usize,
}

/// Text that is not what its notation asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    pub(crate) problem: String,
}

/// The section that is read when none is named after the file.
pub(crate) const OWN_SECTIONS: [&str; 2] = ["uwsgi", "rwsgi"];

impl Notation {
    /// The format, by the file name's extension.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let extension = name.rsplit('/').next()?.rsplit_once('.')?.1;
        match extension {
            "ini" => Some(Self::Ini),
            "xml" => Some(Self::Xml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" | "js" => Some(Self::Json),
            _ => None,
        }
    }

    /// The pairs of one section, in their order; repeated keys stay repeated.
    pub(crate) fn read(self, text: &str, section: Option<&str>) -> Result<Vec<Pair>, SyntaxError> {
        match self {
            Self::Ini => ini::read(text, section),
            Self::Xml => xml::read(text, section),
            // What is no YAML may be what uWSGI takes for it. If it is not that either, YAML's error is the better one.
            Self::Yaml => yaml::read(text, section).or_else(|error| yaml_lines::read(text, section).map_err(|_| error)),
            Self::Json => json::read(text, section),
        }
    }
}

/// Is a section of this name the one that was asked for?
fn wanted(name: &str, asked: Option<&str>) -> bool {
    asked.map_or_else(|| OWN_SECTIONS.contains(&name), |asked| asked == name)
}

/// The error for a file without the section, naming those that it has.
fn no_section(asked: Option<&str>, found: &[String]) -> SyntaxError {
    let asked = asked.unwrap_or("uwsgi");
    let found = if found.is_empty() { "none".into() } else { found.join(", ") };
    SyntaxError { line: 1, problem: format!("there is no section '{asked}' (there is: {found})") }
}
