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
