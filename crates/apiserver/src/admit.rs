//! What the door does to every object, in this order: default, mutate, prepare, validate, check.
//! Each function judges one view and says what a commit would have to write; none writes.
//!
//! Upstream: `apiserver/pkg/registry/rest/{create,update,delete}.go`,
//! `apiserver/pkg/registry/generic/registry/store.go`.

use crate::{
    admission::{Act, Attempt},
    commit::{Draft, Effect},
    fields::entries::same_but_time,
    metadata,
    ownership::{self, Ownership},
    server::Server,
    user::User,
    view::View,
};
use api::{
    AnyKind, AnyObject, Erased, Errors, Failure, KindRef, Object, Subresource,
    certificates::v1::CertificateSigningRequest,
    codec,
    core::v1::Namespace,
    deletion::{self, Deletion, Propagation},
    meta,
};
use bytes::Bytes;
use std::sync::Arc;
use stdx::Timestamp;
use store::VALUE_BYTES_MAX;
use world::{ObjectKey, Row};

/// Upstream's registry asks each kind whether it may be written without saying which version was
/// read; these may not.
const CONDITIONAL: &[(&str, &str)] = &[
    ("coordination.k8s.io", "leases"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "volumeattachments"),
];

/// Which parts of an object a write carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Metadata and spec.
    Own,
    /// The status.
    Status,
    /// All of it: loops only.
    Both,
    /// The conditions of a certificate request, approvals included.
    Approval,
    /// A namespace's `spec.finalizers`.
    Finalize,
    /// The part of the spec that a subresource holds.
    Of(Subresource),
}

/// How a deletion was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deleting {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) revision: Option<String>,
}

impl Server {
    /// A new object; with `Part::Both` it brings its status along. Its name is generated here when only a prefix was given, so a name that is
    /// taken is drawn again with the next proposal.
    pub(crate) fn draft_create(
        &self,
        view: &View,
        kind: &KindRef,
        user: &User,
        part: Part,
        object: AnyObject,
    ) -> Result<Draft, Failure> {
        let ownership = Ownership::of_user(self, kind, user, part);
        self.draft_create_as(view, kind, user, part, object, ownership)
    }

    /// A new object whose fields belong to somebody.
    pub(crate) fn draft_create_as(
        &self,
        view: &View,
        kind: &KindRef,
        user: &User,
        part: Part,
        mut object: AnyObject,
        ownership: Ownership,
    ) -> Result<Draft, Failure> {
        if let Some(refusal) = crate::not_built::refusal_of(kind) {
            return Err(refusal);
        }
        let rules = &kind.rules;
        let given = object.metadata().resource_version.as_deref().unwrap_or_default();
        if !matches!(given, "" | "0") {
            let why = "resourceVersion should not be set on objects to be created";
            return Err(Failure::new(500, "", why));
        }
        self.name(view, kind, &mut object)?;
        let key = ObjectKey::of_any(&*object);
        if view.row(kind, &key).is_some() {
            return Err(Failure::already_exists(kind, &key.name));
        }
        rules.default(&mut object);
        let given = ownership::given(&mut object);
        // What admission adds is nobody's.
        let managed = self.owners(kind, None, &object, &given, ownership);
        let mut attempt = Attempt::new(self, view, kind, &key, Act::Create, user, None, self.now());
        self.chain.admit(&mut attempt, Some(&mut object))?;
        crate::authz::escalation::check(self, view, user, kind, &*object, None)?;
        rules.default(&mut object);
        let now = self.now();
        let meta = object.metadata_mut();
        meta.resource_version = None;
        meta.self_link = None;
        meta.managed_fields = None;
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        meta.uid = Some(self.config.entropy.uuid());
        meta.creation_timestamp = Some(meta::time(now));
        meta.generation = None;
        metadata::tidy(meta);
        if part != Part::Both {
            rules.prepare_create(&mut object);
        }
        object.metadata_mut().generation = rules.generation().then_some(1);
        let mut errors = Errors::default();
        rules.validate(&*object, &mut errors);
        rules.validate_create(&*object, &mut errors);
        metadata::validate(kind, object.metadata(), &mut errors);
        refuse(kind, &key.name, &errors)?;
        self.chain.check(&mut attempt, &mut object)?;
        let Attempt { mut checks, mut writes, charges, .. } = attempt;
        let taken = crate::admission::service_address::assign(self, view, kind, &mut object)?;
        writes.extend(taken.writes);
        checks.extend(taken.checks);
        let warnings = if user.inside { Vec::new() } else { rules.warnings(&*object, None) };
        let effect = put(object, managed.as_deref());
        Ok(Draft { writes, checks, warnings, charges, ..Draft::new(kind, key, None, effect) })
    }

