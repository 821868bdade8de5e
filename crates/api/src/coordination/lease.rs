//! `coordination.k8s.io/v1` Lease.

use crate::{
    k8s::api::coordination::v1::Lease,
    kind::{Kind, Names, Scope, Subresource},
};

impl Kind for Lease {
    const NAMES: Names = Names { plural: "leases", singular: "lease", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/leases";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
}
