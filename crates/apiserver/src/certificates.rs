//! Certificates that somebody asks for: read here, approved for nodes that may ask, signed once they are
//! approved, and cleared away when nobody needs the request any more.
//!
//! Upstream: `pkg/controller/certificates/{approver,signer,cleaner}`, `pkg/apis/certificates/helpers.go`.
//! Unlike upstream, the serving certificate of a node is approved too, if it is for what the node is known by.
//! This loop lives at the door, because it asks the authorizer and holds the authority's key; it turns with the others.

mod serving;

use crate::{
    admit::Part,
    authz::{About, Objects, Wish},
    server::Server,
    user::User,
};
use api::{
    Failure, KindRef, Object,
    certificates::{
        certificate_signing_request::{self as requests, APPROVED, DENIED, FAILED},
        v1::{CertificateSigningRequest, CertificateSigningRequestCondition as Condition},
    },
    core::{node, v1::Node},
    k8s::ByteString,
    meta,
};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use stdx::{ShutdownSignal, Timestamp};
use world::{ObjectKey, Typed, World};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    x509::X509Name,
};

pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(crate) const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(crate) const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";
const GROUP: &str = "certificates.k8s.io";
const NODES: &str = "system:nodes";

/// How long requests are kept: those nobody answered, and those that are done with.
const PENDING: Duration = Duration::from_secs(24 * 3600);
const DONE: Duration = Duration::from_secs(3600);
/// Every request is looked at again that often: some are over, some failed because the ledger was away, and some waited
/// for what has changed meanwhile. A node asks again after fifteen minutes.
const SWEPT: Duration = Duration::from_secs(300);

/// Whoever holds the key of the cluster's authority.
pub trait Signer: Send + Sync {
    /// Signs a request, which is in DER so that nobody reads it in another way than whoever judged it, for the usages
    /// given, which replace those that it asks for; the answer is a PEM chain. `life`: from now on.
    fn sign(&self, request: &[u8], usages: &[String], life: Duration) -> Result<String, String>;
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) organizations: Vec<String>,
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
    /// Names of other kinds, and what is no address.
    others: usize,
    /// An attribute of the subject is there twice: only one of them would be signed.
    repeats: bool,
    /// The request itself.
    der: Vec<u8>,
}

/// Reads a PEM request whose signature holds.
pub(crate) fn read(pem: &[u8]) -> Result<Asked, String> {
    let not_pem = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| not_pem())?;
    let (_, request) =
        X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
    request.verify_signature().map_err(|error| error.to_string())?;
    let subject = &request.certification_request_info.subject;
    let text = |it: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        it.as_str().unwrap_or_default().to_owned()
    };
    let mut asked = Asked {
        name: subject.iter_common_name().next().map(text).unwrap_or_default(),
        organizations: subject.iter_organization().map(text).collect(),
        repeats: repeats(subject),
        der: der.to_vec(),
        ..Asked::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => asked.dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(it) => asked.addresses.push(it),
                    None => asked.others += 1,
                },
                _ => asked.others += 1,
            }
        }
    }
    Ok(asked)
}

fn repeats(subject: &X509Name<'_>) -> bool {
    let mut seen = BTreeSet::new();
    !subject.iter_attributes().all(|it| seen.insert(it.attr_type().to_id_string()))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    four().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

pub(crate) fn common_name(pem: &[u8]) -> Option<String> {
    read(pem).ok().map(|it| it.name)
}

/// What is wrong with a request for one of the signers of this cluster.
fn unfit(signer: &str, asked: &Asked, usages: &[String]) -> Option<&'static str> {
    let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let within = |needed: &str| {
        let known = ["digital signature", "key encipherment", needed];
        usages.contains(needed) && usages.iter().all(|it| known.contains(it))
    };
    let is_node = asked.name.starts_with("system:node:");
    let of_nodes = asked.organizations == [NODES];
    match signer {
        _ if asked.repeats => Some("the subject names an attribute more than once"),
        CLIENT if !within("client auth") => Some("usages did not match the signer's"),
        CLIENT => None,
        NODE_CLIENT if !of_nodes => Some("organization in CSR is not system:nodes"),
        NODE_CLIENT if !asked.dns.is_empty() => Some("DNS subjectAltNames are not allowed"),
        NODE_CLIENT if !asked.addresses.is_empty() => Some("IP subjectAltNames are not allowed"),
        NODE_CLIENT if asked.others > 0 => Some("email and URI subjectAltNames are not allowed"),
        NODE_CLIENT if !is_node => Some("subject common name does not begin with system:node:"),
        NODE_CLIENT if !within("client auth") || !usages.contains("digital signature") => {
            Some("usages did not match [digital signature, client auth]")
        }
        NODE_CLIENT => None,
        NODE_SERVING if !of_nodes => Some("organization in CSR is not system:nodes"),
        NODE_SERVING if asked.dns.is_empty() && asked.addresses.is_empty() => {
            Some("at least one DNS or IP subjectAltName is required")
        }
        NODE_SERVING if asked.others > 0 => Some("email and URI subjectAltNames are not allowed"),
        NODE_SERVING if !is_node => Some("subject common name does not begin with system:node:"),
        NODE_SERVING if !within("server auth") || !usages.contains("digital signature") => {
            Some("usages did not match [digital signature, server auth]")
        }
        _ => None,
    }
}