    /// A new version of an object that is there.
    pub(crate) fn draft_update(
        &self,
        view: &View,
        kind: &KindRef,
        user: &User,
        key: &ObjectKey,
        part: Part,
        object: AnyObject,
    ) -> Result<Draft, Failure> {
        let ownership = Ownership::of_user(self, kind, user, part);
        self.draft_update_as(view, kind, user, key, part, object, ownership)
    }

    /// A new version, what changed in it belonging to somebody.
    #[allow(clippy::too_many_arguments, reason = "each is one word of the sentence")]
    pub(crate) fn draft_update_as(
        &self,
        view: &View,
        kind: &KindRef,
        user: &User,
        key: &ObjectKey,
        part: Part,
        mut object: AnyObject,
        ownership: Ownership,
    ) -> Result<Draft, Failure> {
        let rules = &kind.rules;
        let given = ownership::given(&mut object);
        let row = view.row(kind, key).ok_or_else(|| Failure::not_found(kind, &key.name))?;
        let old = row.object().map_err(Failure::internal)?;
        let old = &*old;
        expect_version(kind, key, object.metadata(), row)?;
        match part {
            Part::Finalize => object = finalized(&*object, old),
            Part::Approval => object = approved(&*object, old, self.now()),
            Part::Status => stamp(&mut object, old, self.now()),
            Part::Own | Part::Both | Part::Of(_) => {}
        }
        metadata::keep(object.metadata_mut(), old.metadata());
        rules.default(&mut object);
        let managed = self.owners(kind, Some(row), &object, &given, ownership);
        crate::admission::service_address::keep(&mut object, old);
        let act = match part {
            Part::Own | Part::Both | Part::Finalize | Part::Of(_) => Act::Update,
            Part::Status | Part::Approval => Act::Status,
        };
        let mut attempt = Attempt::new(self, view, kind, key, act, user, Some(old), self.now());
        self.chain.admit(&mut attempt, Some(&mut object))?;
        crate::authz::escalation::check(self, view, user, kind, &*object, Some(old))?;
        rules.default(&mut object);
        prepare_update(kind, part, &mut object, old);
        metadata::tidy(object.metadata_mut());
        let mut errors = new_errors(kind, part, &*object, old);
        meta::validate::validate_update(object.metadata(), old.metadata(), &mut errors);
        match part {
            Part::Own => rules.validate_update(&*object, old, &mut errors),
            Part::Status => {}
            Part::Approval | Part::Both => rules.validate_both(&*object, old, &mut errors),
            Part::Of(part) => rules.validate_part(part, &*object, old, &mut errors),
            Part::Finalize => {
                rules.validate_part(Subresource::Finalize, &*object, old, &mut errors);
            }
        }
        refuse(kind, &key.name, &errors)?;
        self.chain.check(&mut attempt, &mut object)?;
        let Attempt { mut checks, mut writes, charges, .. } = attempt;
        if !matches!(part, Part::Status | Part::Approval) {
            let taken =
                crate::admission::service_address::update(self, view, kind, &mut object, old)?;
            writes.extend(taken.writes);
            checks.extend(taken.checks);
        }
        let warnings = match part {
            Part::Own if !user.inside => rules.warnings(&*object, Some(old)),
            Part::Own
            | Part::Status
            | Part::Both
            | Part::Approval
            | Part::Finalize
            | Part::Of(_) => Vec::new(),
        };
        let effect = if deletion::is_over(kind, &*object) {
            writes = released(view, kind, old);
            Effect::Remove
        } else {
            object.metadata_mut().resource_version = None;
            let same = object.encode() == *row.plain();
            // Time alone is no change.
            if same && is_as_before(managed.as_deref(), row.managed()) {
                // What another server wrote meanwhile is no part of this view.
                Effect::Keep { checked: true }
            } else {
                put(object, managed.as_deref())
            }
        };
        let draft = Draft::new(kind, key.clone(), Some(row), effect);
        Ok(Draft { writes, checks, warnings, charges, ..draft })
    }

