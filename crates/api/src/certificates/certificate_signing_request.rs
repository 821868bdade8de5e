//! `certificates.k8s.io/v1` CertificateSigningRequest: somebody asks for a certificate, somebody may
//! approve, a signer signs. Who asks is the door's to say; whether the request itself is well-formed,
//! too, for it takes cryptography.
//!
//! Upstream: `pkg/apis/certificates/validation/validation.go`,
//! `pkg/registry/certificates/certificates/strategy.go`.

use crate::{
    field::{Errors, quoted},
    k8s::api::certificates::v1::{
        CertificateSigningRequest, CertificateSigningRequestCondition as Condition,
    },
    kind::{Column, Kind, Names, Scope, Subresource},
    meta::{
        absent::{list, text as shown},
        age as age_of,
        columns::{NONE, age, name, or, text},
        names,
    },
};
use std::time::Duration;
use stdx::Timestamp;

pub const APPROVED: &str = "Approved";
pub const DENIED: &str = "Denied";
pub const FAILED: &str = "Failed";

/// What is asked of a certificate may be one of these, in upstream's order of names.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

const EXPIRATION_LEAST_S: i32 = 600;

pub fn conditions(request: &CertificateSigningRequest) -> &[Condition] {
    request.status.as_ref().map_or(&[], |it| list(&it.conditions))
}

pub fn has(request: &CertificateSigningRequest, condition: &str) -> bool {
    conditions(request).iter().any(|it| it.type_ == condition)
}

/// Whether somebody said yes, and nobody said no.
pub fn is_approved(request: &CertificateSigningRequest) -> bool {
    has(request, APPROVED) && !has(request, DENIED)
}

pub fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    (!certificate.0.is_empty()).then_some(&certificate.0)
}

