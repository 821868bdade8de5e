//! Makes volumes for claims, by the built-in classes; says who has to for the others.
//!
//! Upstream: `pv_controller.go`, provisionClaim; external-provisioner `controller.go`. The volume and
//! its claim are written bound to each other in one commit, and only after the volume exists.

mod nfs;

pub use nfs::NFS;
pub(crate) use nfs::handle as nfs_handle;

use api::{
    Object,
    core::{
        binding::{SELECTED_NODE, bound_pair},
        persistent_volume as volumes, persistent_volume_claim as claims,
        v1::{
            CSIPersistentVolumeSource, Node, NodeSelector, NodeSelectorRequirement,
            NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
            PersistentVolumeStatus, VolumeNodeAffinity,
        },
    },
    k8s::apimachinery::pkg::api::resource::Quantity,
    meta::{ObjectMeta, quantity},
    storage::{storage_class as classes, v1::StorageClass},
};
use std::{collections::BTreeMap, time::Duration};
use stdx::Timestamp;
use world::{
    CallFailure, Change, Controller, Event, ObjectKey, Outcome, Place, Plan, Touched, VolumeCall,
    Watch, World,
};

/// The provisioner of the built-in class `local`, which is also its CSI driver's name.
pub const LOCAL: &str = "local.csi.stanchion.dev";
/// On a claim: who makes its volume.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Holds a volume's object until its data is gone.
pub const PROVISIONER_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Why a claim waits is told for as long as it does: events are forgotten, and volumes come and go.
pub(crate) const SAY_AGAIN: Duration = Duration::from_secs(60);

pub struct VolumeProvisioner;

impl Controller for VolumeProvisioner {
    fn name(&self) -> &'static str {
        "volume-provisioner"
    }

    fn reporter(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<PersistentVolumeClaim>(), Watch::mapped::<StorageClass>(claims_of_class)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = world.get::<PersistentVolumeClaim>(key) else { return plan };
        let is_free = claims::volume_name(&claim).is_empty() && !claim.is_deleting();
        let class = claims::class(&claim).filter(|it| is_free && !it.is_empty());
        let Some(name) = class else { return plan };
        let Some(class) = world.cluster::<StorageClass>(name) else {
            // A class is also just a name: a volume of that name satisfies it.
            if world.free_volumes(&claim).next().is_none() {
                let mut message = format!("storageclass.storage.k8s.io {name:?} not found");
                say_why_none_fits(world, &claim, &mut message);
                plan.event(Event::warning(&*claim, "ProvisioningFailed", message));
                plan.requeue = Some(SAY_AGAIN);
            }
            return plan;
        };
        let waits = classes::waits_for_consumer(&class);
        let node = claim.annotation(SELECTED_NODE);
        if waits && node.is_none() || !waits && world.free_volumes(&claim).next().is_some() {
            return plan;
        }
        match class.provisioner.as_str() {
            "kubernetes.io/no-provisioner" => {
                let mut message = format!("class {name:?} makes no volumes");
                say_why_none_fits(world, &claim, &mut message);
                plan.event(Event::normal(&*claim, "FailedBinding", message));
                plan.requeue = Some(SAY_AGAIN);
            }
            LOCAL => provision(world, &claim, &class, node, &mut plan),
            NFS => provision_share(&claim, &class, node, &mut plan),
            other => ask_outside(&claim, other, &mut plan),
        }
        plan
    }

    fn returned(
        &self,
        world: &World,
        key: &ObjectKey,
        call: &VolumeCall,
        result: &Result<Outcome, CallFailure>,
        _now: Timestamp,
    ) -> Plan {
        let mut plan = Plan::default();
        let VolumeCall::Create { plugin, name, topology, .. } = call else { return plan };
        let claim = world.get::<PersistentVolumeClaim>(key);
        // The claim may be gone, be another of its name, or have got a volume meanwhile: then this one is nobody's, and
        // goes.
        let ours = |it: &str| it.is_empty() || it == name;
        let claim = claim.filter(|it| {
            volume_name(it) == *name && !it.is_deleting() && ours(claims::volume_name(it))
        });
        let class = claim.as_deref().and_then(claims::class);
        let class = class.and_then(|it| world.cluster::<StorageClass>(it));
        match (result, claim, class) {
            (Ok(outcome), Some(claim), Some(class)) => {
                let volume = volume(name, &claim, &class, outcome);
                let (volume, bound) = bound_pair(&volume, &claim);
                plan.write([Change::create_with_status(volume), Change::both(bound)]);
                let message = format!("Successfully provisioned volume {name}");
                plan.event(Event::normal(&*claim, "ProvisioningSucceeded", message));
            }
            (Ok(outcome), _, _) => {
                let place = place_of(&outcome.topology);
                let volume = ObjectKey::cluster(name);
                let (plugin, handle) = (plugin.clone(), outcome.handle.clone());
                plan.call(place, VolumeCall::Delete { plugin, volume, handle });
            }
            (Err(failure), Some(claim), class) => {
                let class = class.map_or_else(String::new, |it| it.name().to_owned());
                plan.event(provisioning_failed(&claim, &class, &failure.message));
                // A node that may have made the volume, or be about to, is asked until it says so: another one would
                // make a second.
                if claim.annotation(SELECTED_NODE).is_some() && !failure.unknown {
                    // This node cannot: the scheduler is to choose again.
                    let mut claim = claim.to_owned();
                    claim.metadata.annotations.get_or_insert_default().remove(SELECTED_NODE);
                    plan.write([Change::update(claim)]);
                }
            }
            // Perhaps it was made all the same. A directory of a share has another handle; nothing is in it yet.
            (Err(failure), None, _) if failure.unknown && plugin == LOCAL => {
                let (plugin, volume) = (plugin.clone(), ObjectKey::cluster(name));
                let handle = name.clone();
                plan.call(place_of(topology), VolumeCall::Delete { plugin, volume, handle });
            }
            (Err(_), None, _) => {}
        }
        plan
    }
}

