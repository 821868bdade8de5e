//! How the API says no: `metav1.Status` with the code, reason and words that clients match on.
//!
//! Upstream: `apimachinery/pkg/api/errors/errors.go`.

use crate::{any::AnyKind, field::Errors};
use std::fmt;

/// One refusal. Becomes a `Status` body; inside the process it is an error like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: u16,
    /// `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, …
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Box<Details>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    pub name: String,
    pub group: String,
    /// Upstream puts the kind here for Invalid and the plural for the rest.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: u32,
    /// Where a list goes on whose past is forgotten; part of the `Status`'s own metadata.
    pub continue_token: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, reason, message: message.into(), details: None }
    }

    pub fn not_found(kind: &AnyKind, name: &str) -> Failure {
        let message = format!("{} {name:?} not found", kind.qualified());
        Failure::new(404, "NotFound", message).about(kind, name)
    }

    pub fn already_exists(kind: &AnyKind, name: &str) -> Failure {
        let message = format!("{} {name:?} already exists", kind.qualified());
        Failure::new(409, "AlreadyExists", message).about(kind, name)
    }

    pub fn conflict(kind: &AnyKind, name: &str, why: &str) -> Failure {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified());
        Failure::new(409, "Conflict", message).about(kind, name)
    }

    /// The object changed since it was read.
    pub fn modified(kind: &AnyKind, name: &str) -> Failure {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Failure::conflict(kind, name, why)
    }

    pub fn invalid(kind: &AnyKind, name: &str, errors: &Errors) -> Failure {
        let qualified = match kind.group.as_str() {
            "" => kind.kind.clone(),
            group => format!("{}.{group}", kind.kind),
        };
        let message = format!("{qualified} {name:?} is invalid: {}", errors.message());
        let causes = errors.0.iter().map(|it| Cause {
            reason: it.reason.cause().to_owned(),
            message: it.body(),
            field: it.path.clone(),
        });
        let details = Details {
            name: name.to_owned(),
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            causes: causes.collect(),
            ..Details::default()
        };
        Failure { details: Some(Box::new(details)), ..Failure::new(422, "Invalid", message) }
    }

    pub fn forbidden(kind: &AnyKind, name: &str, why: &str) -> Failure {
        let message = match name {
            "" => format!("{} is forbidden: {why}", kind.qualified()),
            name => format!("{} {name:?} is forbidden: {why}", kind.qualified()),
        };
        Failure::new(403, "Forbidden", message).about(kind, name)
    }

    pub fn bad_request(why: impl Into<String>) -> Failure {
        Failure::new(400, "BadRequest", why)
    }

    pub fn unauthorized() -> Failure {
        Failure::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn expired(why: impl Into<String>) -> Failure {
        Failure::new(410, "Expired", why)
    }

    pub fn internal(why: impl fmt::Display) -> Failure {
        Failure::new(500, "InternalError", format!("Internal error occurred: {why}"))
    }

    pub fn unavailable(why: impl Into<String>) -> Failure {
        Failure::new(503, "ServiceUnavailable", why)
    }

    pub fn about(mut self, kind: &AnyKind, name: &str) -> Failure {
        let details = self.details.get_or_insert_default();
        details.name = name.to_owned();
        details.group = kind.group.clone();
        details.kind = kind.plural.clone();
        self
    }

    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// The `Status` object as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let mut status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            if !details.continue_token.is_empty() {
                status["metadata"]["continue"] = details.continue_token.as_str().into();
            }
            status["details"] = details.to_json();
        }
        status
    }
}

impl Details {
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::Map::new();
        let mut text = |key: &str, value: &str| {
            if !value.is_empty() {
                json.insert(key.to_owned(), value.into());
            }
        };
        text("name", &self.name);
        text("group", &self.group);
        text("kind", &self.kind);
        text("uid", &self.uid);
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|it| {
                let mut cause = serde_json::json!({"reason": it.reason, "message": it.message});
                if !it.field.is_empty() {
                    cause["field"] = it.field.as_str().into();
                }
                cause
            });
            json.insert("causes".to_owned(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            json.insert("retryAfterSeconds".to_owned(), self.retry_after_seconds.into());
        }
        json.into()
    }
}
