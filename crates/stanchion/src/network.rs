//! Brings the pod network and the runtime together: neither knows the other.

use ::network::Network;
use runtime::{NetworkError, PodAttachment, PodNetwork};
use std::net::IpAddr;
use stdx::BoxFuture;

pub(crate) struct Interfaces(pub(crate) Network);

impl PodNetwork for Interfaces {
    fn attach<'a>(
        &'a self,
        pod: &'a PodAttachment,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, NetworkError>> {
        Box::pin(async move {
            let pid = u32::try_from(pod.pid)?;
            Ok(vec![self.0.attach(&pod.sandbox, pid).await?])
        })
    }

    fn detach<'a>(&'a self, sandbox: &'a str) -> BoxFuture<'a, Result<(), NetworkError>> {
        Box::pin(async move { Ok(self.0.detach(sandbox).await?) })
    }
}

/// For `down`: interfaces go all at once in the end, so a sandbox that stops has nothing to give back.
pub(crate) struct Nothing;

impl PodNetwork for Nothing {
    fn attach<'a>(
        &'a self,
        pod: &'a PodAttachment,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, NetworkError>> {
        Box::pin(async move { Err(format!("attach {}: no pod is started here", pod.name).into()) })
    }

    fn detach<'a>(&'a self, _sandbox: &'a str) -> BoxFuture<'a, Result<(), NetworkError>> {
        Box::pin(async { Ok(()) })
    }
}
