//! Names and labels: what they may look like, in upstream's words.
//!
//! Upstream: `apimachinery/pkg/util/validation/validation.go`.

use crate::field::{Errors, quoted};

pub const DNS_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// Adds what is wrong with a DNS subdomain (most names).
pub fn dns_subdomain(path: &str, name: &str, errors: &mut Errors) {
    if name.len() > 253 {
        errors.invalid(path, quoted(name), "must be no more than 253 characters");
    }
    if !name.split('.').all(is_label) {
        errors.invalid(path, quoted(name), DNS_SUBDOMAIN);
    }
}

/// Adds what is wrong with a DNS label (namespaces, services, ports' owners).
pub fn dns_label(path: &str, name: &str, errors: &mut Errors) {
    if name.len() > 63 {
        errors.invalid(path, quoted(name), "must be no more than 63 characters");
    }
    if !is_label(name) {
        errors.invalid(path, quoted(name), DNS_LABEL);
    }
}

/// Letters, digits and inner dashes.
pub fn is_label(text: &str) -> bool {
    let inner = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            inner(*first) && inner(*last) && bytes.iter().all(|it| inner(*it) || *it == b'-')
        }
        _ => false,
    }
}
