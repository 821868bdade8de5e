//! How a session ended, as the Status object that clients read from the error channel.
//!
//! Upstream: staging/src/k8s.io/cri-streaming/pkg/streaming/remotecommand/exec.go and status.go.

use serde_json::json;

pub(super) fn exited(code: i32) -> String {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" }).to_string();
    }
    let why = format!("command terminated with exit code {code}");
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: {why}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
    .to_string()
}

/// `attempted` is upstream's phrase, such as `error executing command in container`.
pub(super) fn failed(attempted: &str, why: &str) -> String {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {attempted}: {why}"),
        "reason": "InternalError",
        "code": 500,
    })
    .to_string()
}
