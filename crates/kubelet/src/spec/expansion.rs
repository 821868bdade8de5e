//! `$(NAME)` in commands, arguments and values.
//!
//! Upstream: `third_party/forked/golang/expansion/expand.go`: `$$` is a dollar, an unknown name stays as it is written.

use std::collections::BTreeMap;

/// Replaces references to variables; what is not one of `variables` stays.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    expand_all(text, |name| variables.get(name).cloned()).0
}

/// Replaces references, and names those that are unknown.
pub fn expand_strictly(
    text: &str,
    variables: &BTreeMap<String, String>,
) -> Result<String, Vec<String>> {
    let (text, missing) = expand_all(text, |name| variables.get(name).cloned());
    if missing.is_empty() { Ok(text) } else { Err(missing) }
}

fn expand_all(text: &str, value: impl Fn(&str) -> Option<String>) -> (String, Vec<String>) {
    let mut out = String::with_capacity(text.len());
    let mut missing = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|it| it.split_once(')'))
        {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str(&format!("$({name})"));
                    missing.push(name.to_owned());
                }
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    (out, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_it_knows_and_leaves_the_rest() {
        let variables = [("A", "1"), ("B_C", "two"), ("E", "")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(B_C)z", "x1ytwoz"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(NONE)", "$(NONE)"),
            ("$(A", "$(A"),
            ("$A $", "$A $"),
            ("[$(E)]", "[]"),
            ("$($(A))", "$($(A))"),
        ] {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
        assert_eq!(expand_strictly("$(X)-$(A)", &variables), Err(vec!["X".to_owned()]));
    }
}
