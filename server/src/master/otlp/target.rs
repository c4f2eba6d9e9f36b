//! Where to, and as whom: what the options say, and the variables of OpenTelemetry where these say nothing.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tracing::warn;

use super::Signal;
use super::values::{attribute, number, text};
use rwsgi_config::{OtlpConfig, otlp_pairs};

/// What is exported to when nobody says anything else.
const DEFAULT_ENDPOINT: &str = "http://localhost:4318";

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Target {
    urls: [String; 3],
    /// What each request has.
    pub(super) headers: Vec<(String, String)>,
    /// The certificates to trust, in PEM, and what names their file.
    pub(super) ca: Option<(String, Vec<u8>)>,
    /// Who exports.
    pub(super) resource: Resource,
}

impl Target {
    /// Of these options and variables. `variable` is `std::env::var`.
    ///
    /// # Errors
    /// When the file of certificates cannot be read.
    pub(super) fn new(options: &OtlpConfig, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        // An empty one is as good as none, says the specification.
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let base = options.endpoint.clone().or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let base = base.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let urls = Signal::ALL.map(|signal| {
            let own = variable(&format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.name().to_ascii_uppercase()));
            let own = own.filter(|_| options.endpoint.is_none());
            own.unwrap_or_else(|| format!("{}/v1/{}", base.trim_end_matches('/'), signal.name()))
        });
        let mut headers = pairs_of("OTEL_EXPORTER_OTLP_HEADERS", variable);
        merge(&mut headers, &options.headers);
        let ca = options.ca.as_ref().map(|path| ("otlp-ca", path.to_string_lossy().into_owned()));
        let ca = ca.or_else(|| {
            variable("OTEL_EXPORTER_OTLP_CERTIFICATE").map(|path| ("OTEL_EXPORTER_OTLP_CERTIFICATE", path))
        });
        let ca = ca.map(|(option, path)| {
            let read = std::fs::read(&path);
            read.map(|pem| (option.to_owned(), pem))
                .map_err(|error| anyhow::anyhow!("{option}: cannot read '{path}': {error}"))
        });
        Ok(Self { urls, headers, ca: ca.transpose()?, resource: resource(options, variable) })
    }

    /// Whether any of it goes by TLS.
    pub(super) fn is_https(&self) -> bool {
        self.urls.iter().any(|url| url.starts_with("https:"))
    }

    /// Where a signal goes.
    pub(super) fn url(&self, signal: Signal) -> &str {
        &self.urls[signal as usize]
    }
}

/// What a variable has. One that cannot be read is left out as a whole, as the specification has it; the log says so,
/// without its text, which may be secret.
fn pairs_of(name: &str, variable: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let Some(text) = variable(name) else { return Vec::new() };
    otlp_pairs(&text).unwrap_or_else(|| {
        warn!("otlp: {name} is not used: it is to be NAME=VALUE, several with commas between");
        Vec::new()
    })
}

/// Later ones replace earlier ones of the same name.
fn merge(list: &mut Vec<(String, String)>, more: &[(String, String)]) {
    for (name, value) in more {
        list.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        list.push((name.clone(), value.clone()));
    }
}

fn resource(options: &OtlpConfig, variable: impl Fn(&str) -> Option<String>) -> Resource {
    let mut attributes = pairs_of("OTEL_RESOURCE_ATTRIBUTES", &variable);
    merge(&mut attributes, &options.attributes);
    if let Some(name) = options.service_name.clone().or_else(|| variable("OTEL_SERVICE_NAME")) {
        merge(&mut attributes, &[("service.name".to_owned(), name)]);
    }
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let defaults = [
        ("service.name", "unknown_service:rwsgi".to_owned()),
        ("service.instance.id", instance()),
        ("host.name", host),
        ("process.runtime.name", "cpython".to_owned()),
    ];
    for (name, value) in defaults {
        if !attributes.iter().any(|(known, _)| known == name) {
            attributes.push((name.to_owned(), value));
        }
    }
    let mut attributes: Vec<_> = attributes.into_iter().map(|(name, value)| attribute(&name, text(value))).collect();
    attributes.push(attribute("process.pid", number(std::process::id())));
    Resource { attributes, ..Resource::default() }
}

/// A random UUID: of each start of the server its own.
fn instance() -> String {
    let mut bytes = [0_u8; 16];
    // Without it the pid tells instances apart.
    let _ = getrandom::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        text.push_str(if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" });
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// What all that is exported comes from.
pub(super) fn scope() -> Option<InstrumentationScope> {
    let (name, version) = ("rwsgi".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Some(InstrumentationScope { name, version, ..InstrumentationScope::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;

    fn target(options: &OtlpConfig, variables: &[(&str, &str)]) -> Target {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Target::new(options, find).unwrap()
    }

    fn service(target: &Target) -> String {
        let name = target.resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
        match &name.value.as_ref().unwrap().value {
            Some(Value::StringValue(name)) => name.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_come_before_variables() {
        let own = OtlpConfig {
            endpoint: Some("http://own:1/".into()),
            headers: vec![("Authorization".into(), "own".into())],
            service_name: Some("shop".into()),
            ..OtlpConfig::default()
        };
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:2/x"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:3/y"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=env,x=1"),
            ("OTEL_SERVICE_NAME", "env"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute,a=b"),
        ];
        let of_own = target(&own, &variables);
        assert_eq!(of_own.url(Signal::Traces), "http://own:1/v1/traces");
        assert_eq!(of_own.headers, [("x".to_owned(), "1".to_owned()), ("Authorization".to_owned(), "own".to_owned())]);
        assert_eq!(service(&of_own), "shop");
        let of_variables = target(&OtlpConfig::default(), &variables);
        assert_eq!(of_variables.url(Signal::Traces), "http://traces:3/y");
        assert_eq!(of_variables.url(Signal::Metrics), "http://env:2/x/v1/metrics");
        assert_eq!(service(&of_variables), "env");
        assert_eq!(service(&target(&OtlpConfig::default(), &variables[4..])), "attribute");
        let bare = target(&OtlpConfig::default(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]);
        assert_eq!(
            (bare.url(Signal::Logs), service(&bare).as_str()),
            ("http://localhost:4318/v1/logs", "unknown_service:rwsgi")
        );
        assert_ne!(instance(), instance());
    }

    #[test]
    fn certificates_that_cannot_be_read_are_an_error() {
        let options = OtlpConfig { ca: Some("/nowhere".into()), ..OtlpConfig::default() };
        let error = Target::new(&options, |_| None).unwrap_err();
        assert!(error.to_string().starts_with("otlp-ca: cannot read '/nowhere'"), "{error}");
    }
}
