//! Who asks: the common name and the organizations of a verified client certificate.
//!
//! Upstream: `apiserver/pkg/authentication/request/x509/x509.go`.

use crate::user::User;
use rustls::pki_types::CertificateDer;

/// Everybody who proved who they are.
const AUTHENTICATED: &str = "system:authenticated";

/// The certificate was verified by the handshake; here it is only read.
pub(crate) fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let groups = subject.iter_organization().filter_map(|it| it.as_str().ok());
    let mut groups: Vec<String> = groups.map(str::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    Some(User { name, groups, inside: false })
}