    /// A deletion: the object goes, or is marked and waits.
    pub(crate) fn draft_delete(
        &self,
        view: &View,
        kind: &KindRef,
        user: &User,
        key: &ObjectKey,
        asked: &Deleting,
    ) -> Result<Draft, Failure> {
        let row = view.row(kind, key).ok_or_else(|| Failure::not_found(kind, &key.name))?;
        let old = row.object().map_err(Failure::internal)?;
        expect_deleted(kind, key, row, asked)?;
        crate::admission::service_address::expect_unused(view, kind, &*old)?;
        let mut attempt =
            Attempt::new(self, view, kind, key, Act::Delete, user, Some(&*old), self.now());
        self.chain.admit(&mut attempt, None)?;
        let checks = attempt.checks;
        let Deleting { grace_seconds, propagation, .. } = *asked;
        // Loops delete what has to go, dependents and all.
        let unasked = || deletion::unasked(kind, &*old).filter(|_| !user.inside);
        let propagation = propagation.or_else(unasked);
        let effect = match deletion::delete(kind, &*old, grace_seconds, propagation, self.now()) {
            Deletion::Gone => Effect::Remove,
            Deletion::Marked(object) => put(object, row.managed()),
            Deletion::Unchanged => Effect::Keep { checked: true },
        };
        let writes = match effect {
            Effect::Remove => released(view, kind, &*old),
            Effect::Put(..) | Effect::Keep { .. } => Vec::new(),
        };
        Ok(Draft { writes, checks, ..Draft::new(kind, key.clone(), Some(row), effect) })
    }

    /// Draws a name that is free as far as the view knows.
    fn name(&self, view: &View, kind: &AnyKind, object: &mut AnyObject) -> Result<(), Failure> {
        /// Upstream's room for the prefix: a name of 63 with a suffix of 5.
        const PREFIX_MAX: usize = 58;
        const DRAWS: usize = 8;
        let meta = object.metadata_mut();
        let prefix = meta.generate_name.clone().unwrap_or_default();
        if !meta.name.as_deref().unwrap_or_default().is_empty() || prefix.is_empty() {
            return Ok(());
        }
        let prefix: String = prefix.chars().take(PREFIX_MAX).collect();
        let namespace = meta.namespace.clone().unwrap_or_default();
        for _ in 0..DRAWS {
            let name = format!("{prefix}{}", self.config.entropy.suffix(5));
            if view.row(kind, &ObjectKey::new(&namespace, &name)).is_none() {
                object.metadata_mut().name = Some(name);
                return Ok(());
            }
        }
        let why = "the server was not able to generate a unique name for the object";
        let message = format!("{} {prefix:?} already exists, {why}", kind.qualified());
        Err(Failure::new(409, "AlreadyExists", message).about(kind, &prefix))
    }
}

/// Other keys that go with an object.
fn released(view: &View, kind: &AnyKind, old: &dyn Erased) -> Vec<store::Write> {
    let mut writes = crate::admission::service_address::release(kind, old);
    if let Some(namespace) = old.as_any().downcast_ref::<Namespace>() {
        writes.extend(crate::admission::resource_quota::forget(view, namespace.name()));
    }
    writes
}

/// An object as it will be stored, with its owners; without them if only so it is not too large.
fn put(object: AnyObject, managed: Option<&str>) -> Effect {
    let plain = object.encode();
    let managed = managed.filter(|it| plain.len() + it.len() + 64 <= VALUE_BYTES_MAX);
    let bytes = codec::with_managed(plain, managed);
    Effect::Put(Bytes::from(bytes), object)
}

