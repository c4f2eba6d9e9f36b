//! Going through rules.

use super::act::Step;
use super::condition::Outcome;
use super::rule::{Phase, Rule, RuleText, When};
use super::template::number;
use super::variables::Variables;
use super::visit::{Answer, Effect, Visit};

/// What comes after the rules of a phase.
#[derive(Debug)]
pub enum Next {
    /// What would have come without them.
    GoOn,
    /// This answer, and nothing of the application's.
    Answer(Answer),
}

/// The rules of a server, compiled.
#[derive(Debug, Default)]
pub struct Rules {
    request: Vec<Rule>,
    error: Vec<Rule>,
    response: Vec<Rule>,
    last: Vec<Rule>,
    guards_paths: bool,
}

impl Rules {
    /// Compiles rules, in their order.
    ///
    /// # Errors
    /// What was expected of the first one that is none.
    pub fn compile(texts: &[RuleText]) -> Result<Self, String> {
        let mut rules = Self::default();
        for text in texts {
            let rule = text.compile().map_err(|expected| format!("'{}': expected {expected}", text.text))?;
            rules.of_mut(text.phase).push(rule);
        }
        rules.guards_paths = rules.request.iter().any(Rule::is_guard) && rules.request.iter().any(Rule::looks_at_path);
        Ok(rules)
    }

    fn of(&self, phase: Phase) -> &[Rule] {
        match phase {
            Phase::Request => &self.request,
            Phase::Error => &self.error,
            Phase::Response => &self.response,
            Phase::Final => &self.last,
        }
    }

    fn of_mut(&mut self, phase: Phase) -> &mut Vec<Rule> {
        match phase {
            Phase::Request => &mut self.request,
            Phase::Error => &mut self.error,
            Phase::Response => &mut self.response,
            Phase::Final => &mut self.last,
        }
    }

    /// Whether there are rules for this phase.
    #[must_use]
    pub fn has(&self, phase: Phase) -> bool {
        !self.of(phase).is_empty()
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [Phase::Request, Phase::Error, Phase::Response, Phase::Final].into_iter().all(|phase| !self.has(phase))
    }

    /// Whether the rules of a phase may ask the disk, or take their time for another reason.
    #[must_use]
    pub fn may_take_time(&self, phase: Phase) -> bool {
        self.of(phase).iter().any(Rule::may_take_time)
    }

    /// Whether rules may answer requests with files.
    #[must_use]
    pub fn serve_files(&self) -> bool {
        self.request.iter().any(Rule::serves_files)
    }

    /// Whether rules may keep requests from what is served, by their paths. Who serves a path in another way than it is
    /// written would get around them.
    #[must_use]
    pub fn guards_paths(&self) -> bool {
        self.guards_paths
    }

    /// Goes through the rules of a phase.
    pub fn run(&self, phase: Phase, visit: &mut Visit) -> Next {
        if phase == Phase::Request && self.guards_paths && has_dot_segment(&visit.variables) {
            let problem = "a path with a dot segment, where rules guard paths: the request ends (see path-normalize)";
            visit.effects.push(Effect::Complain(problem.into()));
            return Next::Answer(Answer::Page(400));
        }
        let rules = self.of(phase);
        let mut at = 0;
        while let Some(rule) = rules.get(at) {
            let step = match rule {
                Rule::Label(_) => Step::Next,
                Rule::Act(act) => match applies(&act.when, act.has_groups, visit) {
                    Outcome::HoldsNot => Step::Next,
                    Outcome::Holds(groups) => super::act::act(&act.action, visit, &groups),
                    Outcome::Undecided => {
                        visit.effects.push(Effect::Complain(
                            "a rule's pattern or address cannot be decided for what a client sent: the request ends"
                                .into(),
                        ));
                        Step::Answer(Answer::Page(500))
                    }
                },
            };
            match step {
                Step::Next => at += 1,
                Step::Continue => return Next::GoOn,
                Step::Answer(answer) => return Next::Answer(answer),
                Step::Goto(label) => match find_label(rules, &label).filter(|place| *place > at) {
                    Some(place) => at = place,
                    None => {
                        let label = String::from_utf8_lossy(&label).into_owned();
                        let problem =
                            format!("goto:{label} of a rule leads to no label further down: the request ends");
                        visit.effects.push(Effect::Complain(problem));
                        return Next::Answer(Answer::Page(500));
                    }
                },
            }
        }
        Next::GoOn
    }
}

/// Whether the path could be read in two ways. Clients that mean well resolve dot segments themselves.
fn has_dot_segment(variables: &Variables) -> bool {
    let path = variables.get(b"PATH_INFO").unwrap_or_default();
    path.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b".."))
}

/// By its name, or by a number of a rule.
fn find_label(rules: &[Rule], label: &[u8]) -> Option<usize> {
    let named = rules.iter().position(|rule| matches!(rule, Rule::Label(name) if name == label));
    named.or_else(|| usize::try_from(number(label)).ok().filter(|place| *place < rules.len()))
}

fn applies(when: &When, has_groups: bool, visit: &Visit) -> Outcome {
    match when {
        When::Always => Outcome::Holds(Vec::new()),
        When::Status(code) if visit.facts.status == *code => Outcome::Holds(Vec::new()),
        When::Status(_) => Outcome::HoldsNot,
        When::Found(subject, pattern) => {
            let text = visit.variables.get(subject.variable()).unwrap_or_default();
            let found = match has_groups {
                true => pattern.find(text),
                false => pattern.is_in(text).map(|is_in| is_in.then(Vec::new)),
            };
            match found {
                Ok(Some(groups)) => Outcome::Holds(groups),
                Ok(None) => Outcome::HoldsNot,
                Err(_) => Outcome::Undecided,
            }
        }
        When::Holds(condition) => condition.holds(visit),
        When::HoldsNot(condition) => match condition.holds(visit) {
            Outcome::Holds(_) => Outcome::HoldsNot,
            Outcome::HoldsNot => Outcome::Holds(Vec::new()),
            Outcome::Undecided => Outcome::Undecided,
        },
    }
}

#[cfg(test)]
mod tests;