pub(crate) fn say_why_none_fits(
    world: &World,
    claim: &PersistentVolumeClaim,
    message: &mut String,
) {
    let why = world.why_none_fits(claim);
    if !why.is_empty() {
        message.push_str("; no volume satisfies the claim: ");
        message.push_str(&why);
    }
}

fn claims_of_class(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let table = world.table::<PersistentVolumeClaim>();
    let rows = table.into_iter().flat_map(|it| it.indexed("unbound", &touched.key.name));
    rows.map(|it| it.key()).collect()
}

fn provision(
    world: &World,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: Option<&str>,
    plan: &mut Plan,
) {
    // Without a chosen node any ready one will do: the first by name.
    let ready = || world.all::<Node>().find(|it| api::core::node::is_ready(it));
    let node = match node {
        Some(node) => node.to_owned(),
        None => match ready() {
            Some(node) => node.name().to_owned(),
            None => return,
        },
    };
    let parameters = class.parameters.clone().unwrap_or_default();
    let topology = BTreeMap::from([(HOSTNAME.to_owned(), node.clone())]);
    make(claim, class, Place::Node(node), parameters, topology, plan);
}

/// A directory of a share is reached from everywhere, and made wherever the share can be mounted.
fn provision_share(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: Option<&str>,
    plan: &mut Plan,
) {
    let place = node.map_or(Place::Anywhere, |it| Place::Node(it.to_owned()));
    match nfs::parameters(claim, class, &volume_name(claim)) {
        Ok(parameters) => make(claim, class, place, parameters, BTreeMap::new(), plan),
        Err(why) => {
            plan.event(provisioning_failed(claim, class.name(), &why));
            plan.requeue = Some(SAY_AGAIN);
        }
    }
}

