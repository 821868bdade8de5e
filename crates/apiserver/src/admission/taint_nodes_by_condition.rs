//! A new node gets no pods before it is known to be well.
//!
//! Upstream: `plugin/pkg/admission/nodetaint/admission.go`.

use super::{Act, Attempt, Plugin};
use api::{
    AnyObject, Failure,
    core::v1::{Node, Taint},
};

pub(super) const PLUGIN: Plugin = Plugin { name: "TaintNodesByCondition", admit };

const NOT_READY: &str = "node.kubernetes.io/not-ready";

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let node = object.and_then(|it| (**it).as_any_mut().downcast_mut::<Node>());
    let Some(node) = node.filter(|_| attempt.act == Act::Create) else { return Ok(()) };
    let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
    if !taints.iter().any(|it| it.key == NOT_READY && it.effect == "NoSchedule") {
        taints.push(Taint {
            key: NOT_READY.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Default::default()
        });
    }
    Ok(())
}
