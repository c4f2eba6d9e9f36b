//! What the environ has of a client's TLS, as uWSGI names it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::strings::from_latin1;
use rwsgi_protocol::link::PeerTls;
use rwsgi_protocol::x509::Certificate;

/// Characters of base64 on a line of PEM.
const PEM_LINE: usize = 64;

/// Adds `HTTPS`, and of the client's certificate, if it has shown one, `HTTPS_DN` (its subject),
/// `HTTPS_CLIENT_CERTIFICATE` (DER, a character for each byte) and perhaps `HTTPS_CC` (PEM).
pub(super) fn add(py: Python<'_>, environ: &Bound<'_, PyDict>, tls: &PeerTls<'_>) -> PyResult<()> {
    environ.set_item(intern!(py, "HTTPS"), intern!(py, "on"))?;
    if tls.certificate.is_empty() {
        return Ok(());
    }
    // The router has encoded it.
    let der = STANDARD.decode(tls.certificate).unwrap_or_default();
    environ.set_item(intern!(py, "HTTPS_CLIENT_CERTIFICATE"), from_latin1(py, &der)?)?;
    if let Some(subject) = Certificate::parse(&der).and_then(|certificate| certificate.subject()) {
        environ.set_item(intern!(py, "HTTPS_DN"), PyString::new(py, &subject))?;
    }
    if tls.is_exported {
        environ.set_item(intern!(py, "HTTPS_CC"), PyString::new(py, &pem(tls.certificate)))?;
    }
    Ok(())
}

fn pem(base64: &str) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for start in (0..base64.len()).step_by(PEM_LINE) {
        text.push_str(base64.get(start..base64.len().min(start + PEM_LINE)).unwrap_or_default());
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::pem;

    #[test]
    fn a_certificate_is_written_in_lines_of_64() {
        let text = pem(&"A".repeat(100));
        let lines: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lines, [27, 64, 36, 25]);
    }
}
