//! Names as pods shorten them: `web-0.nginx` for `web-0.nginx.default.svc.cluster.local`.
//!
//! A resolver completes such a name by `search` of its resolv.conf. busybox's nslookup, since 1.29, does so only with
//! names without a dot, and asks for `web-0.nginx.` itself. Upstream's DNS then says that there is no such name.

use super::{Answer, Zone, answer};
use api::core::{
    pod::is_terminal,
    v1::{Namespace, Pod},
};
use hickory_proto::{
    op::Query,
    rr::{Name, RecordType},
};
use std::net::IpAddr;
use world::{ObjectKey, World};

/// Dots from which on a name is asked for as it is: `ndots` of pods.
const DOTS: usize = 5;

/// The name that a pod at `asker` would get to by its resolv.conf, if it is there and has an address, or stands for
/// another name. Only for questions about addresses.
pub(crate) fn meant(world: &World, zone: &Zone, question: &Query, asker: IpAddr) -> Option<Name> {
    let short = question.name();
    let fits = matches!(question.query_type(), RecordType::A | RecordType::AAAA);
    if !fits || short.iter().count() > DOTS || short.is_root() {
        return None;
    }
    let asker = asker.to_string();
    let mut pods = world.indexed::<Pod>("address", &asker);
    let pod = pods.find(|it| {
        let of_host = it.spec.as_ref().and_then(|it| it.host_network).unwrap_or(false);
        !of_host && !is_terminal(it)
    })?;
    let namespace = pod.metadata.namespace.as_deref()?;
    world.row_of::<Namespace>(&ObjectKey::cluster(namespace))?;
    let searches: [&[&str]; 3] = [&[namespace, "svc"], &["svc"], &[]];
    searches.into_iter().find_map(|labels| {
        let suffix = zone.name(labels)?;
        let name = short.clone().append_name(&suffix).ok()?;
        let found = answer(world, zone, &Query::query(name.clone(), RecordType::A));
        matches!(found, Answer::Records { .. } | Answer::Alias(_)).then_some(name)
    })
}
