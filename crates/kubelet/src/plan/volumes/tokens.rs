//! Service account tokens among the files of a projected volume: which, for whom, and who may read them.
//!
//! Upstream: `pkg/volume/projected/projected.go`, collectData; `pkg/volume/util/util.go`, FsUserFrom (1.36).

use api::core::v1::{Pod, ProjectedVolumeSource};

/// One file that is a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile {
    /// Below the volume.
    pub path: String,
    /// Empty: the API server.
    pub audience: String,
    pub expiration_s: i64,
    pub mode: u32,
    /// The user that owns it; root if none.
    pub owner: Option<u32>,
}

/// Upstream defaults `expirationSeconds` to it.
const LIFE_S: i64 = 3600;
const MODE: i32 = 0o644;

pub(super) fn tokens(pod: &Pod, source: &ProjectedVolumeSource) -> Vec<TokenFile> {
    let owner = user(pod);
    let group = pod.spec.as_ref().and_then(|it| it.security_context.as_ref()?.fs_group);
    // Whoever the pod says it is reads it, and nobody else.
    let mode = match owner.is_some() || group.is_some() {
        true => 0o600,
        false => u32::try_from(source.default_mode.unwrap_or(MODE)).unwrap_or(0o644),
    };
    let parts = source.sources.iter().flatten();
    let tokens = parts.filter_map(|it| it.service_account_token.as_ref());
    let file = |it: &api::core::v1::ServiceAccountTokenProjection| TokenFile {
        path: it.path.clone(),
        audience: it.audience.clone().unwrap_or_default(),
        expiration_s: it.expiration_seconds.unwrap_or(LIFE_S),
        mode,
        owner,
    };
    tokens.map(file).collect()
}

/// The user as whom all containers run, if it is one and the pod names it.
fn user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|it| it.run_as_user);
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut users =
        all.map(|it| it.security_context.as_ref().and_then(|it| it.run_as_user).or(of_pod)).chain(
            spec.ephemeral_containers
                .iter()
                .flatten()
                .map(|it| it.security_context.as_ref().and_then(|it| it.run_as_user).or(of_pod)),
        );
    let first = users.next()??;
    users.all(|it| it == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(spec: Value) -> TokenFile {
        let mut spec = spec;
        spec["volumes"] = json!([{"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        ]}}]);
        let pod: Pod =
            api::codec::from_value(&json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let source = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0].projected.clone();
        tokens(&pod, &source.unwrap()).remove(0)
    }

    #[test]
    fn a_token_is_for_the_user_that_the_pod_runs_as() {
        let plain = of(json!({"containers": [{"name": "a"}]}));
        assert_eq!((plain.mode, plain.owner), (0o644, None));
        let one = of(json!({
            "securityContext": {"runAsUser": 7}, "containers": [{"name": "a"}, {"name": "b"}],
        }));
        assert_eq!((one.mode, one.owner), (0o600, Some(7)));
        let several = of(json!({
            "securityContext": {"runAsUser": 7, "fsGroup": 9},
            "containers": [{"name": "a", "securityContext": {"runAsUser": 8}}, {"name": "b"}],
        }));
        assert_eq!((several.mode, several.owner), (0o600, None));
    }
}
