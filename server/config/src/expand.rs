//! Replaces what stands in parentheses in a value: `$(NAME)` by an environment variable, `@(file)` by a file's
//! contents, `%(name)` by the value of another key, with uWSGI's arithmetic.

use std::collections::BTreeSet;

use super::setting::Setting;
use super::surroundings::Surroundings;

/// No value that means anything is longer; references that double each other reach it.
const LONGEST: usize = 1 << 20;

/// No value that means anything refers to others more often; references that double each other reach it.
const MOST_REFERENCES: usize = 10_000;

/// What expanding leaves besides the values.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Every name that a reference names, known or not.
    pub(super) referenced: BTreeSet<String>,
    /// Names that stand for nothing, as they were written.
    pub(super) unresolved: Vec<String>,
}

/// Expands values among these settings.
pub(super) struct Expander<'a> {
    settings: &'a [Setting],
    around: &'a Surroundings,
    findings: &'a mut Findings,
    /// Followed so far.
    references: usize,
    /// The value is a command of the shell.
    is_for_shell: bool,
}

impl<'a> Expander<'a> {
    pub(super) fn new(settings: &'a [Setting], around: &'a Surroundings, findings: &'a mut Findings) -> Self {
        Self { settings, around, findings, references: 0, is_for_shell: false }
    }

    /// Whether the value is a command of the shell: it replaces its own `$NAME`, and `$(…)` is a command unless there is
    /// such a variable, as in uWSGI.
    pub(super) fn for_shell(self, is_for_shell: bool) -> Self {
        Self { is_for_shell, ..self }
    }

    /// The value with everything in it replaced.
    ///
    /// # Errors
    /// What cannot be replaced, and why.
    pub(super) fn expand(&mut self, value: &str) -> Result<String, String> {
        self.expand_within(value, &mut Vec::new())
    }

    /// `open` are the keys whose values are being expanded.
    fn expand_within(&mut self, value: &str, open: &mut Vec<String>) -> Result<String, String> {
        if !value.contains(['$', '@', '%']) {
            return Ok(value.to_owned());
        }
        let value = self.variables(value)?;
        let value = replace(&value, '@', |name| {
            let name = self.expand_within(name, open)?;
            let text =
                std::fs::read_to_string(&name).map_err(|error| format!("cannot read {name} for @({name}): {error}"))?;
            // uWSGI takes one line end off, and so must what writes such files expect.
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
        })?;
        replace(&value, '%', |expression| self.reference(expression, open))
    }

    /// `$(NAME)`, `$(NAME-default)`, `$(NAME:-default)`; and `$NAME` where there is such a variable.
    fn variables(&mut self, value: &str) -> Result<String, String> {
        if self.is_for_shell {
            return replace(value, '$', |name| Ok(self.around.env.get(name).cloned()));
        }
        let value = replace(value, '$', |expression| {
            let (name, default, or_empty) = match expression.split_once(":-") {
                Some((name, default)) => (name, Some(default), true),
                None => match expression.split_once('-') {
                    Some((name, default)) => (name, Some(default), false),
                    None => (expression, None, false),
                },
            };
            let found = self.around.env.get(name).filter(|value| !(or_empty && value.is_empty()));
            let value = found.cloned().or_else(|| default.map(str::to_owned));
            if value.is_none() {
                self.findings.unresolved.push(format!("$({expression})"));
            }
            Ok(value)
        })?;
        let mut pieces = value.split('$');
        let mut result = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let (name, rest) = piece.split_at(piece.find(|c| !is_name(c)).unwrap_or(piece.len()));
            match self.around.env.get(name).filter(|_| !name.starts_with(|c: char| c.is_ascii_digit())) {
                Some(found) => result.extend([found, rest]),
                None => result.extend(["$", piece]),
            }
        }
        Ok(result)
    }

    /// `%(name)`, or words that are joined and reckoned with from left to right: `%(cores * 2)`.
    fn reference(&mut self, expression: &str, open: &mut Vec<String>) -> Result<Option<String>, String> {
        if !expression.contains(' ') {
            let value = self.named(expression, open)?;
            if value.is_none() {
                self.findings.unresolved.push(format!("%({expression})"));
            }
            return Ok(value);
        }
        let mut result = String::new();
        let mut operator = "";
        for word in expression.split(' ').filter(|word| !word.is_empty()) {
            if let "+" | "-" | "*" | "/" = word {
                operator = word;
                continue;
            }
            if let "++" | "--" = word {
                let step = if word == "++" { 1 } else { -1 };
                result = leading_number(&result).saturating_add(step).to_string();
                operator = "";
                continue;
            }
            let value = if word.bytes().all(|b| b.is_ascii_digit()) {
                word.to_owned()
            } else {
                self.named(word, open)?.unwrap_or_default()
            };
            let (left, right) = (leading_number(&result), leading_number(&value));
            result = match std::mem::take(&mut operator) {
                "+" => left.saturating_add(right).to_string(),
                "-" => left.saturating_sub(right).to_string(),
                "*" => left.saturating_mul(right).to_string(),
                "/" => left.checked_div(right).unwrap_or(0).to_string(),
                _ => result + &value,
            };
        }
        Ok(Some(result))
    }

    /// The value of the first setting of this name: the first, as with uWSGI, so that a template can be given a base
    /// before it is included.
    fn named(&mut self, name: &str, open: &mut Vec<String>) -> Result<Option<String>, String> {
        self.findings.referenced.insert(name.to_owned());
        let settings = self.settings;
        let Some(setting) = settings.iter().find(|setting| setting.name == name) else {
            return Ok(None);
        };
        self.references += 1;
        if self.references > MOST_REFERENCES {
            return Err(format!("%({name}) is one of more than {MOST_REFERENCES} references"));
        }
        if open.iter().any(|open| open == name) {
            return Err(format!("%({name}) refers to itself"));
        }
        open.push(name.to_owned());
        let value = self.expand_within(&setting.value, open)?;
        open.pop();
        Ok(Some(value))
    }
}

/// Replaces each `symbol(inner)` by what `with` makes of `inner`; what it makes nothing of stays as it is.
fn replace(
    value: &str,
    symbol: char,
    mut with: impl FnMut(&str) -> Result<Option<String>, String>,
) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = value;
    let opening = format!("{symbol}(");
    while let Some(start) = rest.find(&opening) {
        let inner = &rest[start + 2..];
        let Some(end) = closing(inner) else { break };
        result.push_str(&rest[..start]);
        match with(&inner[..end])? {
            Some(value) => result.push_str(&value),
            None => result.push_str(&rest[start..start + 2 + end + 1]),
        }
        rest = &inner[end + 1..];
        if result.len() > LONGEST {
            return Err(format!("'{symbol}(…)' makes it longer than {LONGEST} bytes"));
        }
    }
    result.push_str(rest);
    Ok(result)
}

/// Where the parenthesis that is open ends, counting those that open in between.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 0 => return Some(index),
            b')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// As C's strtoll: the number that the text begins with, else 0.
fn leading_number(text: &str) -> i64 {
    let text = text.trim_start();
    let sign = usize::from(text.starts_with(['-', '+']));
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    text[..sign + digits].parse().unwrap_or(0)
}
