//! Says of each range of Services' addresses whether it is in use, and keeps one that is deleted until no Service has an
//! address of it alone.
//!
//! Upstream: `pkg/controller/servicecidrs/servicecidrs_controller.go` (1.36). Deviation: upstream waits 10 s before a
//! range goes, because its allocators may lag; here the commit that gives an address checks the range that it is of.

use api::{
    Object,
    k8s::apimachinery::pkg::apis::meta::v1::Condition,
    meta,
    networking::{
        ip_address,
        service_cidr::{FINALIZER, Prefix, READY, prefixes, ready},
        v1::{IPAddress, ServiceCIDR},
    },
};
use std::net::IpAddr;
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Touched, Watch, World};

/// Its keys are ranges.
pub struct ServiceCidrs;

const HELD: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

impl Controller for ServiceCidrs {
    fn name(&self) -> &'static str {
        "service-cidrs-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let of_addresses = Watch::mapped::<IPAddress>(going);
        vec![Watch::of::<ServiceCIDR>(), Watch::mapped::<ServiceCIDR>(going), of_addresses]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(cidr) = world.get::<ServiceCIDR>(key) else { return plan };
        let mut cidr = cidr.to_owned();
        let is_held = cidr.has_finalizer(FINALIZER);
        if cidr.is_deleting() {
            if may_go(world, &cidr) {
                if is_held {
                    let finalizers = cidr.metadata.finalizers.iter_mut();
                    finalizers.for_each(|it| it.retain(|it| it != FINALIZER));
                    plan.write([Change::update(cidr)]);
                }
            } else if set(&mut cidr, "False", "Terminating", HELD, now) {
                plan.status = Some(Change::status(cidr));
            }
            return plan;
        }
        if !is_held {
            let finalizers = cidr.metadata.finalizers.get_or_insert_default();
            finalizers.push(FINALIZER.to_owned());
            plan.write([Change::update(cidr.clone())]);
        }
        let unusable = prefixes(&cidr).find(|it| !is_usable(*it));
        let changed = match unusable {
            None => set(&mut cidr, "True", "", "Kubernetes Service CIDR is ready", now),
            Some(it) => {
                let why =
                    format!("no address of {it} is given out: it takes IPv4 with 8 to 30 bits");
                set(&mut cidr, "False", "NotSupported", &why, now)
            }
        };
        if changed {
            plan.status = Some(Change::status(cidr));
        }
        plan
    }
}

/// What the door gives addresses out of.
fn is_usable(range: Prefix) -> bool {
    range.is_ipv4() && (8..=30).contains(&range.bits)
}

/// Ranges that wait until they may go.
fn going(world: &World, _touched: &Touched) -> Vec<ObjectKey> {
    let all = world.all::<ServiceCIDR>().filter(|it| it.is_deleting());
    all.map(|it| ObjectKey::of(&*it)).collect()
}

/// Whether every address of a Service that is of this range is of another one too.
fn may_go(world: &World, cidr: &ServiceCIDR) -> bool {
    let others: Vec<Prefix> = world
        .all::<ServiceCIDR>()
        .filter(|it| it.name() != cidr.name())
        .flat_map(|it| prefixes(&it).collect::<Vec<_>>())
        .collect();
    let alone: Vec<Prefix> =
        prefixes(cidr).filter(|it| !others.iter().any(|other| other.covers(*it))).collect();
    let is_only_here = |address: IpAddr| {
        let here = alone.iter().any(|it| it.contains(address));
        here && !others.iter().any(|it| it.contains(address))
    };
    alone.is_empty()
        || !world
            .all::<IPAddress>()
            .filter(|it| ip_address::is_of_services(it))
            .filter_map(|it| it.name().parse().ok())
            .any(is_only_here)
}

/// True if it was otherwise before.
fn set(cidr: &mut ServiceCIDR, status: &str, reason: &str, message: &str, now: Timestamp) -> bool {
    let before = ready(cidr);
    let same =
        |it: &Condition| (&*it.status, &*it.reason, &*it.message) == (status, reason, message);
    if before.is_some_and(same) {
        return false;
    }
    let since = before.filter(|it| it.status == status).map(|it| it.last_transition_time.clone());
    let condition = Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.unwrap_or_else(|| meta::time(now)),
        observed_generation: None,
    };
    let conditions = cidr.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|it| it.type_ != READY);
    conditions.push(condition);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{load, world};

    fn cidr(name: &str, range: &str, deleted: bool) -> String {
        let deleted = if deleted { ", deletionTimestamp: '1970-01-01T00:00:00Z'" } else { "" };
        format!(
            "---\n{{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {{name: {name}, finalizers: [{FINALIZER}]{deleted}}}, spec: {{cidrs: ['{range}']}}}}\n"
        )
    }

    fn address(name: &str) -> String {
        format!(
            "---\n{{apiVersion: networking.k8s.io/v1, kind: IPAddress, metadata: {{name: {name}, labels: {{{}: {}}}}}, spec: {{parentRef: {{resource: services, name: s, namespace: a}}}}}}\n",
            ip_address::MANAGED_BY,
            ip_address::OF_SERVICES
        )
    }

    fn plan(world: &World, name: &str) -> String {
        ServiceCidrs.reconcile(world, &ObjectKey::cluster(name), Timestamp(0)).to_string()
    }

    fn is_ready(world: &World) -> Option<String> {
        let cidr = world.cluster::<ServiceCIDR>("x").unwrap();
        ready(&cidr).map(|it| format!("{} {}", it.status, it.reason))
    }

    #[test]
    fn a_range_is_held_and_ready() {
        let mut world = world(
            "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: x}, spec: {cidrs: [10.9.0.0/24]}}",
        );
        for expected in ["write\n  update ServiceCIDR x\nstatus ServiceCIDR x\n", "nothing to do\n"]
        {
            assert_eq!(plan(&world, "x"), expected);
            let next = ServiceCidrs.reconcile(&world, &ObjectKey::cluster("x"), Timestamp(0));
            world = world.after(&next, Timestamp(0));
        }
        assert_eq!(is_ready(&world).as_deref(), Some("True "));
    }

    #[test]
    fn a_range_of_which_nothing_is_given_out_does_not_say_that_it_is_ready() {
        let world = world(&cidr("x", "2001:db8::/64", false));
        let plan = ServiceCidrs.reconcile(&world, &ObjectKey::cluster("x"), Timestamp(0));
        let after = world.after(&plan, Timestamp(0));
        assert_eq!(is_ready(&after).as_deref(), Some("False NotSupported"));
    }

    #[test]
    fn a_range_goes_when_no_service_needs_it() {
        let mut world = world(&[cidr("x", "10.9.0.0/24", true), address("10.9.0.7")].concat());
        let held = ServiceCidrs.reconcile(&world, &ObjectKey::cluster("x"), Timestamp(0));
        assert_eq!(
            is_ready(&world.after(&held, Timestamp(0))).as_deref(),
            Some("False Terminating")
        );
        // Another one has the address too.
        load(&mut world, &cidr("wide", "10.9.0.0/16", false));
        assert_eq!(plan(&world, "x"), "write\n  update ServiceCIDR x\n");
        // Or nobody has it.
        let free = self::world(&[cidr("x", "10.9.0.0/24", true), address("10.8.0.7")].concat());
        assert_eq!(plan(&free, "x"), "write\n  update ServiceCIDR x\n");
    }
}