impl Server {
    /// Approves, signs and clears away until shutdown. In one of several servers at a time; two that do it for a moment
    /// do no harm, since each writes only what nobody has changed since it looked.
    pub async fn answer_certificate_requests(self: &Arc<Self>, mut signal: ShutdownSignal) {
        let mut follower = self.ledger.feed.follow();
        let mut swept: Option<Instant> = None;
        loop {
            let wait = swept.map(|it| SWEPT.saturating_sub(it.elapsed())).unwrap_or_default();
            if wait.is_zero() {
                all(self, &follower.world()).await;
                swept = Some(Instant::now());
                continue;
            }
            let tick = tokio::select! {
                () = signal.wait() => return,
                tick = stdx::timeout(wait, follower.next()) => tick,
            };
            let tick = match tick {
                Some(Some(tick)) => tick,
                Some(None) => return,
                None => continue,
            };
            // The feed runs a moment ahead of the view against which is written: what is not there yet would be
            // taken for gone, and nobody would look again.
            self.ledger.reached(tick.world.revision).await;
            let Some(touched) = tick.touched else {
                all(self, &tick.world).await;
                continue;
            };
            let kind = api::kind_of::<CertificateSigningRequest>();
            for it in touched.iter().filter(|it| it.kind == *kind) {
                if let Some(request) = it.new.as_ref().and_then(|it| it.typed()) {
                    turn(self, &request).await;
                }
            }
        }
    }
}

async fn all(server: &Arc<Server>, world: &World) {
    for request in world.all::<CertificateSigningRequest>() {
        turn(server, &request).await;
    }
}

/// What is next for one request.
async fn turn(server: &Arc<Server>, request: &Typed<CertificateSigningRequest>) {
    let done = if is_over(request, server.now()) {
        let kind = api::kind_of::<CertificateSigningRequest>();
        let user = User::inside("system:serviceaccount:kube-system:certificate-controller");
        let asked =
            crate::admit::Deleting { uid: Some(request.uid().to_owned()), ..Default::default() };
        let key = ObjectKey::of(&**request);
        let done = server
            .write(false, |view| Ok(vec![server.draft_delete(view, kind, &user, &key, &asked)?]))
            .await;
        done.map(drop)
    } else if requests::is_approved(request) {
        sign(server, request).await
    } else if !requests::has(request, DENIED) {
        approve(server, request).await
    } else {
        Ok(())
    };
    match done {
        Err(failure) if failure.is_conflict() || failure.is_not_found() => {}
        Err(failure) => tracing::warn!("certificate request {}: {failure}", request.name()),
        Ok(()) => {}
    }
}

fn is_over(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let older = |at: Option<Timestamp>, than: Duration| at.is_some_and(|it| now.since(it) > than);
    let created = request.metadata.creation_timestamp.as_ref().map(meta::timestamp_of);
    let said = |kind: &str| {
        let condition = requests::conditions(request).iter().find(|it| it.type_ == kind);
        condition.and_then(|it| it.last_update_time.as_ref()).map(meta::timestamp_of)
    };
    if requests::conditions(request).is_empty() {
        return older(created, PENDING);
    }
    let is_settled = requests::certificate(request).is_some();
    older(said(DENIED), DONE)
        || older(said(FAILED), DONE)
        || is_settled && older(said(APPROVED), DONE)
        || older(said(APPROVED), PENDING)
}

