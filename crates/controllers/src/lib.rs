//! Deciders: one file a controller, each a pure function from a world and a key to a plan.
//!
//! No tokio, no clock, no randomness below: the same world gives the same plan.
#![forbid(unsafe_code)]

pub mod bootstrap_tokens;
pub mod cluster_role_aggregation;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoint_slice;
pub mod endpoint_slice_mirroring;
pub mod endpoints;
pub mod garbage_collector;
pub mod job;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
mod ownership;
pub mod pod_garbage_collector;
mod pod_template;
pub mod replica_set;
pub mod replication_controller;
pub mod resource_quota;
pub mod root_ca_publisher;
pub mod service_account;
pub mod service_account_tokens;
pub mod service_cidr;
mod service_pods;
pub mod stateful_set;
pub mod taint_eviction;
#[cfg(test)]
mod testing;
pub mod volume_binder;
pub mod volume_expander;
pub mod volume_protection;
pub mod volume_provisioner;
pub mod volume_reclaimer;

use api::{Kind, meta::OwnerReference};
use std::sync::Arc;
use world::Controller;

/// Every controller, by name. `authority`: the certificate, as PEM, that clients in pods trust. `pods`: the addresses of
/// all pods; without, nodes get no share of any. `ended_most`: so many pods that have ended are kept; zero: all.
pub fn controllers(
    authority: &str,
    pods: Option<node_ipam::Range>,
    ended_most: usize,
) -> Vec<Arc<dyn Controller>> {
    let shares = pods.map(|it| Arc::new(node_ipam::NodeIpam::new(it)) as Arc<dyn Controller>);
    let mut all: Vec<Arc<dyn Controller>> = vec![
        Arc::new(bootstrap_tokens::BootstrapTokens),
        Arc::new(cluster_role_aggregation::ClusterRoleAggregation),
        Arc::new(cron_job::CronJobController),
        Arc::new(daemon_set::DaemonSetController),
        Arc::new(deployment::DeploymentController),
        Arc::new(disruption::Disruption),
        Arc::new(endpoint_slice::EndpointSliceController),
        Arc::new(endpoint_slice_mirroring::EndpointSliceMirroring),
        Arc::new(endpoints::EndpointsController),
        Arc::new(garbage_collector::GarbageCollector),
        Arc::new(job::JobController),
        Arc::new(namespace::NamespaceController),
        Arc::new(node_lifecycle::NodeLifecycle),
        Arc::new(pod_garbage_collector::PodGarbageCollector::new(ended_most)),
        Arc::new(replica_set::ReplicaSetController),
        Arc::new(replication_controller::ReplicationControllers),
        Arc::new(resource_quota::ResourceQuotaController),
        Arc::new(root_ca_publisher::RootCaPublisher::new(authority)),
        Arc::new(service_account::ServiceAccountController),
        Arc::new(service_account_tokens::ServiceAccountTokens),
        Arc::new(service_cidr::ServiceCidrs),
        Arc::new(stateful_set::StatefulSetController),
        Arc::new(taint_eviction::TaintEviction),
        Arc::new(volume_binder::VolumeBinder),
        Arc::new(volume_expander::VolumeExpander),
        Arc::new(volume_protection::ClaimProtection),
        Arc::new(volume_protection::VolumeProtection),
        Arc::new(volume_provisioner::VolumeProvisioner),
        Arc::new(volume_reclaimer::VolumeReclaimer),
    ];
    all.extend(shares);
    all
}

/// The reference that makes `owner` the controller of an object.
pub(crate) fn owner<T: Kind>(owner: &T) -> OwnerReference {
    OwnerReference {
        api_version: T::API_VERSION.to_owned(),
        kind: T::KIND.to_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
