//! What the table of differences asks a configuration.

use rwsgi_stats::Address;

use crate::Config;
use crate::setting::Setting;
use crate::value::is_off;

/// A configuration as written and as understood.
pub(super) struct Given<'a> {
    settings: &'a [Setting],
    pub(super) config: &'a Config,
}

impl<'a> Given<'a> {
    pub(super) fn new(settings: &'a [Setting], config: &'a Config) -> Self {
        Self { settings, config }
    }

    /// Is one of these options given, and not turned off?
    pub(super) fn has(&self, names: &[&str]) -> bool {
        self.settings.iter().any(|setting| names.contains(&setting.name.as_str()) && !is_off(&setting.value))
    }

    /// Does one of the values contain this?
    pub(super) fn says(&self, name: &str, part: &str) -> bool {
        self.settings.iter().any(|setting| setting.name == name && setting.value.contains(part))
    }

    /// Does it speak HTTP?
    pub(super) fn has_http(&self) -> bool {
        !(self.config.http.is_empty() && self.config.http_socket.is_empty()) || self.config.tls.is_used()
    }

    /// Do clients reach it over HTTP from other machines?
    pub(super) fn has_public_http(&self) -> bool {
        let mut addresses = self.config.http.iter().chain(&self.config.http_socket).chain(self.config.tls.addresses());
        addresses.any(|address| match address {
            Address::Tcp { host, .. } => host != "localhost" && !host.starts_with("127.") && host != "::1",
            Address::Unix(_) | Address::Abstract(_) => false,
        })
    }
}