fn make(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    place: Place,
    parameters: BTreeMap<String, String>,
    topology: BTreeMap<String, String>,
    plan: &mut Plan,
) {
    let message = format!(
        "External provisioner is provisioning volume for claim \"{}\"",
        ObjectKey::of(claim)
    );
    plan.event(Event::normal(claim, "Provisioning", message));
    // Whatever comes of the call, it is known where it went.
    let at = topology.get(HOSTNAME).map(|it| (SELECTED_NODE, it.as_str()));
    note(claim, noted(&class.provisioner).into_iter().chain(at), plan);
    plan.call(
        place,
        VolumeCall::Create {
            plugin: class.provisioner.clone(),
            claim: ObjectKey::of(claim),
            name: volume_name(claim),
            bytes: claims::requested(claim).units().unsigned_abs(),
            access_modes: claims::access_modes(claim).to_vec(),
            block: claims::volume_mode(claim) == "Block",
            parameters,
            topology,
        },
    );
}

fn provisioning_failed(claim: &PersistentVolumeClaim, class: &str, why: &str) -> Event {
    let message = format!("failed to provision volume with StorageClass {class:?}: {why}");
    Event::warning(claim, "ProvisioningFailed", message)
}

/// Somebody else's provisioner: it watches for claims that name it.
fn ask_outside(claim: &PersistentVolumeClaim, provisioner: &str, plan: &mut Plan) {
    note(claim, noted(provisioner), plan);
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    plan.event(Event::normal(claim, "ExternalProvisioning", message));
}

/// Who is to make a claim's volume, as annotations.
fn noted(provisioner: &str) -> [(&str, &str); 2] {
    [PROVISIONER, PROVISIONER_BETA].map(|key| (key, provisioner))
}

fn note<'a>(
    claim: &PersistentVolumeClaim,
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    plan: &mut Plan,
) {
    let missing: Vec<(&str, &str)> =
        annotations.into_iter().filter(|(key, it)| claim.annotation(key) != Some(*it)).collect();
    if missing.is_empty() {
        return;
    }
    let mut claim = claim.clone();
    let annotations = claim.metadata.annotations.get_or_insert_default();
    annotations.extend(missing.into_iter().map(|(key, it)| (key.to_owned(), it.to_owned())));
    plan.write([Change::update(claim)]);
}

/// `pvc-<uid of the claim>`: two claims never meet in one volume, whatever their names.
fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.uid())
}

fn place_of(topology: &BTreeMap<String, String>) -> Place {
    topology.get(HOSTNAME).map_or(Place::Anywhere, |it| Place::Node(it.clone()))
}

