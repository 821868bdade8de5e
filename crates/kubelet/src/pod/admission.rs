//! Whether this node takes a pod: asked once, before anything of it is made.

use crate::{
    kubelet::Shared,
    plan::{
        Verdict,
        admit::{Abilities, admit},
        resize::{self, Refusal},
    },
    static_pods::runtime_uid,
};
use api::{
    Object,
    core::{
        pod::is_terminal,
        v1::{Node, Pod},
    },
};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};
use world::{Typed, World};

/// Uids of the pods that this node has taken. Bounded by the workers there are.
#[derive(Default)]
pub(crate) struct Admitted(Mutex<BTreeSet<String>>);

impl Admitted {
    /// Takes a pod, or says why not. One at a time: each is judged beside those that were taken before.
    pub(super) fn ask(&self, shared: &Shared, world: &World, pod: &Pod) -> Result<(), Verdict> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.contains(pod.uid()) {
            return Ok(());
        }
        // A node without its object cannot judge; it is about to be registered again.
        let node = world.cluster::<Node>(&shared.facts.node_name);
        if let Some(node) = node.filter(|_| !was_taken(pod)) {
            let here = world.indexed::<Pod>("node", node.name());
            let others = here.filter(|it| {
                runtime_uid(it) != pod.uid()
                    && !is_terminal(it)
                    && (was_taken(it) || taken.contains(runtime_uid(it)))
            });
            let others: Vec<Typed<Pod>> = others.collect();
            let abilities = Abilities { app_armor: shared.facts.app_armor };
            admit(pod, &node, others.iter().map(|it| &**it), abilities)?;
        }
        taken.insert(pod.uid().to_owned());
        Ok(())
    }

    /// Whether a pod that runs here may have what its spec asks for now.
    pub(super) fn ask_resize(
        &self,
        shared: &Shared,
        world: &World,
        pod: &Pod,
    ) -> Result<(), Refusal> {
        let Some(node) = world.cluster::<Node>(&shared.facts.node_name) else { return Ok(()) };
        let here = world.indexed::<Pod>("node", node.name()).filter(|it| !is_terminal(it));
        let other = |it: &Typed<Pod>| was_taken(it) && runtime_uid(it) != pod.uid();
        let others: Vec<Typed<Pod>> = here.filter(other).collect();
        let others: Vec<&Pod> = others.iter().map(|it| &**it).collect();
        resize::judge(pod, &node, &others)
    }

    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// By this node, before its server was restarted.
fn was_taken(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|it| it.start_time.is_some())
}
