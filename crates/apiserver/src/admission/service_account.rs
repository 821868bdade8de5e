//! A pod runs as somebody: `default` unless it says otherwise. Its account has to be there, gives it the
//! names of secrets to pull images with, and a volume with a token, the cluster's certificate and the
//! name of the namespace, unless the pod or the account will have none.
//!
//! Upstream: `plugin/pkg/admission/serviceaccount/admission.go`. Deviation: accounts annotated with
//! `kubernetes.io/enforce-mountable-secrets` restrict nothing.

use super::{Act, Attempt, Plugin};
use api::{
    AnyObject, Failure,
    core::{
        pod::references,
        v1::{Container, Pod, PodSpec, ProjectedVolumeSource, ServiceAccount, Volume, VolumeMount},
    },
};
use world::ObjectKey;

pub(super) const PLUGIN: Plugin = Plugin { name: "ServiceAccount", admit };

pub(crate) const DEFAULT: &str = "default";

/// Pods that a node made up by itself carry this.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";

/// An hour and some: the sign by which the door knows the tokens that kubelets renew.
const LIFE_S: i64 = 3607;

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let pod = object.and_then(|it| (**it).as_any_mut().downcast_mut::<Pod>());
    let Some(pod) = pod.filter(|_| attempt.act == Act::Create) else { return Ok(()) };
    let refuse = |why: &str| Err(Failure::forbidden(attempt.kind, &attempt.key.name, why));
    if pod.metadata.annotations.as_ref().is_some_and(|it| it.contains_key(MIRROR)) {
        return match mirror(pod) {
            Some(why) => refuse(why),
            None => Ok(()),
        };
    }
    let Some(spec) = pod.spec.as_mut() else { return Ok(()) };
    let named = [&spec.service_account_name, &spec.service_account].into_iter().flatten();
    let name = named.into_iter().find(|it| !it.is_empty()).cloned();
    let name = name.unwrap_or_else(|| DEFAULT.to_owned());
    let namespace = &*attempt.key.namespace;
    let account = attempt.view.world.get::<ServiceAccount>(&ObjectKey::new(namespace, &name));
    let Some(account) = account else {
        return refuse(&format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        ));
    };
    spec.service_account = Some(name.clone());
    spec.service_account_name = Some(name);
    let mounts = spec.automount_service_account_token.or(account.automount_service_account_token);
    if mounts.unwrap_or(true) {
        mount(spec, || format!("{VOLUME}{}", attempt.server.config.entropy.suffix(5)));
    }
    if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
        spec.image_pull_secrets = account.image_pull_secrets.clone().filter(|it| !it.is_empty());
    }
    Ok(())
}

/// What keeps a pod from being a node's own.
fn mirror(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    if spec.service_account_name.as_ref().is_some_and(|it| !it.is_empty()) {
        return Some("a mirror pod may not reference service accounts");
    }
    if !references::secrets(pod).is_empty() {
        return Some("a mirror pod may not reference secrets");
    }
    let volumes = spec.volumes.iter().flatten().filter_map(|it| it.projected.as_ref());
    let mut parts = volumes.flat_map(|it| it.sources.iter().flatten());
    let tokens = parts.any(|it| it.service_account_token.is_some());
    tokens.then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

/// Mounts the account's files into every container that has nothing else at their place.
fn mount(spec: &mut PodSpec, new_name: impl Fn() -> String) {
    let volumes = spec.volumes.iter().flatten();
    let known = volumes.map(|it| &it.name).find(|it| it.starts_with(VOLUME)).cloned();
    let has_volume = known.is_some();
    let name = known.unwrap_or_else(new_name);
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    let mut is_needed = false;
    for container in containers {
        is_needed |= mount_one(container, &name);
    }
    if is_needed && !has_volume {
        let projected = Some(files());
        let volume = Volume { name, projected, ..Volume::default() };
        spec.volumes.get_or_insert_default().push(volume);
    }
}

fn mount_one(container: &mut Container, name: &str) -> bool {
    let mounts = container.volume_mounts.get_or_insert_default();
    if mounts.iter().any(|it| it.mount_path == MOUNT) {
        return false;
    }
    mounts.push(VolumeMount {
        name: name.to_owned(),
        mount_path: MOUNT.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    true
}

fn files() -> ProjectedVolumeSource {
    use api::core::v1::{
        ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
        ObjectFieldSelector, ServiceAccountTokenProjection, VolumeProjection,
    };
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(LIFE_S),
        audience: None,
    };
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![KeyToPath {
            key: "ca.crt".to_owned(),
            path: "ca.crt".to_owned(),
            mode: None,
        }]),
        optional: None,
    };
    let namespace = DownwardAPIProjection {
        items: Some(vec![DownwardAPIVolumeFile {
            path: "namespace".to_owned(),
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: "metadata.namespace".to_owned(),
            }),
            ..DownwardAPIVolumeFile::default()
        }]),
    };
    ProjectedVolumeSource {
        default_mode: Some(0o644),
        sources: Some(vec![
            VolumeProjection { service_account_token: Some(token), ..Default::default() },
            VolumeProjection { config_map: Some(authority), ..Default::default() },
            VolumeProjection { downward_api: Some(namespace), ..Default::default() },
        ]),
    }
}
