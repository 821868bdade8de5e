//! The vocabulary: every API kind that the cluster speaks, and the rules that each kind keeps.
//!
//! One kind is one file. [`kinds`] is the list; routes, discovery, OpenAPI, printing, storage keys and
//! the world's tables are derived from it.
//!
//! **Invariant:** nothing here does IO, knows HTTP, or reads a clock.
#![forbid(unsafe_code)]

pub mod any;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod codec;
pub mod coordination;
pub mod core;
pub mod deletion;
pub mod discovery;
pub mod events;
pub mod failure;
pub mod field;
pub mod kind;
pub mod meta;
pub mod networking;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod scheduling;
pub mod schema;
pub mod storage;

pub use any::{AnyKind, AnyObject, Erased, GroupResource, KindRef};
pub use failure::Failure;
pub use field::Errors;
pub use k8s_openapi as k8s;
pub use kind::{Cell, Column, Format, Kind, Names, Object, Scope, Subresource};

use std::{any::TypeId, sync::LazyLock};

/// Every built-in kind, in the order of discovery.
pub fn kinds() -> &'static [KindRef] {
    static KINDS: LazyLock<Vec<KindRef>> = LazyLock::new(|| {
        vec![
            AnyKind::of::<core::v1::ConfigMap>().into(),
            AnyKind::of::<core::v1::Endpoints>().into(),
            AnyKind::of::<core::v1::Event>().into(),
            AnyKind::of::<core::v1::LimitRange>().into(),
            AnyKind::of::<core::v1::Namespace>().into(),
            AnyKind::of::<core::v1::Node>().into(),
            AnyKind::of::<core::v1::PersistentVolume>().into(),
            AnyKind::of::<core::v1::PersistentVolumeClaim>().into(),
            AnyKind::of::<core::v1::Pod>().into(),
            AnyKind::of::<core::v1::PodTemplate>().into(),
            AnyKind::of::<core::v1::ReplicationController>().into(),
            AnyKind::of::<core::v1::ResourceQuota>().into(),
            AnyKind::of::<core::v1::Secret>().into(),
            AnyKind::of::<core::v1::Service>().into(),
            AnyKind::of::<core::v1::ServiceAccount>().into(),
            AnyKind::of::<apps::v1::ControllerRevision>().into(),
            AnyKind::of::<apps::v1::DaemonSet>().into(),
            AnyKind::of::<apps::v1::Deployment>().into(),
            AnyKind::of::<apps::v1::ReplicaSet>().into(),
            AnyKind::of::<apps::v1::StatefulSet>().into(),
            AnyKind::of::<batch::v1::CronJob>().into(),
            AnyKind::of::<batch::v1::Job>().into(),
            AnyKind::of::<autoscaling::v2::HorizontalPodAutoscaler>().also("v1").into(),
            AnyKind::of::<certificates::v1::CertificateSigningRequest>().into(),
            AnyKind::of::<coordination::v1::Lease>().into(),
            AnyKind::of::<discovery::v1::EndpointSlice>().into(),
            AnyKind::of::<events::v1::Event>().into(),
            AnyKind::of::<networking::v1::IPAddress>().into(),
            AnyKind::of::<networking::v1::Ingress>().into(),
            AnyKind::of::<networking::v1::ServiceCIDR>().into(),
            AnyKind::of::<node::v1::RuntimeClass>().into(),
            AnyKind::of::<policy::v1::PodDisruptionBudget>().also("v1beta1").into(),
            AnyKind::of::<rbac::v1::ClusterRole>().into(),
            AnyKind::of::<rbac::v1::ClusterRoleBinding>().into(),
            AnyKind::of::<rbac::v1::Role>().into(),
            AnyKind::of::<rbac::v1::RoleBinding>().into(),
            AnyKind::of::<scheduling::v1::PriorityClass>().into(),
            AnyKind::of::<storage::v1::CSIDriver>().into(),
            AnyKind::of::<storage::v1::CSINode>().into(),
            AnyKind::of::<storage::v1::CSIStorageCapacity>().into(),
            AnyKind::of::<storage::v1::StorageClass>().also("v1beta1").into(),
            AnyKind::of::<storage::v1::VolumeAttachment>().into(),
            AnyKind::of::<storage::v1::VolumeAttributesClass>().into(),
        ]
    });
    &KINDS
}

/// The kind of a type.
pub fn kind_of<T: Kind>() -> &'static KindRef {
    kind_of_type(TypeId::of::<T>()).expect("every type with rules is in the list of kinds")
}

/// The kind of an object, if its type is built in.
pub fn kind_of_type(type_id: TypeId) -> Option<&'static KindRef> {
    static BY_TYPE: LazyLock<std::collections::HashMap<TypeId, &'static KindRef>> =
        LazyLock::new(|| {
            let typed = |it: &'static KindRef| Some((it.rules.type_id()?, it));
            kinds().iter().filter_map(typed).collect()
        });
    BY_TYPE.get(&type_id).copied()
}
