//! A pod stays five minutes on a node that is not well, unless it says otherwise.
//!
//! Upstream: `plugin/pkg/admission/defaulttolerationseconds/admission.go`.

use super::{Act, Attempt, Plugin};
use api::{
    AnyObject, Failure,
    core::v1::{Pod, Toleration},
};

pub(super) const PLUGIN: Plugin = Plugin { name: "DefaultTolerationSeconds", admit };

/// Upstream's `--default-not-ready-toleration-seconds` and its twin.
const SECONDS: i64 = 300;

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let pod = object.and_then(|it| (**it).as_any_mut().downcast_mut::<Pod>());
    let is_written = matches!(attempt.act, Act::Create | Act::Update);
    let Some(spec) = pod.filter(|_| is_written).and_then(|it| it.spec.as_mut()) else {
        return Ok(());
    };
    for taint in TAINTS {
        let fits = |own: &Option<String>, wanted: &str| {
            own.as_deref().is_none_or(|it| it.is_empty() || it == wanted)
        };
        let tolerates = |it: &Toleration| fits(&it.key, taint) && fits(&it.effect, "NoExecute");
        if spec.tolerations.iter().flatten().any(tolerates) {
            continue;
        }
        spec.tolerations.get_or_insert_default().push(Toleration {
            key: Some(taint.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: Some(SECONDS),
            value: None,
        });
    }
    Ok(())
}