/// The object for a volume that exists.
fn volume(
    name: &str,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    outcome: &Outcome,
) -> PersistentVolume {
    let requirement = |(key, value): (&String, &String)| NodeSelectorRequirement {
        key: key.clone(),
        operator: "In".to_owned(),
        values: Some(vec![value.clone()]),
    };
    let terms = vec![NodeSelectorTerm {
        match_expressions: Some(outcome.topology.iter().map(requirement).collect()),
        match_fields: None,
    }];
    let affinity =
        VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: terms }) };
    let parameters = class.parameters.as_ref();
    let fs_type = parameters.and_then(|it| it.get("csi.storage.k8s.io/fstype").cloned());
    let fs_type = outcome.context.get("fsType").cloned().or(fs_type);
    let capacity: Quantity = quantity::binary(outcome.bytes);
    let is_share = class.provisioner == NFS;
    let csi = || CSIPersistentVolumeSource {
        driver: class.provisioner.clone(),
        volume_handle: outcome.handle.clone(),
        fs_type: (claims::volume_mode(claim) != "Block").then_some(fs_type).flatten(),
        volume_attributes: (!outcome.context.is_empty()).then(|| outcome.context.clone()),
        ..CSIPersistentVolumeSource::default()
    };
    let mut annotations = BTreeMap::from([(PROVISIONED_BY.to_owned(), class.provisioner.clone())]);
    if is_share {
        annotations.insert(nfs::HANDLE.to_owned(), outcome.handle.clone());
    }
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations: Some(annotations),
            finalizers: Some(vec![PROVISIONER_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(claims::access_modes(claim).to_vec()),
            capacity: Some(BTreeMap::from([("storage".to_owned(), capacity)])),
            nfs: is_share.then(|| nfs::source(outcome)),
            csi: (!is_share).then(csi),
            mount_options: class.mount_options.clone(),
            node_affinity: (!outcome.topology.is_empty()).then_some(affinity),
            persistent_volume_reclaim_policy: Some(classes::reclaim_policy(class).to_owned()),
            storage_class_name: Some(class.name().to_owned()),
            volume_mode: Some(claims::volume_mode(claim).to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: Some(PersistentVolumeStatus {
            phase: Some(volumes::PENDING.to_owned()),
            ..PersistentVolumeStatus::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;

    const YAML: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: local.csi.stanchion.dev
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c, namespace: default, uid: u-c, annotations: {volume.kubernetes.io/selected-node: n1}}
spec: {storageClassName: local, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

    fn key() -> ObjectKey {
        ObjectKey::new("default", "c")
    }

    fn create(world: &World) -> Option<VolumeCall> {
        let plan = VolumeProvisioner.reconcile(world, &key(), Timestamp(0));
        plan.steps.into_iter().find_map(|it| match it {
            world::Step::Call(Place::Node(node), call) if node == "n1" => Some(call),
            _ => None,
        })
    }

    fn outcome() -> Outcome {
        Outcome {
            handle: "pvc-u-c".to_owned(),
            bytes: 1 << 30,
            topology: BTreeMap::from([(HOSTNAME.to_owned(), "n1".to_owned())]),
            ..Outcome::default()
        }
    }

    #[test]
    fn says_why_no_volume_of_the_class_satisfies_the_claim() {
        let world = world(
            "
apiVersion: v1
kind: PersistentVolume
metadata: {name: other}
spec: {storageClassName: fast, capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /o}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: readers}
spec: {storageClassName: manual, capacity: {storage: 200Gi}, accessModes: [ReadOnlyMany], hostPath: {path: /r}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: small}
spec: {storageClassName: manual, capacity: {storage: 100Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /s}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c, namespace: default, uid: u-c}
spec: {storageClassName: manual, accessModes: [ReadWriteOnce], resources: {requests: {storage: 150Gi}}}
",
        );
        let plan = VolumeProvisioner.reconcile(&world, &key(), Timestamp(0));
        let [event] = &plan.events[..] else { panic!("one event") };
        assert_eq!(
            event.message,
            "storageclass.storage.k8s.io \"manual\" not found; no volume satisfies the claim: \
             small: requested PV is too small (100Gi), readers: incompatible accessMode"
        );
        assert_eq!(plan.requeue, Some(SAY_AGAIN));
    }

    #[test]
    fn says_nothing_of_a_volume_before_it_exists() {
        let world = world(YAML);
        let plan = VolumeProvisioner.reconcile(&world, &key(), Timestamp(0));
        assert!(!plan.changes().any(|it| it.kind.kind == "PersistentVolume"), "{plan}");
        let call = create(&world).expect("a call at the node");
        let plan = VolumeProvisioner.returned(&world, &key(), &call, &Ok(outcome()), Timestamp(0));
        let world = world.after(&plan, Timestamp(0));
        let claim = world.get::<PersistentVolumeClaim>(&key()).unwrap();
        let volume = world.cluster::<PersistentVolume>("pvc-u-c").unwrap();
        assert_eq!(claims::phase(&claim), "Bound");
        assert!(volumes::is_bound_to(&volume, &claim));
        assert_eq!(volumes::capacity(&volume).units(), 1 << 30);
        assert_eq!(plan.steps.len(), 1, "one commit");
    }

    #[test]
    fn waits_until_a_node_is_chosen() {
        let yaml = YAML.replace(", annotations: {volume.kubernetes.io/selected-node: n1}", "");
        let plan = VolumeProvisioner.reconcile(&world(&yaml), &key(), Timestamp(0));
        assert!(plan.is_empty(), "{plan}");
    }

    #[test]
    fn a_volume_whose_claim_went_meanwhile_is_deleted_again() {
        let call = create(&world(YAML)).unwrap();
        let class_only = world(YAML.split("---\n").next().unwrap());
        let plan =
            VolumeProvisioner.returned(&class_only, &key(), &call, &Ok(outcome()), Timestamp(0));
        assert!(matches!(
            plan.steps.as_slice(),
            [world::Step::Call(Place::Node(_), VolumeCall::Delete { .. })]
        ));
        let namesake = world(&YAML.replace("uid: u-c", "uid: u-other"));
        let plan =
            VolumeProvisioner.returned(&namesake, &key(), &call, &Ok(outcome()), Timestamp(0));
        assert!(!plan.changes().any(|it| it.is_write()), "never the namesake's: {plan}");
    }

    fn no_answer() -> Result<Outcome, CallFailure> {
        let message = "ask node n1: it does not answer".to_owned();
        Err(CallFailure { retry: true, unknown: true, message })
    }

    /// The answer of n1 was lost, n2 was asked, and the volume that n1 had made was nobody's.
    #[test]
    fn a_node_that_does_not_answer_is_asked_again_and_no_other() {
        let world = world(YAML);
        let call = create(&world).unwrap();
        let plan = VolumeProvisioner.returned(&world, &key(), &call, &no_answer(), Timestamp(0));
        assert!(plan.to_string().contains("ProvisioningFailed"), "{plan}");
        let world = world.after(&plan, Timestamp(0));
        assert_eq!(create(&world), Some(call));
    }

    #[test]
    fn what_a_node_may_have_made_for_a_claim_that_went_is_deleted() {
        let call = create(&world(YAML)).unwrap();
        let class_only = world(YAML.split("---\n").next().unwrap());
        let plan =
            VolumeProvisioner.returned(&class_only, &key(), &call, &no_answer(), Timestamp(0));
        let delete = VolumeCall::Delete {
            plugin: LOCAL.to_owned(),
            volume: ObjectKey::cluster("pvc-u-c"),
            handle: "pvc-u-c".to_owned(),
        };
        assert_eq!(plan.steps.len(), 1, "{plan}");
        assert!(
            matches!(&plan.steps[0], world::Step::Call(Place::Node(node), it) if node == "n1" && *it == delete),
            "{plan}"
        );
    }

    #[test]
    fn where_a_volume_is_made_at_once_is_written_down_before() {
        let ready = |name: &str| {
            format!(
                "
apiVersion: v1
kind: Node
metadata: {{name: {name}}}
status: {{conditions: [{{type: Ready, status: 'True'}}]}}
---"
            )
        };
        let yaml = YAML
            .replace("WaitForFirstConsumer", "Immediate")
            .replace(", annotations: {volume.kubernetes.io/selected-node: n1}", "");
        let before = world(&format!("{}{yaml}", ready("n1")));
        let plan = VolumeProvisioner.reconcile(&before, &key(), Timestamp(0));
        let [world::Step::Write(_), world::Step::Call(Place::Node(node), _)] = &plan.steps[..]
        else {
            panic!("{plan}")
        };
        assert_eq!(node, "n1");
        let claim = before.after(&plan, Timestamp(0)).get::<PersistentVolumeClaim>(&key()).unwrap();
        assert_eq!(claim.annotation(SELECTED_NODE), Some("n1"));
        assert_eq!(claim.annotation(PROVISIONER), Some(LOCAL));
        // Another node comes first by now.
        let yaml = yaml
            .replace("uid: u-c", "uid: u-c, annotations: {volume.kubernetes.io/selected-node: n1}");
        assert!(create(&world(&format!("{}{}{yaml}", ready("n0"), ready("n1")))).is_some());
    }

    #[test]
    fn a_failure_is_told_and_frees_the_choice_of_node() {
        let world = world(YAML);
        let call = create(&world).unwrap();
        let failure = CallFailure { retry: true, unknown: false, message: "no space".to_owned() };
        let plan = VolumeProvisioner.returned(&world, &key(), &call, &Err(failure), Timestamp(0));
        assert!(plan.to_string().contains("ProvisioningFailed"), "{plan}");
        let world = world.after(&plan, Timestamp(0));
        let claim = world.get::<PersistentVolumeClaim>(&key()).unwrap();
        assert_eq!(claim.annotation(SELECTED_NODE), None);
        assert_eq!(claims::volume_name(&claim), "");
    }

    const SHARE: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: shared}
provisioner: nfs.stanchion.dev
parameters: {server: 10.0.0.1, share: /nfs, archiveOnDelete: 'false'}
mountOptions: [hard, nfsvers=4.1]
reclaimPolicy: Delete
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c, namespace: default, uid: u-c}
spec: {storageClassName: shared, accessModes: [ReadWriteMany], resources: {requests: {storage: 100Mi}}}
";

    #[test]
    fn a_directory_of_a_share_becomes_an_nfs_volume() {
        let world = world(SHARE);
        let plan = VolumeProvisioner.reconcile(&world, &key(), Timestamp(0));
        let call = plan.steps.iter().find_map(|it| match it {
            world::Step::Call(Place::Anywhere, call) => Some(call.clone()),
            _ => None,
        });
        let call = call.unwrap_or_else(|| panic!("{plan}"));
        let VolumeCall::Create { parameters, .. } = &call else { panic!("{call:?}") };
        assert_eq!(parameters["directory"], "default-c-pvc-u-c");
        assert_eq!(parameters["mountOptions"], "hard,nfsvers=4.1");
        let outcome = Outcome {
            handle: "the handle".to_owned(),
            bytes: 100 << 20,
            context: [("server", "10.0.0.1"), ("path", "/nfs/default-c-pvc-u-c")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Outcome::default()
        };
        let plan = VolumeProvisioner.returned(&world, &key(), &call, &Ok(outcome), Timestamp(0));
        let world = world.after(&plan, Timestamp(0));
        let volume = world.cluster::<PersistentVolume>("pvc-u-c").unwrap();
        assert_eq!(volume.annotation(PROVISIONED_BY), Some(NFS));
        assert_eq!(volume.annotation(nfs::HANDLE), Some("the handle"));
        let spec = volume.spec.as_ref().unwrap();
        let source = spec.nfs.as_ref().unwrap();
        assert_eq!((&*source.server, &*source.path), ("10.0.0.1", "/nfs/default-c-pvc-u-c"));
        assert!(spec.csi.is_none() && spec.node_affinity.is_none());
        assert_eq!(spec.mount_options.as_deref().unwrap(), ["hard", "nfsvers=4.1"]);
        let claim = world.get::<PersistentVolumeClaim>(&key()).unwrap();
        assert_eq!(claims::volume_name(&claim), "pvc-u-c");
    }

    #[test]
    fn a_class_with_an_unknown_parameter_makes_nothing_and_says_why() {
        let world = world(&SHARE.replace("archiveOnDelete", "archiveOnDelet"));
        let plan = VolumeProvisioner.reconcile(&world, &key(), Timestamp(0));
        assert!(plan.steps.is_empty(), "{plan}");
        let [event] = &plan.events[..] else { panic!("one event") };
        assert_eq!(event.reason, "ProvisioningFailed");
        assert!(
            event.message.starts_with(
                "failed to provision volume with StorageClass \"shared\": unknown parameter \"archiveOnDelet\""
            ),
            "{}",
            event.message
        );
    }
}
