//! Where volume calls go: to the kubelet of this process, or over mutual TLS to the node that they name.

use anyhow::Result;
use api::core::{node::is_ready, v1::Node};
use apiserver::Server;
use client::{Client, calls};
use kubelet::Kubelet;
use std::{sync::Arc, time::Duration};
use stdx::BoxFuture;
use world::{CallFailure, Outcome, Place, VolumeCall};

/// A node that takes longer goes on; who asked asks again and hears what came of it.
const WAIT: Duration = Duration::from_secs(120);

pub(crate) struct Places {
    /// The name of this process's own node.
    pub(crate) node: String,
    pub(crate) kubelet: Option<Arc<Kubelet>>,
    pub(crate) server: Arc<Server>,
    pub(crate) client: Arc<dyn Client>,
}

impl Places {
    /// Any node that is well, where it does not matter which.
    fn any(&self) -> Option<String> {
        let world = self.client.world();
        let mut ready = world.all::<Node>().filter(|it| is_ready(it));
        ready.next().and_then(|it| it.metadata.name.clone())
    }

    async fn ask(&self, node: &str, call: &VolumeCall) -> Result<Outcome, CallFailure> {
        let body = calls::call(call).to_string().into();
        match self.server.ask_node(node, calls::PATH, body, WAIT).await {
            Ok((200, answer)) => calls::read_result(&answer),
            Ok((code, answer)) => {
                let said = String::from_utf8_lossy(&answer);
                let message = format!("ask node {node}: it answers {code}: {}", said.trim());
                Err(CallFailure { retry: true, unknown: true, message })
            }
            Err(failure) => {
                // Whoever is no node any more does nothing; all others may have heard it, now or when they were asked
                // before.
                let unknown = !failure.is_not_found();
                let message = format!("ask node {node}: {failure}");
                Err(CallFailure { retry: true, unknown, message })
            }
        }
    }
}

impl manager::Volumes for Places {
    fn call<'a>(
        &'a self,
        place: &'a Place,
        call: &'a VolumeCall,
    ) -> BoxFuture<'a, Result<Outcome, CallFailure>> {
        Box::pin(async move {
            let elsewhere = match (place, &self.kubelet) {
                (Place::Node(name), Some(_)) if *name == self.node => None,
                (Place::Node(name), _) => Some(name.clone()),
                (Place::Anywhere, Some(_)) => None,
                (Place::Anywhere, None) => match self.any() {
                    Some(name) => Some(name),
                    None => {
                        let message = "no node is ready that could be asked".to_owned();
                        return Err(CallFailure { retry: true, unknown: false, message });
                    }
                },
            };
            match (&self.kubelet, elsewhere) {
                (_, Some(name)) => self.ask(&name, call).await,
                (Some(kubelet), None) => kubelet.call(call).await,
                (None, None) => unreachable!("without a kubelet every place is elsewhere"),
            }
        })
    }
}
