//! Quantities, exactly: `1Gi` is not `1G`, and `100m` is a tenth.
//!
//! Upstream: `apimachinery/pkg/api/resource/quantity.go`.

use crate::k8s::apimachinery::pkg::api::resource::Quantity;
use std::{cmp::Ordering, collections::BTreeMap};

/// An exact amount in billionths (the finest that the API knows).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exact(pub i128);

const NANO: i128 = 1_000_000_000;

/// Upstream's largest amount; a larger one counts as this.
const MOST: i128 = i64::MAX as i128 * NANO;

impl Exact {
    pub const ZERO: Exact = Exact(0);

    pub fn from_units(units: i64) -> Exact {
        Exact(i128::from(units) * NANO)
    }

    /// Reads a quantity; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Exact> {
        let text = text.trim();
        let end = text
            .find(|it: char| !(it.is_ascii_digit() || it == '.' || it == '+' || it == '-'))
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (negative, number) = match number.as_bytes().first()? {
            b'-' => (true, &number[1..]),
            b'+' => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let digits = |it: &str| it.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        // (multiplier, divisor) on top of billionths.
        let (times, over): (i128, i128) = match suffix {
            "n" => (1, NANO),
            "u" => (1_000, NANO),
            "m" => (1_000_000, NANO),
            "" => (1, 1),
            "k" => (1_000, 1),
            "M" => (1_000_000, 1),
            "G" => (NANO, 1),
            "T" => (1_000 * NANO, 1),
            "P" => (1_000_000 * NANO, 1),
            "E" => (NANO * NANO, 1),
            "Ki" => (1 << 10, 1),
            "Mi" => (1 << 20, 1),
            "Gi" => (1 << 30, 1),
            "Ti" => (1 << 40, 1),
            "Pi" => (1 << 50, 1),
            "Ei" => (1 << 60, 1),
            exponent => {
                let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
                match power {
                    0..=28 => (10i128.pow(power.unsigned_abs()), 1),
                    -28..=-1 => (1, 10i128.pow(power.unsigned_abs())),
                    _ => return None,
                }
            }
        };
        // What is too large to be written down is as much as there can be, as upstream has it.
        let large = || {
            let whole = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? };
            let mut amount = whole.checked_mul(NANO)?.checked_mul(times)?;
            let mut scale = NANO;
            for digit in fraction.bytes() {
                scale = if scale >= 10 { scale / 10 } else { break };
                amount = amount.checked_add(i128::from(digit - b'0') * scale * times)?;
            }
            Some(amount)
        };
        let amount = large().unwrap_or(i128::MAX);
        // Finer than a billionth is rounded up, as upstream does.
        let amount = amount.div_euclid(over) + i128::from(amount.rem_euclid(over) != 0);
        let amount = amount.min(MOST);
        Some(Exact(if negative { -amount } else { amount }))
    }

    /// The one way in which upstream writes this quantity: `1024Mi` is `1Gi`, `0.5` is `500m`. Keeps
    /// to powers of two or ten as the author did.
    pub fn canonical(text: &str) -> Option<String> {
        let amount = Exact::parse(text)?;
        let suffix = text.trim().trim_start_matches(|it: char| {
            it.is_ascii_digit() || it == '.' || it == '+' || it == '-'
        });
        let kibi = 1024 * NANO;
        // Small amounts and parts of a unit are told in decimal: so nothing is rounded.
        let is_whole = amount.0 % NANO == 0;
        if suffix.ends_with('i') && is_whole && !(-kibi < amount.0 && amount.0 < kibi) {
            let minus = if amount.0 < 0 { "-" } else { "" };
            return Some(format!("{minus}{}", binary(amount.units().unsigned_abs()).0));
        }
        let exponential = suffix.len() > 1 && suffix.starts_with(['e', 'E']);
        let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        let (mut number, mut steps) = (amount.0, 0);
        while number != 0 && number % 1000 == 0 && steps + 1 < suffixes.len() {
            (number, steps) = (number / 1000, steps + 1);
        }
        match (number, exponential, i32::try_from(steps).unwrap_or(0) * 3 - 9) {
            (0, _, _) => Some("0".to_owned()),
            (_, false, _) => Some(format!("{number}{}", suffixes[steps])),
            (_, true, 0) => Some(number.to_string()),
            (_, true, power) => Some(format!("{number}e{power}")),
        }
    }

    /// Reads what was admitted; what cannot be read counts as nothing.
    pub fn of(quantity: &Quantity) -> Exact {
        Exact::parse(&quantity.0).unwrap_or_default()
    }

    /// Whole units, rounded up: bytes for storage and memory.
    pub fn units(self) -> i64 {
        let up = self.0.div_euclid(NANO) + i128::from(self.0.rem_euclid(NANO) != 0);
        i64::try_from(up).unwrap_or(if up < 0 { i64::MIN } else { i64::MAX })
    }

    /// Thousandths, rounded up: millicores for cpu.
    pub fn milli(self) -> i64 {
        let milli = NANO / 1000;
        let up = self.0.div_euclid(milli) + i128::from(self.0.rem_euclid(milli) != 0);
        i64::try_from(up).unwrap_or(if up < 0 { i64::MIN } else { i64::MAX })
    }
}

