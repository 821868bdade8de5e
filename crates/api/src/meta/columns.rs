//! Columns that many kinds print, and a short way to write the others.

use crate::{
    kind::{Cell, Column, Format, Object, Printing},
    meta,
};

/// What stands in a cell that has nothing to show.
pub(crate) const NONE: &str = "<none>";
pub(crate) const UNSET: &str = "<unset>";
pub(crate) const UNKNOWN: &str = "<unknown>";

pub(crate) const fn name<T: Object>() -> Column<T> {
    named(name_cell)
}

/// The column of names with something added to them.
pub(crate) const fn named<T: Object>(cell: fn(&T, &Printing) -> Cell) -> Column<T> {
    Column {
        title: "Name",
        format: Format::Name,
        wide: false,
        description: "Name of the object, unique within its namespace.",
        cell,
    }
}

pub(crate) const fn age<T: Object>() -> Column<T> {
    text("Age", "Time since the object was created.", age_cell)
}

pub(crate) const fn text<T: Object>(
    title: &'static str,
    description: &'static str,
    cell: fn(&T, &Printing) -> Cell,
) -> Column<T> {
    Column { title, format: Format::String, wide: false, description, cell }
}

/// Shown with `-o wide` only.
pub(crate) const fn wide<T: Object>(
    title: &'static str,
    description: &'static str,
    cell: fn(&T, &Printing) -> Cell,
) -> Column<T> {
    Column { title, format: Format::String, wide: true, description, cell }
}

fn name_cell<T: Object>(object: &T, _: &Printing) -> Cell {
    object.name().into()
}

fn age_cell<T: Object>(object: &T, printing: &Printing) -> Cell {
    let created = object.metadata().creation_timestamp.as_ref();
    meta::age(created.map(meta::timestamp_of), printing.now).into()
}

/// `text`, or what stands for nothing.
pub(crate) fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// A truth value, printed as upstream's `true` and `false`.
pub(crate) fn truth(value: Option<bool>) -> Cell {
    value.unwrap_or(false).to_string().into()
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::kind::{Cell, Kind, Printing};
    use stdx::Timestamp;

    /// The moment at which tests print.
    pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    /// An object's row, cells joined by ` | `, wide ones included.
    pub(crate) fn row<T: Kind>(object: &T) -> String {
        let cells = T::COLUMNS.iter().map(|it| match (it.cell)(object, &Printing { now: NOW }) {
            Cell::Text(text) => text,
            Cell::Number(number) => number.to_string(),
        });
        cells.collect::<Vec<_>>().join(" | ")
    }
}