fn is_as_before(managed: Option<&str>, before: Option<&str>) -> bool {
    match (managed, before) {
        (None, None) => true,
        (Some(managed), Some(before)) => same_but_time(managed, before),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn prepare_update(kind: &AnyKind, part: Part, object: &mut AnyObject, old: &dyn Erased) {
    let rules = &kind.rules;
    match part {
        Part::Own => rules.prepare_update(object, old),
        Part::Status => rules.prepare_status(object, old),
        Part::Of(part) => rules.prepare_part(part, object, old),
        Part::Both => {
            // Both halves stay as written; whether the spec changed is the kind's to say.
            let mut own = object.clone();
            rules.prepare_update(&mut own, old);
            object.metadata_mut().generation = own.metadata().generation;
        }
        Part::Approval | Part::Finalize => {}
    }
    let (meta, old) = (object.metadata_mut(), old.metadata());
    // Identity is not the kind's to change.
    meta.uid.clone_from(&old.uid);
    meta.creation_timestamp.clone_from(&old.creation_timestamp);
    meta.deletion_timestamp.clone_from(&old.deletion_timestamp);
    meta.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
}

/// A namespace with other finalizers, and nothing else of it changed.
fn finalized(given: &dyn Erased, old: &dyn Erased) -> AnyObject {
    let mut object = old.clone_box();
    let given = given.as_any().downcast_ref::<Namespace>().and_then(|it| it.spec.as_ref());
    if let Some(namespace) = (*object).as_any_mut().downcast_mut::<Namespace>() {
        let finalizers = given.and_then(|it| it.finalizers.clone());
        namespace.spec.get_or_insert_default().finalizers = finalizers;
    }
    object
}

/// A request for a certificate with other conditions and metadata, and nothing else of it changed.
fn approved(given: &dyn Erased, old: &dyn Erased, now: Timestamp) -> AnyObject {
    let given = given.as_any().downcast_ref::<CertificateSigningRequest>();
    let mut object = old.clone_box();
    let was = old.as_any().downcast_ref::<CertificateSigningRequest>();
    let own = (*object).as_any_mut().downcast_mut::<CertificateSigningRequest>();
    if let (Some(own), Some(given)) = (own, given) {
        own.metadata.clone_from(&given.metadata);
        let conditions = given.status.as_ref().and_then(|it| it.conditions.clone());
        own.status.get_or_insert_default().conditions = conditions;
        crate::certificates::stamp(own, was, now);
    }
    object
}

fn stamp(object: &mut AnyObject, old: &dyn Erased, now: Timestamp) {
    let was = old.as_any().downcast_ref::<CertificateSigningRequest>();
    let own = (**object).as_any_mut().downcast_mut::<CertificateSigningRequest>();
    if let Some(own) = own {
        crate::certificates::stamp(own, was, now);
    }
}

/// Whether the author read what is there now.
fn expect_version(
    kind: &AnyKind,
    key: &ObjectKey,
    given: &meta::ObjectMeta,
    row: &Row,
) -> Result<(), Failure> {
    let uid = given.uid.as_deref().unwrap_or_default();
    if !uid.is_empty() && uid != row.meta.uid {
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            kind.key(&key.namespace, &key.name),
            row.meta.uid
        );
        return Err(Failure::conflict(kind, &key.name, &why));
    }
    match given.resource_version.as_deref().unwrap_or_default() {
        "" | "0" if CONDITIONAL.contains(&(kind.group.as_str(), kind.plural.as_str())) => {
            let mut errors = Errors::default();
            let why = "must be specified for an update";
            errors.invalid("metadata.resourceVersion", "0x0", why);
            refuse(kind, &key.name, &errors)
        }
        "" | "0" => Ok(()),
        text => match text.parse::<u64>() {
            Ok(revision) if revision == row.revision => Ok(()),
            Ok(_) => Err(Failure::modified(kind, &key.name)),
            Err(_) => {
                let mut errors = Errors::default();
                let value = api::field::quoted(text);
                errors.invalid("metadata.resourceVersion", value, "must be a number");
                refuse(kind, &key.name, &errors)
            }
        },
    }
}

fn expect_deleted(
    kind: &AnyKind,
    key: &ObjectKey,
    row: &Row,
    asked: &Deleting,
) -> Result<(), Failure> {
    let refused = |why: String| {
        let qualified = match kind.group.as_str() {
            "" => kind.kind.clone(),
            group => format!("{}.{group}", kind.kind),
        };
        let message =
            format!("Operation cannot be fulfilled on {qualified} {:?}: {why}", &*key.name);
        Err(Failure::new(409, "Conflict", message).about(kind, &key.name))
    };
    if let Some(uid) = asked.uid.as_deref().filter(|it| *it != row.meta.uid) {
        return refused(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            row.meta.uid
        ));
    }
    let revision = row.revision.to_string();
    if let Some(asked) = asked.revision.as_deref().filter(|it| *it != revision) {
        return refused(format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
        ));
    }
    Ok(())
}

/// What is wrong with an object in itself and was not so before. What an earlier version of a rule let in must not keep
/// anybody from changing the rest of the object, or from letting it go.
fn new_errors(kind: &KindRef, part: Part, object: &dyn Erased, old: &dyn Erased) -> Errors {
    let wrong = |it: &dyn Erased| {
        let mut errors = Errors::default();
        metadata::validate(kind, it.metadata(), &mut errors);
        if !matches!(part, Part::Status | Part::Finalize) {
            kind.rules.validate(it, &mut errors);
        }
        if matches!(part, Part::Status | Part::Both) {
            kind.rules.validate_status(it, old, &mut errors);
        }
        errors
    };
    let mut errors = wrong(object);
    if !errors.0.is_empty() {
        let before = wrong(old);
        errors.0.retain(|it| !before.0.contains(it));
    }
    errors
}

pub(crate) fn refuse(kind: &AnyKind, name: &str, errors: &Errors) -> Result<(), Failure> {
    if errors.is_empty() {
        return Ok(());
    }
    // What two rules find is said once.
    let mut once = Errors::default();
    for error in &errors.0 {
        if !once.0.contains(error) {
            once.0.push(error.clone());
        }
    }
    Err(Failure::invalid(kind, name, &once))
}

/// The row of an object, or the sentence that there is none.
pub(crate) fn existing<'a>(
    view: &'a View,
    kind: &AnyKind,
    key: &ObjectKey,
) -> Result<&'a Arc<Row>, Failure> {
    view.row(kind, key).ok_or_else(|| Failure::not_found(kind, &key.name))
}
