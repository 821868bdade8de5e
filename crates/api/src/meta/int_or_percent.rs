//! A number of pods, or a share of them: `1`, `25%`.
//!
//! Upstream: `apimachinery/pkg/util/intstr`, `pkg/apis/apps/validation` (ValidatePositiveIntOrPercent).

use crate::{
    field::{Errors, quoted},
    k8s::apimachinery::pkg::util::intstr::IntOrString,
    meta::names,
};
use std::fmt::Display;

/// Which way a share that is not a whole number goes.
#[derive(Clone, Copy, PartialEq)]
pub enum Round {
    Up,
    Down,
}

/// How many of `total` that is. What no validated object holds counts as nothing.
pub fn scaled(value: Option<&IntOrString>, total: i32, round: Round) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let share = i64::from(percent(text).unwrap_or(0)) * i64::from(total);
            let rest = i64::from(round == Round::Up && share % 100 != 0);
            i32::try_from(share / 100 + rest).unwrap_or(i32::MAX)
        }
    }
}

/// `25` of `25%`.
fn percent(text: &str) -> Option<i32> {
    let digits = text.strip_suffix('%')?;
    let plain = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
    plain.then(|| digits.parse().unwrap_or(i32::MAX))
}

/// Whether it comes to nothing, whatever it is a share of.
pub(crate) fn is_zero(value: Option<&IntOrString>) -> bool {
    match value {
        None => true,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(IntOrString::String(text)) => percent(text).unwrap_or(0) == 0,
    }
}

pub(crate) fn shown(value: &IntOrString) -> String {
    match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => quoted(text),
    }
}

/// It is a number that is not negative, or a share.
pub(crate) fn validate(path: impl Display, value: Option<&IntOrString>, errors: &mut Errors) {
    match value {
        None => {}
        Some(IntOrString::Int(number)) => names::not_negative(path, i64::from(*number), errors),
        Some(IntOrString::String(text)) if percent(text).is_some() => {}
        Some(IntOrString::String(text)) => {
            let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            errors.invalid(path, quoted(text), detail);
        }
    }
}

/// It is not more than all of them.
pub(crate) fn at_most_all(path: impl Display, value: Option<&IntOrString>, errors: &mut Errors) {
    if let Some(IntOrString::String(text)) = value
        && percent(text).is_some_and(|it| it > 100)
    {
        errors.invalid(path, quoted(text), "must not be greater than 100%");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_the_way_that_is_asked_for() {
        let share = IntOrString::String("25%".to_owned());
        let of = |total, round| scaled(Some(&share), total, round);
        assert_eq!([of(3, Round::Up), of(3, Round::Down), of(4, Round::Up)], [1, 0, 1]);
        assert_eq!(scaled(Some(&IntOrString::Int(7)), 3, Round::Up), 7);
    }

    #[test]
    fn what_is_neither_a_number_nor_a_share_is_refused() {
        let message = |value: IntOrString| {
            let mut errors = Errors::default();
            validate("spec.maxSurge", Some(&value), &mut errors);
            at_most_all("spec.maxSurge", Some(&value), &mut errors);
            errors.message()
        };
        assert_eq!(message(IntOrString::String("30%".to_owned())), "");
        assert!(message(IntOrString::String("-1%".to_owned())).contains("a valid percent string"));
        assert!(message(IntOrString::String("5".to_owned())).contains("Invalid value: \"5\""));
        assert!(message(IntOrString::String("101%".to_owned())).contains("not be greater than"));
        assert!(message(IntOrString::Int(-1)).contains("greater than or equal to 0"));
    }
}
