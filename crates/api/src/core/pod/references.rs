//! What a pod names besides its claims: Secrets and ConfigMaps of its namespace.
//!
//! Upstream: `pkg/api/pod/util.go`, VisitPodSecretNames and VisitPodConfigmapNames.

use crate::k8s::api::core::v1::{EnvFromSource, EnvVar, Pod, Volume};

/// Names of the Secrets that the pod uses: its own, not those of its persistent volumes.
pub fn secrets(pod: &Pod) -> Vec<&str> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut names: Vec<&str> =
        spec.image_pull_secrets.iter().flatten().map(|it| it.name.as_str()).collect();
    each_environment(pod, |variables, sources| {
        let keys =
            variables.iter().filter_map(|it| it.value_from.as_ref()?.secret_key_ref.as_ref());
        names.extend(keys.map(|it| it.name.as_str()));
        names.extend(sources.iter().filter_map(|it| Some(it.secret_ref.as_ref()?.name.as_str())));
    });
    for volume in spec.volumes.iter().flatten() {
        of_volume(volume, &mut names);
    }
    names.retain(|it| !it.is_empty());
    names
}

/// Names of the ConfigMaps that the pod uses.
pub fn config_maps(pod: &Pod) -> Vec<&str> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut names: Vec<&str> = Vec::new();
    each_environment(pod, |variables, sources| {
        let keys =
            variables.iter().filter_map(|it| it.value_from.as_ref()?.config_map_key_ref.as_ref());
        names.extend(keys.map(|it| it.name.as_str()));
        let maps = sources.iter().filter_map(|it| Some(it.config_map_ref.as_ref()?.name.as_str()));
        names.extend(maps);
    });
    for volume in spec.volumes.iter().flatten() {
        names.extend(volume.config_map.iter().map(|it| it.name.as_str()));
        let parts = volume.projected.iter().flat_map(|it| it.sources.iter().flatten());
        names.extend(parts.filter_map(|it| Some(it.config_map.as_ref()?.name.as_str())));
    }
    names.retain(|it| !it.is_empty());
    names
}

fn each_environment<'a>(pod: &'a Pod, mut look: impl FnMut(&'a [EnvVar], &'a [EnvFromSource])) {
    let Some(spec) = &pod.spec else { return };
    for it in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        look(it.env.as_deref().unwrap_or_default(), it.env_from.as_deref().unwrap_or_default());
    }
    for it in spec.ephemeral_containers.iter().flatten() {
        look(it.env.as_deref().unwrap_or_default(), it.env_from.as_deref().unwrap_or_default());
    }
}

fn of_volume<'a>(volume: &'a Volume, names: &mut Vec<&'a str>) {
    names.extend(volume.azure_file.iter().map(|it| it.secret_name.as_str()));
    names.extend(volume.secret.iter().filter_map(|it| it.secret_name.as_deref()));
    let references = [
        volume.cephfs.as_ref().and_then(|it| it.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|it| it.secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|it| it.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|it| it.secret_ref.as_ref()),
        volume.iscsi.as_ref().and_then(|it| it.secret_ref.as_ref()),
        volume.storageos.as_ref().and_then(|it| it.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|it| &it.secret_ref),
        volume.csi.as_ref().and_then(|it| it.node_publish_secret_ref.as_ref()),
    ];
    names.extend(references.into_iter().flatten().map(|it| it.name.as_str()));
    let parts = volume.projected.iter().flat_map(|it| it.sources.iter().flatten());
    names.extend(parts.filter_map(|it| Some(it.secret.as_ref()?.name.as_str())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::from_value;
    use serde_json::json;

    #[test]
    fn finds_what_is_named_anywhere_in_a_pod() {
        let pod: Pod = from_value(&json!({"metadata": {"name": "p"}, "spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{
                "name": "c", "envFrom": [{"secretRef": {"name": "from"}}],
                "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "a"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "b"}}},
                ],
            }],
            "volumes": [
                {"name": "s", "secret": {"secretName": "volume"}},
                {"name": "p", "projected": {"sources": [
                    {"secret": {"name": "part"}}, {"configMap": {"name": "kube-root-ca.crt"}},
                ]}},
            ],
        }}))
        .unwrap();
        assert_eq!(secrets(&pod), ["pull", "key", "from", "volume", "part"]);
        assert_eq!(config_maps(&pod), ["map", "kube-root-ca.crt"]);
    }
}
