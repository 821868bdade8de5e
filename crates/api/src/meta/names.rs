//! Names and labels: what they may look like, in upstream's words.
//!
//! Each function adds what is wrong with a value to the errors, at the path given.
//! Upstream: `apimachinery/pkg/api/validate/content`, `pkg/util/validation/validation.go`.

use crate::field::{Errors, quoted};
use std::{collections::BTreeMap, fmt::Display};

pub const DNS_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SEARCH_DOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
const KEY: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const VARIABLE: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";
const HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";

/// Longest DNS name, in bytes.
pub(crate) const SUBDOMAIN_MOST: usize = 253;
/// Longest DNS label, label value and name part of a key, in bytes.
const LABEL_MOST: usize = 63;
/// All annotations of an object together, in bytes.
pub const ANNOTATIONS_MOST: usize = 256 * 1024;

/// Most names: dots between labels.
pub fn dns_subdomain(path: impl Display, name: &str, errors: &mut Errors) {
    add(path, name, subdomain_problems(name, "characters"), errors);
}

/// Names of two labels or more, perhaps with a dot at the end.
pub(crate) fn full_domain(path: impl Display, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let problems = subdomain_problems(name, "characters");
    let label = name.split('.').find(|it| !label_problems(it).is_empty());
    if !problems.is_empty() {
        errors.invalid(path, quoted(name), problems.join(","));
    } else if !name.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.invalid(path, quoted(name), detail);
    } else if let Some(label) = label {
        errors.invalid(path, quoted(label), label_problems(label).join(","));
    }
}

/// Search domains, whose labels may hold underscores.
pub(crate) fn dns_subdomain_with_underscores(path: impl Display, name: &str, errors: &mut Errors) {
    let mut problems = Vec::new();
    if name.len() > SUBDOMAIN_MOST {
        problems.push(format!("must be no more than {SUBDOMAIN_MOST} characters"));
    }
    let known = |it: &u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.strip_prefix('_').unwrap_or(part).as_bytes();
        let ends = [bytes.first(), bytes.last()];
        ends.iter().all(|it| it.is_some_and(known))
            && bytes.iter().all(|it| known(it) || b"-_".contains(it))
    };
    if !name.split('.').all(is_part) {
        problems.push(SEARCH_DOMAIN.to_owned());
    }
    add(path, name, problems, errors);
}

/// Namespaces, services, containers and volumes of a pod.
pub fn dns_label(path: impl Display, name: &str, errors: &mut Errors) {
    add(path, name, label_problems(name), errors);
}

/// Why a name is no DNS label.
pub(crate) fn label_problems(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > LABEL_MOST {
        problems.push(format!("must be no more than {LABEL_MOST} characters"));
    }
    if !is_label(name) {
        let dots = name.split('.').all(is_label);
        problems.push(if dots { "must not contain dots" } else { DNS_LABEL }.to_owned());
    }
    problems
}

/// Keys of labels, finalizers, resource names: `example.com/MyName`.
pub fn qualified_name(path: impl Display, key: &str, errors: &mut Errors) {
    add(path, key, key_problems(key), errors);
}

pub fn label_value(path: impl Display, value: &str, errors: &mut Errors) {
    let mut problems = Vec::new();
    if value.len() > LABEL_MOST {
        problems.push(format!("must be no more than {LABEL_MOST} bytes"));
    }
    if !value.is_empty() && !is_key_part(value) {
        problems.push(LABEL_VALUE.to_owned());
    }
    add(path, value, problems, errors);
}

/// As [`label_value`], with all that is wrong in one sentence.
pub(crate) fn label_value_whole(path: impl Display, value: &str, errors: &mut Errors) {
    let mut wrong = Errors::default();
    label_value(&path, value, &mut wrong);
    let why: Vec<String> = wrong.0.into_iter().map(|it| it.detail).collect();
    if !why.is_empty() {
        errors.invalid(path, quoted(value), why.join(";"));
    }
}

pub fn labels(path: impl Display, labels: &BTreeMap<String, String>, errors: &mut Errors) {
    for (key, value) in labels {
        qualified_name(&path, key, errors);
        label_value(&path, value, errors);
    }
}

