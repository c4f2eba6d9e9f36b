//! A rule as it is written, and as it is compiled.

use serde::{Deserialize, Serialize};

use super::action::{Action, can_be_left_out, is_known};
use super::condition::Condition;
use super::pattern::Pattern;
use super::template::number;

/// When rules are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// `route`: before the application.
    Request,
    /// `error-route`: when a response has its status. Of every response, whatever the name says, as in uWSGI.
    Error,
    /// `response-route`: when its head is ready.
    Response,
    /// `final-route`: when it was sent.
    Final,
}

/// What a rule's pattern is looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// `route`: PATH_INFO.
    Path,
    /// `route-host`: HTTP_HOST.
    Host,
    /// `route-uri`: REQUEST_URI, which has the query string too.
    Uri,
    /// `route-qs`: QUERY_STRING.
    Query,
    /// `route-remote-addr`: REMOTE_ADDR.
    RemoteAddr,
    /// `route-user-agent`: HTTP_USER_AGENT.
    UserAgent,
    /// `route-remote-user`: REMOTE_USER.
    RemoteUser,
    /// `route-referer`: HTTP_REFERER.
    Referer,
}

impl Subject {
    pub(crate) fn variable(self) -> &'static [u8] {
        match self {
            Self::Path => b"PATH_INFO",
            Self::Host => b"HTTP_HOST",
            Self::Uri => b"REQUEST_URI",
            Self::Query => b"QUERY_STRING",
            Self::RemoteAddr => b"REMOTE_ADDR",
            Self::UserAgent => b"HTTP_USER_AGENT",
            Self::RemoteUser => b"REMOTE_USER",
            Self::Referer => b"HTTP_REFERER",
        }
    }
}

/// What a rule's value begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test {
    /// A pattern.
    Pattern(Subject),
    /// A status code.
    Status,
    /// A condition, which must hold.
    If,
    /// A condition, which must not hold.
    IfNot,
    /// Nothing: the action is all.
    Run,
    /// It is no rule but a place for `goto`.
    Label,
}

/// A rule as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleText {
    /// When it is looked at.
    pub phase: Phase,
    /// How its value begins.
    pub test: Test,
    /// The value of the option.
    pub text: String,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does what is not to be had here, and can be left out: what is served is the same, and as guarded. Says so.
    LeftOut(String),
    /// What was expected of its value.
    Refused(String),
}

/// When a rule applies.
#[derive(Debug)]
pub(crate) enum When {
    Found(Subject, Pattern),
    Status(u16),
    Holds(Condition),
    HoldsNot(Condition),
    Always,
}

/// What is done, and when.
#[derive(Debug)]
pub(crate) struct Act {
    pub(crate) when: When,
    pub(crate) action: Action,
    /// The action uses what the pattern finds.
    pub(crate) has_groups: bool,
}

/// A rule, compiled.
#[derive(Debug)]
pub(crate) enum Rule {
    Label(Vec<u8>),
    Act(Box<Act>),
}

impl RuleText {
    /// Whether it is a rule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), Fault> {
        let Err(expected) = self.compile() else { return Ok(()) };
        let action = self.action();
        let is_foreign = self.test != Test::Label && self.text.contains(':') && !is_known(action);
        // Behind a response nothing is guarded, and what is served is the application's.
        if is_foreign && (can_be_left_out(action) || matches!(self.phase, Phase::Response | Phase::Final)) {
            return Err(Fault::LeftOut(format!("the rule is left out: there is no action '{action}' here")));
        }
        Err(Fault::Refused(expected))
    }

    /// The action's name.
    #[must_use]
    pub fn action(&self) -> &str {
        let action = match self.test {
            Test::Label => return "",
            Test::Run => self.text.as_str(),
            _ => self.text.split_once(' ').map_or("", |(_, action)| action),
        };
        action.split(':').next().unwrap_or_default()
    }

    pub(crate) fn compile(&self) -> Result<Rule, String> {
        let split = || {
            // uWSGI takes what follows the first blank for the action.
            self.text.split_once(' ').ok_or("a pattern or condition, a blank, and ACTION:ARGUMENT")
        };
        let (when, action) = match self.test {
            Test::Label => return Ok(Rule::Label(self.text.clone().into_bytes())),
            Test::Run => (When::Always, self.text.as_str()),
            Test::Pattern(subject) => {
                let (pattern, action) = split()?;
                (When::Found(subject, Pattern::new(pattern)?), action)
            }
            Test::Status => {
                let (code, action) = split()?;
                (When::Status(u16::try_from(number(code.as_bytes())).unwrap_or(0)), action)
            }
            Test::If => {
                let (condition, action) = split()?;
                (When::Holds(Condition::parse(condition)?), action)
            }
            Test::IfNot => {
                let (condition, action) = split()?;
                (When::HoldsNot(Condition::parse(condition)?), action)
            }
        };
        let action = Action::parse(action)?;
        let has_groups = action.has_groups();
        Ok(Rule::Act(Box::new(Act { when, action, has_groups })))
    }
}

impl Rule {
    /// Whether it may answer with a file.
    pub(crate) fn serves_files(&self) -> bool {
        matches!(self, Self::Act(act) if matches!(act.action, Action::Static { .. } | Action::File(_)))
    }

    /// Whether looking at it may ask the disk, or take its time for another reason.
    pub(crate) fn may_take_time(&self) -> bool {
        match self {
            Self::Label(_) => false,
            Self::Act(act) => {
                act.action.may_take_time()
                    || match &act.when {
                        When::Found(_, pattern) => pattern.goes_back(),
                        When::Holds(condition) | When::HoldsNot(condition) => condition.may_take_time(),
                        When::Status(_) | When::Always => false,
                    }
            }
        }
    }

    /// Whether it depends on the request's path.
    pub(crate) fn looks_at_path(&self) -> bool {
        matches!(self, Self::Act(act) if match &act.when {
            When::Found(subject, _) => matches!(subject, Subject::Path | Subject::Uri),
            When::Holds(condition) | When::HoldsNot(condition) => condition.looks_at_path(),
            When::Status(_) | When::Always => false,
        })
    }

    /// Whether it may keep a request from what is served.
    pub(crate) fn is_guard(&self) -> bool {
        matches!(self, Self::Act(act) if matches!(act.action, Action::BasicAuth(_) | Action::Break(_) | Action::Return(_)))
    }
}