/// Says yes to nodes that ask for a certificate of their own and may.
async fn approve(
    server: &Arc<Server>,
    request: &Typed<CertificateSigningRequest>,
) -> Result<(), Failure> {
    let spec = &request.spec;
    let usages = spec.usages.as_deref().unwrap_or_default();
    if spec.signer_name != NODE_CLIENT && spec.signer_name != NODE_SERVING {
        return Ok(());
    }
    let Ok(asked) = read(&spec.request.0) else { return Ok(()) };
    if unfit(&spec.signer_name, &asked, usages).is_some() {
        return Ok(());
    }
    if spec.signer_name == NODE_SERVING {
        if spec.username.as_deref() != Some(&asked.name) {
            return Ok(());
        }
        return match serving::refusal(
            &server.ledger.view().world,
            &server.config.access.hosts,
            &asked,
        ) {
            None => condition(server, request, APPROVED, "AutoApproved", serving::APPROVAL).await,
            Some(why) => {
                tracing::warn!("certificate request {} waits for approval: {why}", request.name());
                Ok(())
            }
        };
    }
    let user = User {
        name: spec.username.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
        inside: false,
    };
    let view = server.ledger.view();
    let may = |subresource: &str| {
        let resource = "certificatesigningrequests";
        let about = Objects { group: GROUP, resource, subresource, ..Objects::default() };
        let wish = Wish { verb: "create", about: About::Objects(about) };
        server.authorize(&view, &user, &wish).allowed
    };
    let message = if user.name == asked.name && may("selfnodeclient") {
        "Auto approving self kubelet client certificate after SubjectAccessReview."
    } else if may("nodeclient") {
        "Auto approving kubelet client certificate after SubjectAccessReview."
    } else {
        return Ok(());
    };
    if let Some(why) = taken(&view.world, &user.name, &asked.name) {
        return condition(server, request, DENIED, "NodeIsThere", &why).await;
    }
    condition(server, request, APPROVED, "AutoApproved", message).await
}

/// Whoever may make nodes may not become one that is there. Upstream: `kubeadm join` looks itself.
fn taken(world: &World, user: &str, asked: &str) -> Option<String> {
    let name = asked.strip_prefix("system:node:").filter(|_| user != asked)?;
    let node = world.cluster::<Node>(name).filter(|it| node::is_ready(it))?;
    Some(format!(
        "a Node with name {:?} and status \"Ready\" already exists in the cluster; delete it or join under another name",
        node.name()
    ))
}

async fn condition(
    server: &Arc<Server>,
    request: &Typed<CertificateSigningRequest>,
    kind: &str,
    reason: &str,
    message: &str,
) -> Result<(), Failure> {
    let mut object = request.to_owned();
    let conditions = object.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..Condition::default()
    });
    let part = if kind == FAILED { Part::Status } else { Part::Approval };
    write(server, object, part).await
}

async fn write(
    server: &Arc<Server>,
    mut object: CertificateSigningRequest,
    part: Part,
) -> Result<(), Failure> {
    let kind: &KindRef = api::kind_of::<CertificateSigningRequest>();
    let user = User::inside("system:serviceaccount:kube-system:certificate-controller");
    let key = ObjectKey::of(&object);
    stamp(&mut object, None, server.now());
    let written = server
        .write(false, |view| {
            let object = Box::new(object.clone());
            Ok(vec![server.draft_update(view, kind, &user, &key, part, object)?])
        })
        .await;
    written.map(drop)
}

/// Conditions say when they came and when they changed.
pub(crate) fn stamp(
    object: &mut CertificateSigningRequest,
    old: Option<&CertificateSigningRequest>,
    now: Timestamp,
) {
    let conditions = object.status.iter_mut().flat_map(|it| it.conditions.iter_mut().flatten());
    for it in conditions {
        it.last_update_time.get_or_insert_with(|| meta::time(now));
        if it.last_transition_time.is_none() {
            let before = old.map(requests::conditions).unwrap_or_default();
            let same = before.iter().find(|old| old.type_ == it.type_ && old.status == it.status);
            let since = same.and_then(|it| it.last_transition_time.clone());
            it.last_transition_time = Some(since.unwrap_or_else(|| meta::time(now)));
        }
    }
}