/// Keys as of labels, in any case; all together not too large.
pub fn annotations(
    path: impl Display,
    annotations: &BTreeMap<String, String>,
    errors: &mut Errors,
) {
    for key in annotations.keys() {
        add(&path, key, key_problems(&key.to_lowercase()), errors);
    }
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > ANNOTATIONS_MOST {
        errors.too_long(&path, ANNOTATIONS_MOST);
    }
}

/// Keys of ConfigMaps and Secrets, which become file names.
pub fn config_key(path: impl Display, key: &str, errors: &mut Errors) {
    let mut problems = Vec::new();
    if key.len() > SUBDOMAIN_MOST {
        problems.push(format!("must be no more than {SUBDOMAIN_MOST} characters"));
    }
    if key.is_empty() || !key.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it)) {
        problems.push(CONFIG_KEY.to_owned());
    }
    match key {
        "." => problems.push("must not be '.'".to_owned()),
        ".." => problems.push("must not be '..'".to_owned()),
        key if key.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    add(path, key, problems, errors);
}

/// Names of environment variables.
pub fn variable(path: impl Display, name: &str, errors: &mut Errors) {
    let mut problems = Vec::new();
    if name.is_empty() {
        problems.push("environment variable name must be non-empty".to_owned());
    }
    if !name.bytes().all(|it| (it.is_ascii_graphic() || it == b' ') && it != b'=') {
        problems.push(VARIABLE.to_owned());
    }
    add(path, name, problems, errors);
}

/// Names of ports: IANA service names.
pub fn port_name(path: impl Display, name: &str, errors: &mut Errors) {
    let bytes = name.as_bytes();
    let known = |it: &u8| it.is_ascii_lowercase() || it.is_ascii_digit() || *it == b'-';
    let checks = [
        (bytes.len() > 15, "must be no more than 15 characters"),
        (
            bytes.is_empty() || !bytes.iter().all(known),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!bytes.iter().any(u8::is_ascii_lowercase), "must contain at least one letter (a-z)"),
        (name.contains("--"), "must not contain consecutive hyphens"),
        (name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    let problems = checks.iter().filter(|it| it.0).map(|it| it.1.to_owned()).collect();
    add(path, name, problems, errors);
}

/// A port number: 1 to 65535.
pub fn port(path: impl Display, port: i32, errors: &mut Errors) {
    in_range(path, i64::from(port), 1, 65535, errors);
}

pub fn in_range(path: impl Display, value: i64, least: i64, most: i64, errors: &mut Errors) {
    if !(least..=most).contains(&value) {
        errors.invalid(path, value, format!("must be between {least} and {most}, inclusive"));
    }
}

pub fn not_negative(path: impl Display, value: i64, errors: &mut Errors) {
    if value < 0 {
        errors.invalid(path, value, "must be greater than or equal to 0");
    }
}

pub fn header(path: impl Display, name: &str, errors: &mut Errors) {
    if name.is_empty() || !name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-') {
        errors.invalid(path, quoted(name), HEADER);
    }
}

/// Names that may hold anything that fits into a path.
pub fn path_segment(path: impl Display, name: &str, errors: &mut Errors) {
    let problems = match name {
        "." | ".." => vec![format!("may not be '{name}'")],
        name => {
            let held = ["/", "%"].into_iter().filter(|it| name.contains(it));
            held.map(|it| format!("may not contain '{it}'")).collect()
        }
    };
    add(path, name, problems, errors);
}

/// Names of CSI drivers.
pub fn driver(path: impl Display, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    if name.len() > LABEL_MOST {
        errors.too_long(&path, LABEL_MOST);
    }
    add(path, name, subdomain_problems(&name.to_lowercase(), "characters"), errors);
}

/// Lower case letters, digits and inner dashes.
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

/// Whether every name that begins so could be valid: what is checked of `generateName`.
pub fn without_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

fn is_key_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            let inner = |it: &u8| it.is_ascii_alphanumeric() || b"-_.".contains(it);
            first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() && bytes.iter().all(inner)
        }
        _ => false,
    }
}

