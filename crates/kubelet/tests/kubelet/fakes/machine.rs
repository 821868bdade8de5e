//! What exists on a machine in memory, and what must never be.

use kubelet::runtime::{Container, Observed, Result, RuntimeError, State};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(super) struct Machine {
    pub(super) next: u32,
    /// Pod uid → what exists of it.
    pub(super) pods: BTreeMap<String, Observed>,
    pub(super) names: BTreeMap<String, (String, String)>,
    pub(super) images: BTreeSet<String>,
    /// The next question for an image is not answered.
    pub(super) is_silent: bool,
    pub(super) log: Vec<String>,
    /// Mutating calls so far.
    pub(super) calls: usize,
}

impl Machine {
    /// What must never be.
    pub(super) fn check(&self) {
        for (uid, pod) in &self.pods {
            let ready = pod.sandboxes.iter().filter(|it| it.ready).count();
            assert!(ready <= 1, "pod {uid} has {ready} sandboxes: {pod:#?}");
            let mut living = BTreeSet::new();
            for it in pod.containers.iter().filter(|it| it.state == State::Running) {
                assert!(
                    living.insert(&it.name),
                    "container {} of {uid} runs twice: {pod:#?}",
                    it.name
                );
                let sandbox = pod.sandboxes.iter().find(|sandbox| sandbox.id == it.sandbox);
                assert!(sandbox.is_some_and(|it| it.ready), "{} runs without a sandbox", it.name);
            }
        }
    }

    pub(super) fn id(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{}", self.next)
    }

    pub(super) fn of_sandbox(&mut self, id: &str) -> Result<(String, &mut Observed)> {
        let has = |it: &Observed| it.sandboxes.iter().any(|it| it.id == id);
        let found = self.pods.iter_mut().find(|(_, it)| has(it));
        found.map(|(uid, it)| (uid.clone(), it)).ok_or_else(|| missing("sandbox"))
    }

    pub(super) fn runs(&self, id: &str) -> bool {
        let mut all = self.pods.values().flat_map(|it| &it.containers);
        all.any(|it| it.id == id && it.state == State::Running)
    }

    pub(super) fn of_container(&mut self, id: &str) -> Result<(String, &mut Container)> {
        let all = self
            .pods
            .iter_mut()
            .flat_map(|(uid, pod)| pod.containers.iter_mut().map(move |it| (uid.clone(), it)));
        let found = all.into_iter().find(|(_, it)| it.id == id);
        found.ok_or_else(|| missing("container"))
    }
}

fn missing(what: &'static str) -> RuntimeError {
    RuntimeError {
        operation: what,
        message: "not found".to_owned(),
        not_found: true,
        is_late: false,
    }
}
