//! The rules of a process, compiled once, and what belongs to them.

use std::path::PathBuf;

use super::static_files::safe_places;
use rwsgi_config::{Config, RoutingConfig};
use rwsgi_routing::Rules;

/// What the threads of a process share.
#[derive(Debug)]
pub(crate) struct SharedRules {
    pub(super) rules: Rules,
    pub(super) config: RoutingConfig,
    /// Where links may lead to.
    pub(super) safe: Vec<PathBuf>,
}

impl SharedRules {
    /// Compiles what is configured.
    ///
    /// # Errors
    /// What is wrong with a rule.
    pub(crate) fn compile(config: &Config) -> Result<Self, String> {
        let (rules, safe) = (Rules::compile(&config.routing.rules)?, safe_places(config));
        Ok(Self { rules, config: config.routing.clone(), safe })
    }

    /// The page for a response of the server's own: the first file that can be read.
    pub(super) fn page(&self, status: u16) -> Option<Vec<u8>> {
        let pages: Vec<&PathBuf> =
            self.config.error_pages.iter().filter(|(of, _)| *of == status).map(|(_, page)| page).collect();
        pages.into_iter().find_map(|page| std::fs::read(page).ok())
    }
}
