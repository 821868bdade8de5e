//! YAML as clients write it, and which of its keys they wrote twice.
//!
//! The last of two counts, as upstream's reader has it; the strict one tells. Aliases and depth have the
//! reader's own limits: a small text cannot become a large one.
//! Upstream: `sigs.k8s.io/yaml` (Unmarshal, UnmarshalStrict).

use serde_json::Value;
use serde_saphyr::{Error, options, options::DuplicateKeyPolicy};

pub(crate) struct Yaml {
    pub(crate) value: Value,
    /// What the strict reader says of the first key that is there twice.
    pub(crate) twice: Option<String>,
}

/// Reads one document; the error is the reader's.
pub(crate) fn read(text: &[u8]) -> Result<Yaml, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let strict = options! { with_snippet: false };
    let said = match serde_saphyr::from_str_with_options(text, strict) {
        Ok(value) => return Ok(Yaml { value, twice: None }),
        Err(error) => error,
    };
    let twice = duplicate(&said).ok_or_else(|| said.to_string())?;
    let lenient = options! { duplicate_keys: DuplicateKeyPolicy::LastWins, with_snippet: false };
    let value = serde_saphyr::from_str_with_options(text, lenient);
    Ok(Yaml { value: value.map_err(|error| error.to_string())?, twice: Some(twice) })
}

fn duplicate(error: &Error) -> Option<String> {
    match error {
        Error::DuplicateMappingKey { key, location } => {
            let (key, line) = (key.as_deref().unwrap_or_default(), location.line());
            Some(format!("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_of_two_counts_and_the_second_is_named() {
        let yaml = read(b"data:\n  a: one\n  b: x\n  a: two\n").unwrap();
        assert_eq!(yaml.value, json!({"data": {"a": "two", "b": "x"}}));
        let said = "yaml: unmarshal errors:\n  line 4: key \"a\" already set in map";
        assert_eq!(yaml.twice.as_deref(), Some(said));
        assert_eq!(read(b"{\"a\": 1}").unwrap().twice, None);
    }

    #[test]
    fn what_would_grow_without_end_is_refused() {
        let bomb: String = std::iter::once("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned())
            .chain((1..12).map(|n| {
                let below = format!("*a{},", n - 1).repeat(9);
                format!("a{n}: &a{n} [{below}]\n")
            }))
            .collect();
        assert!(read(bomb.as_bytes()).is_err());
        assert!(read("[".repeat(100_000).as_bytes()).is_err());
        assert!(read(&b"- ".repeat(100_000)).is_err());
        assert!(read(b"a: \xff").is_err());
    }
}
