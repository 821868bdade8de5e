//! Tokens of service accounts, as nodes ask for them.

use std::fmt;
use stdx::Timestamp;

/// Asks for one token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenWish {
    pub namespace: String,
    pub account: String,
    /// Empty: whichever account has the name.
    pub account_uid: String,
    /// Empty: the API server.
    pub audiences: Vec<String>,
    pub expiration_s: i64,
    /// What the token ends with.
    pub bound: Option<Bind>,
}

/// Names the pod, Secret or node that a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bind {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    /// Empty: whichever object has the name.
    pub uid: String,
}

/// A token and its life. Debug output hides the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub token: String,
    pub issued: Timestamp,
    pub expires: Timestamp,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a token from {} to {}", self.issued.rfc3339(), self.expires.rfc3339())
    }
}
