//! Gives each node its share of the cluster's pod addresses, once.
//!
//! Upstream: `pkg/controller/nodeipam/ipam/range_allocator.go` (1.36). No bitmap is kept: which shares are taken is
//! what the nodes say.

use api::{
    Object,
    core::v1::{Node, NodeSpec},
};
use std::{collections::BTreeSet, net::Ipv4Addr};
use stdx::Timestamp;
use world::{Change, Controller, Event, ObjectKey, Plan, Touched, Watch, World};

/// Upstream's `--node-cidr-mask-size`.
const NODE_BITS: u8 = 24;

/// A range of IPv4 addresses: the first, and how many bits all share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub base: Ipv4Addr,
    pub bits: u8,
}

/// Its keys are nodes.
pub struct NodeIpam {
    pods: Range,
}

impl NodeIpam {
    /// `pods`: the addresses of all pods of the cluster.
    pub fn new(pods: Range) -> NodeIpam {
        NodeIpam { pods }
    }
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn reporter(&self) -> &'static str {
        "cidrAllocator"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Node>(), Watch::mapped::<Node>(waiting_when_one_goes)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = world.get::<Node>(key) else { return plan };
        if share_of(&node).is_some() {
            return plan;
        }
        match free(world, self.pods) {
            Some(share) => {
                let mut node = node.to_owned();
                let spec = node.spec.get_or_insert_with(NodeSpec::default);
                spec.pod_cidr = Some(share.clone());
                spec.pod_cidrs = Some(vec![share]);
                plan.write([Change::update(node)]);
            }
            None => {
                let name = node.name();
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                plan.event(Event::normal(&*node, "CIDRNotAvailable", message));
            }
        }
        plan
    }
}

/// A share becomes free for those that wait for one.
fn waiting_when_one_goes(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    if touched.new.is_some() {
        return Vec::new();
    }
    let waiting = world.all::<Node>().filter(|it| share_of(it).is_none());
    waiting.map(|it| ObjectKey::of(&*it)).collect()
}

/// What a node has.
pub fn share_of(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|it| !it.is_empty())
}

/// The first share that no node has, `10.244.1.0/24`.
pub fn free(world: &World, pods: Range) -> Option<String> {
    let taken: BTreeSet<String> =
        world.all::<Node>().filter_map(|it| share_of(&it).map(str::to_owned)).collect();
    let bits = pods.bits.max(NODE_BITS);
    let shares = 0..1u64 << (bits - pods.bits);
    let size = 1u64 << (32 - bits);
    let share = |n: u64| {
        let first = u64::from(u32::from(pods.base)) + n * size;
        let base = Ipv4Addr::from(u32::try_from(first).ok()?);
        Some(format!("{base}/{bits}"))
    };
    shares.filter_map(share).find(|it| !taken.contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;
    use expect_test::expect;

    fn node(name: &str, share: &str) -> String {
        format!(
            "---\n{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, spec: {{podCIDR: '{share}'}}}}\n"
        )
    }

    const PODS: Range = Range { base: Ipv4Addr::new(10, 244, 0, 0), bits: 23 };

    #[test]
    fn each_node_has_a_share_of_its_own() {
        let mut known = world(&[node("a", "10.244.0.0/24"), node("b", "")].concat());
        let controller = NodeIpam::new(PODS);
        let plan = controller.reconcile(&known, &ObjectKey::cluster("b"), Timestamp::default());
        known = known.after(&plan, Timestamp::default());
        let b = known.cluster::<Node>("b").unwrap();
        assert_eq!(share_of(&b), Some("10.244.1.0/24"));
        let again = controller.reconcile(&known, &ObjectKey::cluster("b"), Timestamp::default());
        assert!(again.is_empty());
    }

    #[test]
    fn a_node_too_many_is_told_so() {
        let all = [node("a", "10.244.0.0/24"), node("b", "10.244.1.0/24"), node("c", "")].concat();
        let plan =
            NodeIpam::new(PODS).reconcile(&world(&all), &ObjectKey::cluster("c"), Timestamp(0));
        expect![[r#"
            event Normal CIDRNotAvailable Node c status is now: CIDRNotAvailable
        "#]]
        .assert_eq(&plan.to_string());
    }
}
