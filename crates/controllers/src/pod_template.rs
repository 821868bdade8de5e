//! Pods made from a template, by whoever owns them.
//!
//! Upstream: `pkg/controller/controller_utils.go` (1.36), GetPodFromTemplate.

use crate::owner;
use api::{
    Kind,
    core::v1::{Pod, PodTemplateSpec},
    meta::ObjectMeta,
};
use world::{ObjectKey, World};

/// A pod of this template with a name that nobody has.
pub(crate) fn pod<O: Kind>(world: &World, by: &O, template: &PodTemplateSpec, nth: usize) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let prefix = format!("{}-", by.name());
    Pod {
        metadata: ObjectMeta {
            name: Some(fresh_name(world, by, &prefix, nth)),
            generate_name: Some(prefix),
            namespace: by.metadata().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner(by)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// A name that no pod has, found without chance: it hangs on who asks, on the world's revision and on
/// how many the owner asks for at once.
fn fresh_name<O: Kind>(world: &World, by: &O, prefix: &str, nth: usize) -> String {
    // A name has room for 63 characters where it becomes a host name.
    let prefix = prefix.get(..58).unwrap_or(prefix);
    let seed = hash(by.uid().as_bytes(), world.revision);
    let mut tries = (nth as u64) << 16;
    loop {
        let name = format!("{prefix}{}", letters(hash(&tries.to_le_bytes(), seed)));
        if world.row_of::<Pod>(&ObjectKey::new(by.namespace(), &name)).is_none() {
            return name;
        }
        tries += 1;
    }
}

/// FNV-1a, its bits stirred so that neighbours differ in every letter.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325 ^ seed, step);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// Five letters that make no words.
fn letters(mut number: u64) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut next = || {
        let letter = LETTERS[(number % 27) as usize];
        number /= 27;
        char::from(letter)
    };
    (0..5).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;
    use api::apps::v1::ReplicaSet;

    #[test]
    fn pods_of_one_template_have_names_of_their_own() {
        let world = world(
            "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web, namespace: ns, uid: u},
              spec: {selector: {matchLabels: {a: b}}}}",
        );
        let set = world.get::<ReplicaSet>(&ObjectKey::new("ns", "web")).unwrap();
        let name = |nth| pod(&world, &*set, &PodTemplateSpec::default(), nth).metadata.name;
        let mut names: Vec<_> = (0..500).map(name).collect();
        assert_eq!(name(7), name(7), "the same world gives the same plan");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 500);
    }
}
