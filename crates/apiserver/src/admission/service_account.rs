//! A pod runs as somebody: `default` unless it says otherwise. Names only, no tokens.
//!
//! Upstream: `plugin/pkg/admission/serviceaccount/admission.go`.

use super::{Act, Attempt, Plugin};
use api::{AnyObject, Failure, core::v1::Pod};

pub(super) const PLUGIN: Plugin = Plugin { name: "ServiceAccount", admit };

const DEFAULT: &str = "default";

/// Pods that a node made up by itself carry this.
const MIRROR: &str = "kubernetes.io/config.mirror";

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let pod = object.and_then(|it| (**it).as_any_mut().downcast_mut::<Pod>());
    let Some(pod) = pod.filter(|_| attempt.act == Act::Create) else { return Ok(()) };
    if pod.metadata.annotations.as_ref().is_some_and(|it| it.contains_key(MIRROR)) {
        return Ok(());
    }
    let Some(spec) = pod.spec.as_mut() else { return Ok(()) };
    let named = [&spec.service_account_name, &spec.service_account].into_iter().flatten();
    let name = named.into_iter().find(|it| !it.is_empty()).cloned();
    let name = name.unwrap_or_else(|| DEFAULT.to_owned());
    spec.service_account = Some(name.clone());
    spec.service_account_name = Some(name);
    Ok(())
}