/// Writes each amount of a list in its canonical form; leaves what is no quantity for validation.
pub(crate) fn canonicalize(list: &mut Option<BTreeMap<String, Quantity>>) {
    list.iter_mut().flat_map(|it| it.values_mut()).for_each(canonicalize_one);
}

pub(crate) fn canonicalize_one(quantity: &mut Quantity) {
    if let Some(canonical) = Exact::canonical(&quantity.0) {
        quantity.0 = canonical;
    }
}

/// Reads an amount, or says that it is none.
pub(crate) fn read(
    path: impl std::fmt::Display,
    quantity: &Quantity,
    errors: &mut crate::field::Errors,
) -> Option<Exact> {
    let amount = Exact::parse(&quantity.0);
    if amount.is_none() {
        let detail = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        errors.invalid(path, crate::field::quoted(&quantity.0), detail);
    }
    amount
}

impl std::ops::Add for Exact {
    type Output = Exact;
    fn add(self, other: Exact) -> Exact {
        Exact(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for Exact {
    type Output = Exact;
    fn sub(self, other: Exact) -> Exact {
        Exact(self.0.saturating_sub(other.0))
    }
}

/// An amount whose form was lost on the way, in the shorter of its two forms: `1Gi`, `100M`, `500m`.
pub fn shortest(amount: Exact) -> String {
    let kibi = 1024 * NANO;
    let units = Exact(amount.0).units();
    let decimal = decimal(amount);
    if amount.0 < kibi || amount.0 % kibi != 0 {
        return decimal;
    }
    let binary = binary(units.unsigned_abs()).0;
    if binary.len() <= decimal.len() { binary } else { decimal }
}

fn decimal(amount: Exact) -> String {
    let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let (mut number, mut steps) = (amount.0, 0);
    while number != 0 && number % 1000 == 0 && steps + 1 < suffixes.len() {
        (number, steps) = (number / 1000, steps + 1);
    }
    match number {
        0 => "0".to_owned(),
        number => format!("{number}{}", suffixes[steps]),
    }
}

/// Compares two quantities by amount.
pub fn compare(a: &Quantity, b: &Quantity) -> Ordering {
    Exact::of(a).cmp(&Exact::of(b))
}

/// Bytes as upstream would print them in binary form: `1Gi`, `1536Mi`, `1000`.
pub fn binary(bytes: u64) -> Quantity {
    let units = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let fits = units.iter().find(|(_, bits)| bytes != 0 && bytes.trailing_zeros() >= *bits);
    Quantity(match fits {
        Some((suffix, bits)) => format!("{}{suffix}", bytes >> bits),
        None => bytes.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_and_decimal_are_different_amounts() {
        assert!(Exact::parse("1Gi") > Exact::parse("1G"));
        assert_eq!(Exact::parse("1Gi").unwrap().units(), 1 << 30);
        assert_eq!(Exact::parse("1024Mi"), Exact::parse("1Gi"));
        assert_eq!(Exact::parse("0.5").unwrap().milli(), 500);
        assert_eq!(Exact::parse("100m").unwrap().units(), 1);
        assert_eq!(Exact::parse("1e3"), Exact::parse("1k"));
        assert_eq!(Exact::parse("1.5Gi").unwrap().units(), 3 << 29);
        assert_eq!(Exact::parse("-1").unwrap().units(), -1);
    }

    #[test]
    fn writes_a_quantity_as_upstream_does() {
        for (text, canonical) in [
            ("71111111111111.71111111111111111", "71111111111111711111111n"),
            ("99999999999999999999999999999999999999999", "9223372036854775807"),
            ("-1e19", "-9223372036854775807"),
            ("1e-12", "1e-9"),
            ("1.1Ki", "1126400m"),
            ("-1.1Ki", "-1126400m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1e3", "1e3"),
            ("1024", "1024"),
            ("0.5Ki", "512"),
            ("0", "0"),
            ("0Gi", "0"),
            ("-2000m", "-2"),
        ] {
            assert_eq!(Exact::canonical(text).as_deref(), Some(canonical), "{text}");
        }
    }

    #[test]
    fn writes_an_amount_in_its_shorter_form() {
        for text in ["0", "1", "500m", "1k", "100M", "1Gi", "1536Mi", "128Ki", "10"] {
            assert_eq!(shortest(Exact::parse(text).unwrap()), text);
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_refused() {
        for text in ["", "Gi", "1gi", "1 Gi", "1.2.3", "--1", "1e99", "abc", "1GiB"] {
            assert_eq!(Exact::parse(text), None, "{text}");
        }
    }

    #[test]
    fn prints_bytes_in_the_largest_unit_that_is_exact() {
        assert_eq!(binary(1 << 30).0, "1Gi");
        assert_eq!(binary(3 << 29).0, "1536Mi");
        assert_eq!(binary(1000).0, "1000");
        assert_eq!(binary(0).0, "0");
    }
}
