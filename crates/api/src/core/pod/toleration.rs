//! Which taints of a node a toleration covers.
//!
//! Upstream: `staging/src/k8s.io/api/core/v1/toleration.go` (1.36), ToleratesTaint.

use crate::{
    k8s::api::core::v1::{Taint, Toleration},
    meta::absent::text,
};

/// Whether `toleration` covers `taint`, for however long.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let (value, of_taint) = (text(&toleration.value), text(&taint.value));
    let numbers = || of_taint.parse::<i64>().ok().zip(value.parse::<i64>().ok());
    match text(&toleration.operator) {
        "Exists" => true,
        "" | "Equal" => value == of_taint,
        "Gt" => numbers().is_some_and(|(taint, limit)| taint > limit),
        "Lt" => numbers().is_some_and(|(taint, limit)| taint < limit),
        // Validation lets no other operator in.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(it: &str) -> Option<String> {
        (!it.is_empty()).then(|| it.to_owned())
    }

    #[test]
    fn an_absent_key_or_effect_covers_every_one() {
        let taint = Taint {
            key: "k".into(),
            value: text("v"),
            effect: "NoExecute".into(),
            time_added: None,
        };
        for (key, operator, value, effect, expected) in [
            ("k", "Exists", "", "NoExecute", true),
            ("", "Exists", "", "", true),
            ("k", "Exists", "", "NoSchedule", false),
            ("other", "Exists", "", "", false),
            ("k", "Equal", "v", "", true),
            ("k", "", "v", "", true),
            ("k", "", "w", "", false),
            ("k", "Gt", "1", "", false),
        ] {
            let toleration = Toleration {
                key: text(key),
                operator: text(operator),
                value: text(value),
                effect: text(effect),
                toleration_seconds: None,
            };
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        }
    }
}
