//! What every object has: its metadata, and the small languages around it.

pub(crate) mod absent;
pub(crate) mod addresses;
pub(crate) mod columns;
pub(crate) mod difference;
pub mod int_or_percent;
pub mod names;
pub mod quantity;
pub mod selector;
pub mod validate;

pub use crate::k8s::apimachinery::pkg::apis::meta::v1::{
    Condition, LabelSelector, LabelSelectorRequirement, MicroTime, ObjectMeta, OwnerReference, Time,
};
pub use quantity::Exact;
pub use selector::Selector;

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use stdx::Timestamp;

/// What a row of the world keeps decoded: enough to select, own, collect and protect.
/// managedFields and annotations stay in the bytes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub generation: i64,
    pub labels: BTreeMap<String, String>,
    #[serde(rename = "ownerReferences")]
    pub owners: Vec<Owner>,
    pub finalizers: Vec<String>,
    #[serde(rename = "creationTimestamp", deserialize_with = "timestamp")]
    pub created: Option<Timestamp>,
    #[serde(rename = "deletionTimestamp", deserialize_with = "timestamp")]
    pub deletion: Option<Timestamp>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    pub deletion_grace_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

impl Meta {
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|it| it.controller)
    }
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.as_deref().and_then(Timestamp::parse))
}

/// A count as statuses hold it: nothing instead of zero.
pub fn counted(count: i32) -> Option<i32> {
    Some(count).filter(|it| *it != 0)
}

/// The generation after `old`'s, one more if what counts has changed.
pub(crate) fn next_generation(new: &mut ObjectMeta, old: &ObjectMeta, changed: bool) {
    new.generation = old.generation.map(|it| it + i64::from(changed)).or(Some(1));
}

/// The API's Time from ours.
pub fn time(at: Timestamp) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(at.seconds()).unwrap_or_default())
}

/// The API's MicroTime from ours.
pub fn micro_time(at: Timestamp) -> MicroTime {
    MicroTime(k8s_openapi::jiff::Timestamp::from_microsecond(at.0).unwrap_or_default())
}

/// Our time from the API's.
pub fn timestamp_of(time: &Time) -> Timestamp {
    Timestamp(time.0.as_microsecond())
}

/// How `kubectl get` prints an age: `5s`, `3m20s`, `2d`. Upstream: apimachinery duration.HumanDuration.
pub fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    let Some(since) = since else { return "<unknown>".to_owned() };
    let seconds = now.since(since).as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        pair(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        pair(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 24 * 8 {
        pair(hours / 24, "d", hours % 24, "h")
    } else if hours < 24 * 365 * 2 {
        format!("{}d", hours / 24)
    } else if hours < 24 * 365 * 8 {
        pair(hours / 24 / 365, "y", hours / 24 % 365, "d")
    } else {
        format!("{}y", hours / 24 / 365)
    }
}
