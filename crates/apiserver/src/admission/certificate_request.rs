//! A request for a certificate is well-formed and says who asks; approving and signing take a rule about
//! the signer; nobody asks to be a master.
//!
//! Upstream: `plugin/pkg/admission/certificates/{approval,signing,subjectrestriction}`,
//! `pkg/registry/certificates/certificates/strategy.go` for who asks.

use super::{Act, Attempt, Plugin};
use crate::{
    authz::{About, Objects, Wish},
    certificates::{self, CLIENT},
    user::MASTERS,
};
use api::{
    AnyObject, Errors, Failure,
    certificates::{
        certificate_signing_request::{APPROVED, DENIED, certificate, conditions},
        v1::CertificateSigningRequest,
    },
};

pub(super) const PLUGIN: Plugin = Plugin { name: "CertificateApproval", admit };

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let request =
        object.and_then(|it| (**it).as_any_mut().downcast_mut::<CertificateSigningRequest>());
    let Some(request) = request else { return Ok(()) };
    match attempt.act {
        Act::Create => create(attempt, request),
        Act::Status => status(attempt, request),
        Act::Update | Act::Delete => Ok(()),
    }
}

fn create(attempt: &Attempt<'_>, request: &mut CertificateSigningRequest) -> Result<(), Failure> {
    let (kind, name) = (attempt.kind, &attempt.key.name);
    let asked = certificates::read(&request.spec.request.0).map_err(|why| {
        let mut errors = Errors::default();
        errors.invalid("spec.request", "<request>", why);
        Failure::invalid(kind, name, &errors)
    })?;
    let masters = asked.organizations.iter().any(|it| it == MASTERS);
    if request.spec.signer_name == CLIENT && masters {
        let why = format!("use of {CLIENT} signer with {MASTERS} group is not allowed");
        return Err(Failure::forbidden(kind, name, &why));
    }
    let (user, spec) = (attempt.user, &mut request.spec);
    let text = |it: &str| (!it.is_empty()).then(|| it.to_owned());
    spec.username = text(&user.name);
    spec.uid = text(&user.uid);
    spec.groups = (!user.groups.is_empty()).then(|| user.groups.clone());
    spec.extra = (!user.extra.is_empty()).then(|| user.extra.clone());
    Ok(())
}

fn status(attempt: &Attempt<'_>, request: &CertificateSigningRequest) -> Result<(), Failure> {
    let old = attempt.old.and_then(|it| it.as_any().downcast_ref::<CertificateSigningRequest>());
    let Some(old) = old else { return Ok(()) };
    let said = |it: &CertificateSigningRequest| {
        let own = conditions(it).iter().filter(|it| matches!(it.type_.as_str(), APPROVED | DENIED));
        own.map(|it| it.type_.clone()).collect::<Vec<_>>()
    };
    if said(request) != said(old) {
        permit(attempt, "approve", &old.spec.signer_name)?;
    }
    if certificate(request) != certificate(old) {
        permit(attempt, "sign", &old.spec.signer_name)?;
    }
    Ok(())
}

/// `example.com/one` is allowed by a rule about it, or about `example.com/*`.
fn permit(attempt: &Attempt<'_>, verb: &str, signer: &str) -> Result<(), Failure> {
    let domain = signer.split('/').next().unwrap_or_default();
    let wildcard = format!("{domain}/*");
    let may = |name: &str| {
        let (group, resource) = ("certificates.k8s.io", "signers");
        let about = Objects { group, resource, name, ..Objects::default() };
        let wish = Wish { verb, about: About::Objects(about) };
        attempt.server.authorize(attempt.view, attempt.user, &wish).allowed
    };
    if may(signer) || may(&wildcard) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(Failure::forbidden(attempt.kind, &attempt.key.name, &why))
}
