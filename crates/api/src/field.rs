//! What is wrong with an object, by field, in upstream's words.
//!
//! Upstream: `apimachinery/pkg/util/validation/field/errors.go`.

use std::fmt::{self, Display};

/// Everything that is wrong, in the order in which it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors(pub Vec<FieldError>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub reason: Reason,
    /// `spec.volumes[0].hostPath.type`
    pub path: String,
    /// The offending value as upstream prints it (strings quoted); `None` where it prints none.
    pub value: Option<String>,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl Reason {
    /// The `reason` of a status cause.
    pub fn cause(self) -> &'static str {
        match self {
            Reason::NotFound => "FieldValueNotFound",
            Reason::Required => "FieldValueRequired",
            Reason::Duplicate => "FieldValueDuplicate",
            Reason::Invalid => "FieldValueInvalid",
            Reason::NotSupported => "FieldValueNotSupported",
            Reason::Forbidden => "FieldValueForbidden",
            Reason::TooLong => "FieldValueTooLong",
            Reason::TooMany => "FieldValueTooMany",
            Reason::Internal => "InternalError",
            Reason::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Reason::NotFound => "Not found",
            Reason::Required => "Required value",
            Reason::Duplicate => "Duplicate value",
            Reason::Invalid | Reason::TypeInvalid => "Invalid value",
            Reason::NotSupported => "Unsupported value",
            Reason::Forbidden => "Forbidden",
            Reason::TooLong => "Too long",
            Reason::TooMany => "Too many",
            Reason::Internal => "Internal error",
        }
    }
}

impl FieldError {
    /// The message without the path: `Invalid value: -1: must be greater than or equal to 0`.
    pub fn body(&self) -> String {
        let mut text = self.reason.text().to_owned();
        if let Some(value) = &self.value {
            text = format!("{text}: {value}");
        }
        if !self.detail.is_empty() {
            text = format!("{text}: {}", self.detail);
        }
        text
    }
}

impl Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

impl Errors {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value` as printed: quote strings with [`quoted`], numbers as they are.
    pub fn invalid(&mut self, path: impl Display, value: impl Display, detail: impl Display) {
        self.push(Reason::Invalid, path, Some(value.to_string()), detail);
    }

    pub fn required(&mut self, path: impl Display, detail: impl Display) {
        self.push(Reason::Required, path, None, detail);
    }

    pub fn forbidden(&mut self, path: impl Display, detail: impl Display) {
        self.push(Reason::Forbidden, path, None, detail);
    }

    pub fn duplicate(&mut self, path: impl Display, value: impl Display) {
        self.push(Reason::Duplicate, path, Some(value.to_string()), "");
    }

    pub fn not_found(&mut self, path: impl Display, value: impl Display) {
        self.push(Reason::NotFound, path, Some(value.to_string()), "");
    }

    /// `supported` is printed as upstream does: `supported values: "A", "B"`.
    pub fn not_supported(&mut self, path: impl Display, value: &str, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|it| quoted(it)).collect();
        let detail = format!("supported values: {}", list.join(", "));
        self.push(Reason::NotSupported, path, Some(quoted(value)), detail);
    }

    pub fn too_long(&mut self, path: impl Display, most_bytes: usize) {
        let detail = format!("may not be more than {most_bytes} bytes");
        self.push(Reason::TooLong, path, None, detail);
    }

    pub fn too_many(&mut self, path: impl Display, count: usize, most: usize) {
        let detail = format!("must have at most {most} items");
        self.push(Reason::TooMany, path, Some(count.to_string()), detail);
    }

    pub fn push(
        &mut self,
        reason: Reason,
        path: impl Display,
        value: Option<String>,
        detail: impl Display,
    ) {
        let (path, detail) = (path.to_string(), detail.to_string());
        self.0.push(FieldError { reason, path, value, detail });
    }

    /// All of them as one sentence: alone as it is, several as upstream's `[a, b]`.
    pub fn message(&self) -> String {
        match self.0.as_slice() {
            [] => String::new(),
            [one] => one.to_string(),
            many => {
                let all: Vec<String> = many.iter().map(ToString::to_string).collect();
                format!("[{}]", all.join(", "))
            }
        }
    }
}

/// A string as Go's `%q` prints it.
pub fn quoted(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_in_the_words_that_clients_match_on() {
        let mut errors = Errors::default();
        errors.invalid("spec.replicas", -1, "must be greater than or equal to 0");
        errors.required("spec.accessModes", "");
        errors.not_supported("spec.volumeMode", "Disk", &["Block", "Filesystem"]);
        assert_eq!(
            errors.message(),
            "[spec.replicas: Invalid value: -1: must be greater than or equal to 0, \
             spec.accessModes: Required value, \
             spec.volumeMode: Unsupported value: \"Disk\": supported values: \"Block\", \"Filesystem\"]"
        );
    }
}
