//! `v1` ResourceQuota: how much all objects of a namespace may use together.
//!
//! Upstream: `pkg/registry/core/resourcequota/strategy.go`.

mod usage;
mod validate;

pub use usage::{
    CountedKind, Usage, counted_kinds, covers, is_charged, missing, names_about, quota_usage, shown,
};

use crate::{
    field::Errors,
    k8s::{
        api::core::v1::{ResourceQuota, ResourceQuotaSpec},
        apimachinery::pkg::api::resource::Quantity,
    },
    kind::{Column, Kind, Names, Scope, Subresource},
    meta::{
        Exact,
        columns::{age, name, text},
        quantity,
    },
};
use std::collections::BTreeMap;

impl Kind for ResourceQuota {
    const NAMES: Names = Names {
        plural: "resourcequotas",
        singular: "resourcequota",
        short: &["quota"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/resourcequotas";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status];
    const COLUMNS: &'static [Column<ResourceQuota>] = &[
        name(),
        text("Request", "What is used of what may be used.", |quota, _| {
            printed(quota, |it| !it.starts_with("limits.")).into()
        }),
        text("Limit", "The same of limits.", |quota, _| {
            printed(quota, |it| it.starts_with("limits.")).into()
        }),
        age(),
    ];

    fn default(&mut self) {
        quantity::canonicalize(&mut self.spec.get_or_insert_default().hard);
        let status = self.status.get_or_insert_default();
        quantity::canonicalize(&mut status.hard);
        quantity::canonicalize(&mut status.used);
    }

    fn prepare_create(&mut self) {
        self.status = Some(Default::default());
    }

    fn prepare_update(&mut self, old: &ResourceQuota) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status(&mut self, old: &ResourceQuota) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate(self, errors);
    }

    fn warnings(&self, old: Option<&ResourceQuota>) -> Vec<String> {
        let hard = self.spec.as_ref().and_then(|it| it.hard.as_ref());
        let Some(hard) = hard.filter(|_| old.is_none()) else { return Vec::new() };
        let mut warnings = Vec::new();
        for name in ["cpu", "memory", "ephemeral-storage"] {
            let (mut request, limit) = (format!("requests.{name}"), format!("limits.{name}"));
            if !hard.contains_key(&request) && name != "ephemeral-storage" {
                request = name.to_owned();
            }
            let (Some(least), Some(most)) = (hard.get(&request), hard.get(&limit)) else {
                continue;
            };
            if Exact::of(least) > Exact::of(most) {
                let (least, most) = (&least.0, &most.0);
                warnings.push(format!(
                    "ResourceQuota {request} ({least}) should be less than {limit} ({most})"
                ));
            }
        }
        warnings
    }

    fn validate_update(&self, old: &ResourceQuota, errors: &mut Errors) {
        validate::validate_update(self, old, errors);
    }

    fn validate_status(&self, _old: &ResourceQuota, errors: &mut Errors) {
        validate::validate_status(self, errors);
    }
}

/// `cpu: 1/2, pods: 3/10`
fn printed(quota: &ResourceQuota, which: fn(&str) -> bool) -> String {
    let Some(status) = &quota.status else { return String::new() };
    let used = |name: &str| status.used.as_ref().and_then(|it| it.get(name));
    let hard = status.hard.iter().flatten().filter(|it| which(it.0));
    let one = |(name, hard): (&String, &Quantity)| {
        format!("{name}: {}/{}", used(name).map_or("0", |it| it.0.as_str()), hard.0)
    };
    hard.map(one).collect::<Vec<_>>().join(", ")
}

/// What may be used, by resource.
pub fn hard(quota: &ResourceQuota) -> BTreeMap<String, Quantity> {
    quota.spec.as_ref().and_then(|it| it.hard.clone()).unwrap_or_default()
}

/// The spec, or an empty one.
pub fn spec(quota: &ResourceQuota) -> ResourceQuotaSpec {
    quota.spec.clone().unwrap_or_default()
}
