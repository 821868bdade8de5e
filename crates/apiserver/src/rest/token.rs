//! Where the next page of a list begins, as the client carries it.
//!
//! Upstream: `apiserver/pkg/storage/continue.go`.

use api::Failure;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub(crate) struct Token {
    /// The revision of the first page.
    pub(crate) revision: u64,
    /// The last key of the page before: `namespace/name`, or `name`.
    pub(crate) after: String,
}

impl Token {
    pub(crate) fn encode(&self) -> String {
        let start = format!("{}\0", self.after);
        let token = json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    pub(crate) fn decode(text: &str) -> Result<Token, Failure> {
        let wrong = |why: &str| Failure::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|it| wrong(&it.to_string()))?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|it| wrong(&it.to_string()))?;
        if token["v"] != "meta.k8s.io/v1" {
            return Err(wrong("server does not recognize this encoded version"));
        }
        let revision = token["rv"].as_u64().filter(|it| *it > 0);
        let revision = revision.ok_or_else(|| wrong("incorrect encoded start resourceVersion"))?;
        let after = token["start"].as_str().and_then(|it| it.strip_suffix('\0'));
        let after = after.filter(|it| !it.is_empty() && !it.contains(".."));
        let after = after.ok_or_else(|| wrong("encoded start key empty"))?.to_owned();
        Ok(Token { revision, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_went_out() {
        let token = Token { revision: 7, after: "default/web-0".to_owned() }.encode();
        let back = Token::decode(&token).unwrap();
        assert_eq!((back.revision, back.after.as_str()), (7, "default/web-0"));
        assert!(Token::decode("x").is_err() && Token::decode("e30").is_err());
    }
}
