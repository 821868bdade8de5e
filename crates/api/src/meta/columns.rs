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

pub(crate) const fn integer<T: Object>(
    title: &'static str,
    description: &'static str,
    cell: fn(&T, &Printing) -> Cell,
) -> Column<T> {
    Column { title, format: Format::Integer, wide: false, description, cell }
}

/// A column of truth values.
pub(crate) const fn truths<T: Object>(
    title: &'static str,
    description: &'static str,
    cell: fn(&T, &Printing) -> Cell,
) -> Column<T> {
    Column { title, format: Format::Boolean, wide: false, description, cell }
}

/// What kinds without columns of their own show besides the name.
pub(crate) const fn created_at<T: Object>() -> Column<T> {
    Column {
        title: "Created At",
        format: Format::Date,
        wide: false,
        description: "When the object was created.",
        cell: created_at_cell,
    }
}

fn created_at_cell<T: Object>(object: &T, _: &Printing) -> Cell {
    let created = object.metadata().creation_timestamp.as_ref();
    created.map_or_else(String::new, |it| meta::timestamp_of(it).rfc3339()).into()
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

/// A truth value; absent is false.
pub(crate) fn truth(value: Option<bool>) -> Cell {
    Cell::Truth(value.unwrap_or(false))
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
            Cell::Truth(truth) => truth.to_string(),
        });
        cells.collect::<Vec<_>>().join(" | ")
    }
}
