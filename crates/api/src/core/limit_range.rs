//! `v1` LimitRange: what one pod, container or claim of a namespace may ask for, and what it gets
//! when it asks for nothing.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, SetDefaults_LimitRangeItem.

mod enforce;
mod validate;

pub use enforce::{apply_defaults, violations_of_claim, violations_of_pod};

use crate::{
    field::Errors,
    k8s::api::core::v1::{LimitRange, LimitRangeItem},
    kind::{Column, Kind, Names, Scope, Subresource},
    meta::{
        columns::{created_at, name},
        quantity,
    },
};

pub(crate) const CONTAINER: &str = "Container";
pub(crate) const POD: &str = "Pod";
pub(crate) const CLAIM: &str = "PersistentVolumeClaim";

impl Kind for LimitRange {
    const NAMES: Names = Names {
        plural: "limitranges",
        singular: "limitrange",
        short: &["limits"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/limitranges";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const COLUMNS: &'static [Column<LimitRange>] = &[name(), created_at()];

    fn default(&mut self) {
        let items = self.spec.get_or_insert_default().limits.iter_mut();
        items.for_each(default_item);
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate(self, errors);
    }
}

/// A limit follows from the maximum; a request from the limit, or else from the minimum.
fn default_item(item: &mut LimitRangeItem) {
    for list in [
        &mut item.max,
        &mut item.min,
        &mut item.default,
        &mut item.default_request,
        &mut item.max_limit_request_ratio,
    ] {
        quantity::canonicalize(list);
    }
    if item.type_ != CONTAINER {
        return;
    }
    let limits = item.default.get_or_insert_default();
    for (name, amount) in item.max.iter().flatten() {
        limits.entry(name.clone()).or_insert_with(|| amount.clone());
    }
    let requests = item.default_request.get_or_insert_default();
    for (name, amount) in limits.iter().chain(item.min.iter().flatten()) {
        requests.entry(name.clone()).or_insert_with(|| amount.clone());
    }
}
