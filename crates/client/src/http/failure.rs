//! Reading how a server says no.

use api::Failure;
use serde_json::Value;

/// Every reason that callers tell apart; others keep their code and words.
const REASONS: [&str; 13] = [
    "Unauthorized",
    "Forbidden",
    "NotFound",
    "AlreadyExists",
    "Conflict",
    "Gone",
    "Expired",
    "Invalid",
    "BadRequest",
    "TooManyRequests",
    "InternalError",
    "ServiceUnavailable",
    "Timeout",
];

pub(super) fn read(code: u16, body: &[u8]) -> Failure {
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    of(code, &status, || String::from_utf8_lossy(body).trim().chars().take(500).collect())
}

/// From a `Status` object.
pub(super) fn of(code: u16, status: &Value, else_message: impl Fn() -> String) -> Failure {
    let said = status["reason"].as_str().unwrap_or_default();
    let reason = REASONS.into_iter().find(|it| *it == said).unwrap_or("Unknown");
    let code = status["code"].as_u64().and_then(|it| u16::try_from(it).ok()).unwrap_or(code);
    let message = status["message"].as_str().map(str::to_owned);
    let message = message.filter(|it| !it.is_empty()).unwrap_or_else(else_message);
    match message.is_empty() {
        true => Failure::new(code, reason, format!("the server answered {code}")),
        false => Failure::new(code, reason, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_same_on_both_sides() {
        let conflict = Failure::new(409, "Conflict", "modified");
        assert_eq!(read(409, conflict.to_json().to_string().as_bytes()), conflict);
        assert!(read(409, conflict.to_json().to_string().as_bytes()).is_conflict());
        assert_eq!(read(502, b"bad gateway\n").message, "bad gateway");
        assert_eq!(read(503, b"").message, "the server answered 503");
    }
}
