//! `scheduling.k8s.io/v1` PriorityClass: a name for how important pods are.
//!
//! Upstream: `pkg/apis/scheduling/validation/validation.go`, `pkg/apis/scheduling/v1/helpers.go`.

use crate::{
    field::{Errors, quoted},
    k8s::api::scheduling::v1::PriorityClass,
    kind::{Cell, Column, Kind, Names, Object, Scope, Subresource},
    meta::{
        ObjectMeta,
        absent::{fill, omit_zero, text},
        columns::{self, age, integer, name, truth, truths},
    },
};

/// What begins with this is the system's own.
pub const SYSTEM_PREFIX: &str = "system-";
/// More is for the system's classes only.
pub const HIGHEST_OF_USERS: i32 = 1_000_000_000;

const POLICIES: [&str; 2] = ["PreemptLowerPriority", "Never"];

/// The classes that are always there: name, value, description.
const SYSTEM: [(&str, i32, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

impl Kind for PriorityClass {
    const NAMES: Names = Names {
        plural: "priorityclasses",
        singular: "priorityclass",
        short: &["pc"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/priorityclasses";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column<PriorityClass>] = &[
        name(),
        integer("Value", "How important; more is more.", |class, _| {
            Cell::Number(i64::from(class.value.unwrap_or(0)))
        }),
        truths("Global-Default", "Whether pods without a class get this one.", |class, _| {
            truth(class.global_default)
        }),
        age(),
        columns::text("PreemptionPolicy", "Whether its pods push others away.", |class, _| {
            text(&class.preemption_policy).into()
        }),
    ];

    fn default(&mut self) {
        self.value.get_or_insert(0);
        omit_zero(&mut self.global_default);
        fill(&mut self.preemption_policy, "PreemptLowerPriority");
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &PriorityClass) {
        self.metadata.generation = old.metadata.generation.or(Some(1));
    }

    fn validate(&self, errors: &mut Errors) {
        let value = self.value.unwrap_or(0);
        if self.name().starts_with(SYSTEM_PREFIX) {
            if let Err(why) = is_of_system(self) {
                let why = format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"
                );
                errors.forbidden("metadata.name", why);
            }
        } else if value > HIGHEST_OF_USERS {
            let why =
                format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
            errors.forbidden("value", why);
        }
        match text(&self.preemption_policy) {
            "" => errors.required("preemptionPolicy", ""),
            policy if POLICIES.contains(&policy) => {}
            policy => errors.not_supported("preemptionPolicy", policy, &POLICIES),
        }
    }

    fn validate_update(&self, old: &PriorityClass, errors: &mut Errors) {
        if self.value != old.value {
            errors.forbidden("value", "may not be changed in an update.");
        }
        if self.preemption_policy != old.preemption_policy {
            let shown = quoted(text(&self.preemption_policy));
            errors.invalid("preemptionPolicy", shown, "field is immutable");
        }
    }
}

fn is_of_system(class: &PriorityClass) -> Result<(), String> {
    let name = class.name();
    let Some((_, value, _)) = SYSTEM.iter().find(|it| it.0 == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if class.value != Some(*value) {
        return Err(format!("value of {name} PriorityClass must be {value}"));
    }
    if class.global_default == Some(true) {
        return Err(format!("globalDefault of {name} PriorityClass must be false"));
    }
    Ok(())
}

/// The classes that every cluster has.
pub fn of_system() -> Vec<PriorityClass> {
    let class = |&(name, value, description): &(&str, i32, &str)| PriorityClass {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        value: Some(value),
        description: Some(description.to_owned()),
        ..Default::default()
    };
    SYSTEM.iter().map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn class(value: Value) -> PriorityClass {
        let mut class: PriorityClass = from_value(&value).unwrap();
        Kind::default(&mut class);
        class
    }

    #[test]
    fn the_systems_names_and_values_are_its_own() {
        let wrong = |name: &str, value: i32| {
            let mut errors = Errors::default();
            class(json!({"metadata": {"name": name}, "value": value})).validate(&mut errors);
            errors.message()
        };
        assert_eq!(wrong("high", 1_000_000_000), "");
        assert_eq!(
            wrong("high", 1_000_000_001),
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"
        );
        assert_eq!(
            wrong("system-mine", 1),
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for \
             system use only. error: system-mine is not a known system priority class"
        );
        for mut it in of_system() {
            Kind::default(&mut it);
            let mut errors = Errors::default();
            it.validate(&mut errors);
            assert_eq!(errors.message(), "");
        }
    }

    #[test]
    fn a_value_stays() {
        let old = class(json!({"metadata": {"name": "a"}, "value": 1}));
        let new =
            class(json!({"metadata": {"name": "a"}, "value": 2, "preemptionPolicy": "Never"}));
        let mut errors = Errors::default();
        new.validate_update(&old, &mut errors);
        assert_eq!(
            errors.message(),
            "[value: Forbidden: may not be changed in an update., \
             preemptionPolicy: Invalid value: \"Never\": field is immutable]"
        );
        assert_eq!(row(&new), "a | 2 | false | <unknown> | Never");
    }
}