impl Kind for CertificateSigningRequest {
    const NAMES: Names = Names {
        plural: "certificatesigningrequests",
        singular: "certificatesigningrequest",
        short: &["csr"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/certificatesigningrequests";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status, Subresource::Approval];
    const COLUMNS: &'static [Column<CertificateSigningRequest>] = &[
        name(),
        age(),
        text("SignerName", "Who is to sign.", |request, _| {
            or(&request.spec.signer_name, NONE).into()
        }),
        text("Requestor", "Who asked.", |request, _| shown(&request.spec.username).into()),
        text("RequestedDuration", "For how long.", |request, _| {
            let seconds = request.spec.expiration_seconds.and_then(|it| u64::try_from(it).ok());
            let Some(seconds) = seconds else { return NONE.into() };
            let end = Timestamp(0).plus(Duration::from_secs(seconds));
            age_of(Some(Timestamp(0)), end).into()
        }),
        text("Condition", "What became of it.", |request, _| outcome(request).into()),
    ];

    fn prepare_create(&mut self) {
        self.status = None;
    }

    fn prepare_update(&mut self, old: &CertificateSigningRequest) {
        self.spec = old.spec.clone();
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &CertificateSigningRequest) {
        self.spec = old.spec.clone();
        // What was approved stays as it was said, its times included.
        let kept: Vec<&Condition> =
            conditions(old).iter().filter(|it| is_approval(&it.type_)).collect();
        let own = self.status.iter_mut().flat_map(|it| it.conditions.iter_mut().flatten());
        for condition in own.filter(|it| is_approval(&it.type_)) {
            if let Some(old) = kept.iter().find(|it| it.type_ == condition.type_) {
                condition.clone_from(old);
            }
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        let usages = list(&spec.usages);
        if usages.is_empty() {
            errors.required("spec.usages", "");
        }
        for (n, usage) in usages.iter().enumerate() {
            let path = format!("spec.usages[{n}]");
            if !USAGES.contains(&usage.as_str()) {
                errors.not_supported(&path, usage, &USAGES);
            }
            if usages[..n].contains(usage) {
                errors.duplicate(path, quoted(usage));
            }
        }
        signer("spec.signerName", &spec.signer_name, errors);
        if let Some(seconds) = spec.expiration_seconds.filter(|it| *it < EXPIRATION_LEAST_S) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.invalid("spec.expirationSeconds", seconds, why);
        }
        validate_conditions(conditions(self), errors);
    }

    /// The way of approvals: conditions may come, and none may go.
    fn validate_both(&self, old: &CertificateSigningRequest, errors: &mut Errors) {
        for kind in [APPROVED, DENIED, FAILED] {
            if has(old, kind) && !has(self, kind) {
                let why = format!("updates may not remove a condition of type {kind:?}");
                errors.forbidden("status.conditions", why);
            }
        }
    }

    fn validate_status(&self, old: &CertificateSigningRequest, errors: &mut Errors) {
        self.validate_both(old, errors);
        validate_conditions(conditions(self), errors);
        for kind in [APPROVED, DENIED] {
            if has(self, kind) && !has(old, kind) {
                let why = format!("updates may not add a condition of type {kind:?}");
                errors.forbidden("status.conditions", why);
            }
        }
        if certificate(old).is_some() && certificate(self) != certificate(old) {
            let why = "updates may not modify existing certificate content";
            errors.forbidden("status.certificate", why);
        }
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", self.spec.signer_name.clone())]
    }

    fn validate_name(name: &str, errors: &mut Errors) {
        names::path_segment("metadata.name", name, errors);
    }
}

fn is_approval(condition: &str) -> bool {
    matches!(condition, APPROVED | DENIED)
}

fn validate_conditions(conditions: &[Condition], errors: &mut Errors) {
    let path = "status.conditions";
    for (n, it) in conditions.iter().enumerate() {
        let at = format!("{path}[{n}]");
        if it.type_.is_empty() {
            errors.required(format!("{at}.type"), "");
        }
        let known: &[&str] = match it.type_.as_str() {
            APPROVED | DENIED | FAILED => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        match it.status.as_str() {
            "" => errors.required(format!("{at}.status"), ""),
            status if !known.contains(&status) => {
                errors.not_supported(format!("{at}.status"), status, known);
            }
            _ => {}
        }
        let before = &conditions[..n];
        let other = match it.type_.as_str() {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => "",
        };
        if !other.is_empty() && before.iter().any(|it| it.type_ == other) {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(path, quoted(&it.type_), why);
        }
        if before.iter().any(|other| other.type_ == it.type_) {
            errors.duplicate(format!("{at}.type"), quoted(&it.type_));
        }
    }
}

/// `example.com/name`: a domain and a path below it.
///
/// Upstream: `pkg/apis/core/validation/validation.go`, ValidateSignerName.
fn signer(path: &str, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name == "kubernetes.io/legacy-unknown" {
        let why = "the legacy signerName is not allowed via this API version";
        return errors.invalid(path, quoted(name), why);
    }
    let Some((domain, rest)) = name.split_once('/').filter(|it| !it.1.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(path, quoted(name), why);
    };
    names::dns_subdomain(path, domain, errors);
    if !domain.contains('.') {
        errors.invalid(
            path,
            quoted(domain),
            "should be a domain with at least two segments separated by dots",
        );
    }
    names::dns_subdomain(path, rest, errors);
}

/// `Approved,Issued`
fn outcome(request: &CertificateSigningRequest) -> String {
    let mut text = match (has(request, DENIED), has(request, APPROVED)) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has(request, FAILED) {
        text.push_str(",Failed");
    }
    if certificate(request).is_some() {
        text.push_str(",Issued");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn request(conditions: &[&str]) -> CertificateSigningRequest {
        let conditions: Vec<Value> =
            conditions.iter().map(|it| json!({"type": it, "status": "True"})).collect();
        from_value(&json!({
            "metadata": {"name": "c"},
            "spec": {
                "request": "", "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["client auth"], "expirationSeconds": 3600, "username": "jane",
            },
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn wrong(check: impl Fn(&mut Errors)) -> String {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.message()
    }

    #[test]
    fn only_the_approval_approves() {
        let (old, new) = (request(&[]), request(&[APPROVED]));
        assert_eq!(
            row(&new),
            "c | <unknown> | kubernetes.io/kube-apiserver-client | jane | 60m | Approved"
        );
        assert_eq!(
            wrong(|errors| new.validate_status(&old, errors)),
            "status.conditions: Forbidden: updates may not add a condition of type \"Approved\""
        );
        assert_eq!(wrong(|errors| new.validate_both(&old, errors)), "");
        assert_eq!(
            wrong(|errors| old.validate_both(&new, errors)),
            "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""
        );
        assert_eq!(
            wrong(|errors| request(&[APPROVED, DENIED]).validate(errors)),
            "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
        );
    }

    #[test]
    fn a_signer_is_a_domain_and_a_name() {
        let mut it = request(&[]);
        it.spec.signer_name = "me".to_owned();
        assert!(wrong(|errors| it.validate(errors)).starts_with("spec.signerName: Invalid value"));
    }
}
