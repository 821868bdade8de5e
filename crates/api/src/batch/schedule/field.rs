//! One field of a schedule: lists of values and ranges, with steps and names.

/// What a field may hold.
pub(super) struct Bounds {
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

pub(super) const MINUTES: Bounds = Bounds { least: 0, most: 59, names: &[] };
pub(super) const HOURS: Bounds = Bounds { least: 0, most: 23, names: &[] };
pub(super) const DAYS: Bounds = Bounds { least: 1, most: 31, names: &[] };
pub(super) const MONTHS: Bounds = Bounds {
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
pub(super) const WEEKDAYS: Bounds =
    Bounds { least: 0, most: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: invalid syntax")]
    NoNumber(String),
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: value out of range")]
    Huge(String),
    #[error("negative number ({number}) not allowed: {text}")]
    Negative { number: i64, text: String },
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    #[error("too many slashes: {0}")]
    Slashes(String),
    #[error("beginning of range ({0}) below minimum ({1}): {2}")]
    Below(u32, u32, String),
    #[error("end of range ({0}) above maximum ({1}): {2}")]
    Above(u32, u32, String),
    #[error("beginning of range ({0}) beyond end of range ({1}): {2}")]
    Backwards(u32, u32, String),
    #[error("step of range should be a positive number: {0}")]
    NoStep(String),
}

/// A bit for each value that is meant; `is_any` where the author wrote a star and no step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Values {
    pub bits: u64,
    pub is_any: bool,
}

impl Bounds {
    pub(super) fn read(&self, text: &str) -> Result<Values, FieldError> {
        let mut values = Values::default();
        for part in text.split(',').filter(|it| !it.is_empty()) {
            let one = self.range(part)?;
            values.bits |= one.bits;
            values.is_any |= one.is_any;
        }
        Ok(values)
    }

    /// `5`, `5-9`, `*`, each perhaps with `/2`; `5/2` goes on to the end.
    fn range(&self, text: &str) -> Result<Values, FieldError> {
        let parts: Vec<&str> = text.split('/').collect();
        let ends: Vec<&str> = parts[0].split('-').collect();
        let is_star = matches!(ends[0], "*" | "?");
        let (first, mut last) = match ends.as_slice() {
            _ if is_star => (self.least, self.most),
            [only] => (self.value(only)?, self.value(only)?),
            [first, last] => (self.value(first)?, self.value(last)?),
            _ => return Err(FieldError::Hyphens(text.to_owned())),
        };
        let step = match parts.as_slice() {
            [_] => 1,
            [_, step] => {
                if ends.len() == 1 {
                    last = self.most;
                }
                number(step)?
            }
            _ => return Err(FieldError::Slashes(text.to_owned())),
        };
        if first < self.least {
            return Err(FieldError::Below(first, self.least, text.to_owned()));
        }
        if last > self.most {
            return Err(FieldError::Above(last, self.most, text.to_owned()));
        }
        if first > last {
            return Err(FieldError::Backwards(first, last, text.to_owned()));
        }
        if step == 0 {
            return Err(FieldError::NoStep(text.to_owned()));
        }
        let stride = usize::try_from(step).unwrap_or(usize::MAX);
        let bits = (first..=last).step_by(stride).fold(0, |bits, it| bits | 1 << it);
        Ok(Values { bits, is_any: is_star && step == 1 })
    }

    fn value(&self, text: &str) -> Result<u32, FieldError> {
        let lower = text.to_ascii_lowercase();
        match (0..).zip(self.names).find(|(_, name)| **name == lower) {
            Some((nth, _)) => Ok(self.least + nth),
            None => number(text),
        }
    }
}

/// A whole number that is not negative. What is larger than any bound is as large as can be.
fn number(text: &str) -> Result<u32, FieldError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return Err(FieldError::NoNumber(text.to_owned()));
    }
    let number: i64 = text.parse().map_err(|_| FieldError::Huge(text.to_owned()))?;
    if number < 0 {
        return Err(FieldError::Negative { number, text: text.to_owned() });
    }
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}