async fn sign(
    server: &Arc<Server>,
    request: &Typed<CertificateSigningRequest>,
) -> Result<(), Failure> {
    let spec = &request.spec;
    let is_ours = matches!(spec.signer_name.as_str(), CLIENT | NODE_CLIENT | NODE_SERVING);
    let Some(signer) = server.config.access.signer.as_ref().filter(|_| is_ours) else {
        return Ok(());
    };
    if requests::certificate(request).is_some() || requests::has(request, FAILED) {
        return Ok(());
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    let judged =
        read(&spec.request.0).and_then(|asked| match unfit(&spec.signer_name, &asked, usages) {
            Some(why) => Err(why.to_owned()),
            None => Ok(asked.der),
        });
    let der = match judged {
        Ok(der) => der,
        Err(why) => {
            return condition(server, request, FAILED, "SignerValidationFailure", &why).await;
        }
    };
    let asked = spec.expiration_seconds.and_then(|it| u64::try_from(it).ok());
    let most = server.config.access.signing_life;
    let life = asked.map_or(most, Duration::from_secs).min(most);
    let chain = signer
        .sign(&der, usages, life)
        .map_err(|why| Failure::internal(format!("sign a certificate: {why}")))?;
    let mut object = request.to_owned();
    let status = object.status.get_or_insert_default();
    status.certificate = Some(ByteString(chain.into_bytes()));
    write(server, object, Part::Status).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, CertificateSigningRequest, DnType, KeyPair};

    fn request(subject: &[(DnType, &str)]) -> CertificateSigningRequest {
        let mut params = CertificateParams::default();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_name_that_is_given_twice_is_not_signed() {
        let usages = ["digital signature".to_owned(), "client auth".to_owned()];
        let honest = [(DnType::OrganizationName, NODES), (DnType::CommonName, "system:node:n1")];
        // The same attribute by its number.
        let other = (DnType::CustomDnType(vec![2, 5, 4, 3]), "system:kube-controller-manager");
        let twice = [honest[0].clone(), honest[1].clone(), other];
        let verdict = |subject: &[(DnType, &str)]| {
            let asked = read(request(subject).pem().unwrap().as_bytes()).unwrap();
            [NODE_CLIENT, CLIENT].map(|it| unfit(it, &asked, &usages))
        };
        assert_eq!(verdict(&honest), [None, None]);
        let why = Some("the subject names an attribute more than once");
        assert_eq!(verdict(&twice), [why, why]);
    }

    #[test]
    fn what_is_signed_is_what_was_judged() {
        let judged = request(&[(DnType::CommonName, "system:node:n1")]);
        let hidden = request(&[(DnType::CommonName, "admin")]).pem().unwrap();
        let hidden = hidden.replace("CERTIFICATE REQUEST", "CERTIFICATE");
        let asked = read(format!("{hidden}{}", judged.pem().unwrap()).as_bytes()).unwrap();
        assert_eq!((asked.name.as_str(), &*asked.der), ("system:node:n1", &**judged.der()));
    }

    fn asked(name: &str, organization: &str) -> Asked {
        let organizations = vec![organization.to_owned()];
        Asked { name: name.to_owned(), organizations, ..Asked::default() }
    }

    #[test]
    fn a_node_gets_a_certificate_for_a_node_and_nothing_else() {
        let usages = ["digital signature".to_owned(), "client auth".to_owned()];
        let fits = |it: &Asked| unfit(NODE_CLIENT, it, &usages).is_none();
        assert!(fits(&asked("system:node:n1", NODES)));
        assert!(!fits(&asked("system:node:n1", "system:masters")));
        assert!(!fits(&asked("admin", NODES)));
        assert!(!fits(&Asked { dns: vec!["n1".to_owned()], ..asked("system:node:n1", NODES) }));
        let serving = ["server auth".to_owned(), "digital signature".to_owned()];
        assert!(unfit(NODE_CLIENT, &asked("system:node:n1", NODES), &serving).is_some());
        let named = Asked {
            addresses: vec![IpAddr::from([10, 0, 0, 1])],
            ..asked("system:node:n1", NODES)
        };
        assert!(unfit(NODE_SERVING, &named, &serving).is_none());
        assert!(unfit(NODE_SERVING, &asked("system:node:n1", NODES), &serving).is_some());
    }
}
