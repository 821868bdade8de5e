//! May they: administrators may everything, everyone else nothing.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/responsewriters/errors.go` for the words.

use crate::{target::Target, user::User};
use api::{Failure, failure::Details};

/// Its members may do everything, whatever the rules say.
const MASTERS: &str = "system:masters";

pub(crate) fn allows(user: &User) -> bool {
    user.inside || user.is_in(MASTERS)
}

/// The refusal for a request about objects.
pub(crate) fn forbidden(user: &User, verb: &str, target: &Target) -> Failure {
    let kind = &target.kind;
    let resource = match target.subresource.as_str() {
        "" => kind.plural.clone(),
        subresource => format!("{}/{subresource}", kind.plural),
    };
    let place = match target.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = format!(
        "User {:?} cannot {verb} resource {resource:?} in API group {:?} {place}",
        user.name, kind.group
    );
    Failure::forbidden(kind, &target.name, &why)
}

/// The refusal for any other path.
pub(crate) fn forbidden_path(user: &User, method: &str, path: &str) -> Failure {
    let verb = method.to_lowercase();
    let message = format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name);
    let details = Some(Box::new(Details::default()));
    Failure { details, ..Failure::new(403, "Forbidden", message) }
}
