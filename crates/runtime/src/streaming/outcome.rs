//! How a session ended, as clients read it from the error channel.
//!
//! Upstream: staging/src/k8s.io/cri-streaming/pkg/streaming/remotecommand/exec.go and status.go.

use serde_json::json;

pub(super) struct Outcome {
    /// A Status object.
    pub(super) status: String,
    /// What went wrong, if something did.
    pub(super) failure: Option<String>,
}

pub(super) fn exited(code: i32) -> Outcome {
    if code == 0 {
        let status = json!({ "metadata": {}, "status": "Success" }).to_string();
        return Outcome { status, failure: None };
    }
    let why = format!("command terminated with exit code {code}");
    let message = format!("command terminated with non-zero exit code: {why}");
    let status = json!({
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    });
    Outcome { status: status.to_string(), failure: Some(message) }
}

/// `attempted` is upstream's phrase, such as `error executing command in container`.
pub(super) fn failed(attempted: &str, why: &str) -> Outcome {
    let message = format!("Internal error occurred: {attempted}: {why}");
    let status = json!({
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "code": 500,
    });
    Outcome { status: status.to_string(), failure: Some(message) }
}
