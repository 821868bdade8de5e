//! postStart and preStop. Upstream: `pkg/kubelet/lifecycle/handlers.go`.

use crate::{
    kubelet::Shared,
    plan::describe,
    probe,
    runtime::{Container as Seen, State},
};
use api::{
    Object,
    core::v1::{Container, LifecycleHandler, Pod},
};
use futures_util::StreamExt;
use std::time::Duration;
use world::Event;

/// A hook's command may take as long as the grace allows; a request is given up earlier.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Upstream asks without end; so that nothing waits for ever, an hour is the most.
const COMMAND_SECONDS_MAX: i64 = 3600;

/// Runs it to its end; what went wrong, as upstream words it.
pub(super) async fn run(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    id: &str,
    address: &str,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    let of = format!("for Container {:?} in Pod {:?} failed", container.name, describe(pod));
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = format!("[{}]", command.join(" "));
        let failed = |error: String, output: &[u8]| {
            let output = String::from_utf8_lossy(output);
            format!("Exec lifecycle hook ({shown}) {of} - error: {error}, message: {output:?}")
        };
        return match shared.runtime.execute(id, command.clone(), COMMAND_SECONDS_MAX).await {
            Ok((0, _)) => Ok(()),
            Ok((code, output)) => {
                let why = format!("command '{}' exited with {code}: ", command.join(" "));
                let output_text = String::from_utf8_lossy(&output);
                Err(failed(format!("{why}{output_text}"), &output))
            }
            Err(error) => Err(failed(error.to_string(), b"")),
        };
    }
    if let Some(action) = &hook.http_get {
        let path = action.path.clone().unwrap_or_default();
        let failed = |error: String| format!("HTTP lifecycle hook ({path}) {of} - error: {error}");
        let url = probe::Url::of(action, container, address, "lifecycle").map_err(failed)?;
        let asked = probe::get(&url, REQUEST_TIMEOUT).await;
        let plain = match asked {
            Err(why) if url.is_tls() && why.contains(probe::NOT_TLS) => url.without_tls(),
            // Any answer is an answer: only who cannot be asked has failed.
            Ok(_) => return Ok(()),
            Err(why) => return Err(failed(why)),
        };
        probe::get(&plain, REQUEST_TIMEOUT).await.map_err(failed)?;
        let message = format!(
            "request to HTTPS lifecycle hook {} got HTTP response, retry with HTTP succeeded",
            plain.host()
        );
        shared.client.record(Event::warning(pod, "LifecycleHTTPFallback", message));
        return Ok(());
    }
    if let Some(sleep) = &hook.sleep {
        let slept = stdx::sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs()));
        tokio::select! {
            () = slept => {}
            // Nothing is left to wait for.
            () = ended(shared, pod, id) => {}
        }
        return Ok(());
    }
    Err("Cannot run handler: invalid handler".to_owned())
}

/// When the container does not run any more.
async fn ended(shared: &Shared, pod: &Pod, id: &str) {
    let Ok(mut changes) = shared.runtime.changes().await else {
        return std::future::pending().await;
    };
    loop {
        if let Ok(observed) = shared.runtime.observe(pod.uid()).await {
            let runs = |it: &Seen| it.id == id && it.state == State::Running;
            if !observed.containers.iter().any(runs) {
                return;
            }
        }
        match changes.next().await {
            Some(_) => {}
            None => return std::future::pending().await,
        }
    }
}