/// Upstream counts in bytes and calls them characters for names, bytes for keys.
fn subdomain_problems(name: &str, unit: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > SUBDOMAIN_MOST {
        problems.push(format!("must be no more than {SUBDOMAIN_MOST} {unit}"));
    }
    if !name.split('.').all(is_label) {
        problems.push(DNS_SUBDOMAIN.to_owned());
    }
    problems
}

fn key_problems(key: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = match key.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        ["", name] => {
            problems.push("prefix part must be non-empty".to_owned());
            *name
        }
        [prefix, name] => {
            let wrong = subdomain_problems(prefix, "bytes").into_iter();
            problems.extend(wrong.map(|it| format!("prefix part {it}")));
            *name
        }
        _ => {
            let example =
                "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {KEY} {example}")];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MOST {
        problems.push(format!("name part must be no more than {LABEL_MOST} bytes"));
    }
    if !is_key_part(name) {
        problems.push(format!("name part {KEY}"));
    }
    problems
}

fn add(path: impl Display, value: &str, problems: Vec<String>, errors: &mut Errors) {
    for problem in problems {
        errors.invalid(&path, quoted(value), problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(check: impl Fn(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.0.into_iter().map(|it| it.detail).collect()
    }

    #[test]
    fn names_are_refused_for_their_first_fault_and_their_length() {
        assert!(problems(|it| dns_subdomain("n", "a.b-c.0", it)).is_empty());
        for name in ["", "A", "a_b", "-a", "a-", "a..b", ".a"] {
            assert_eq!(problems(|it| dns_subdomain("n", name, it)), [DNS_SUBDOMAIN], "{name}");
        }
        assert_eq!(problems(|it| dns_label("n", "a.b", it)), ["must not contain dots"]);
        assert_eq!(problems(|it| dns_label("n", "a_b", it)), [DNS_LABEL]);
        let long = "a".repeat(64);
        assert_eq!(
            problems(|it| dns_label("n", &long, it)),
            ["must be no more than 63 characters"]
        );
    }

    #[test]
    fn keys_have_a_name_and_perhaps_a_prefix() {
        for key in ["app", "app.kubernetes.io/name", "A_b.c-1"] {
            assert!(problems(|it| qualified_name("k", key, it)).is_empty(), "{key}");
        }
        let first = |key: &str| problems(|it| qualified_name("k", key, it)).remove(0);
        assert_eq!(first("/a"), "prefix part must be non-empty");
        assert_eq!(first("a/"), "name part must be non-empty");
        assert!(first("A/b").starts_with("prefix part a lowercase RFC 1123 subdomain"));
        assert!(first("a/b/c").starts_with("a valid label key must consist"));
        assert!(problems(|it| label_value("v", "", it)).is_empty());
        assert_eq!(problems(|it| label_value("v", "a b", it)), [LABEL_VALUE]);
    }

    #[test]
    fn annotations_may_be_large_together_but_not_too_large() {
        let of = |bytes: usize| BTreeMap::from([("k".to_owned(), "x".repeat(bytes))]);
        assert!(problems(|it| annotations("a", &of(ANNOTATIONS_MOST - 1), it)).is_empty());
        let mut errors = Errors::default();
        annotations("metadata.annotations", &of(ANNOTATIONS_MOST), &mut errors);
        assert_eq!(
            errors.message(),
            "metadata.annotations: Too long: may not be more than 262144 bytes"
        );
    }

    #[test]
    fn ports_are_named_like_services() {
        for name in ["http", "p-1", "a12345678901234"] {
            assert!(problems(|it| port_name("p", name, it)).is_empty(), "{name}");
        }
        assert_eq!(
            problems(|it| port_name("p", "80", it)),
            ["must contain at least one letter (a-z)"]
        );
        assert_eq!(
            problems(|it| port_name("p", "a--b", it)),
            ["must not contain consecutive hyphens"]
        );
        assert_eq!(
            problems(|it| port_name("p", "abcdefghijklmnop", it)),
            ["must be no more than 15 characters"]
        );
        assert_eq!(problems(|it| port("p", 0, it)), ["must be between 1 and 65535, inclusive"]);
    }
}
