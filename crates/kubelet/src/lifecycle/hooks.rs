//! postStart and preStop. Upstream: `pkg/kubelet/lifecycle/handlers.go`.

use crate::{kubelet::Shared, probe};
use api::core::v1::{Container, LifecycleHandler};
use std::time::Duration;

/// A hook's command may take as long as the grace allows; a request is given up earlier.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Upstream asks without end; so that nothing waits for ever, an hour is the most.
const COMMAND_SECONDS_MAX: i64 = 3600;

pub(super) async fn run(
    shared: &Shared,
    container: &Container,
    id: &str,
    address: &str,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let ran = shared.runtime.execute(id, command, COMMAND_SECONDS_MAX).await;
        return match ran.map_err(|error| error.to_string())? {
            (0, _) => Ok(()),
            (code, output) => Err(format!(
                "command terminated with exit code {code}: {}",
                String::from_utf8_lossy(&output)
            )),
        };
    }
    if let Some(action) = &hook.http_get {
        let url = probe::Url::of(action, container, address)?;
        return super::get(&url, REQUEST_TIMEOUT).await;
    }
    if let Some(sleep) = &hook.sleep {
        stdx::sleep(Duration::from_secs(sleep.seconds.unsigned_abs())).await;
        return Ok(());
    }
    Err("invalid handler".to_owned())
}
