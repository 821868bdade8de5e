//! Who set which fields of an object, and what follows from that: managedFields and server-side apply.
//!
//! A document is walked together with the shape of its kind. Sets of fields are trees; each author of
//! an object has one, and [`managers`] keeps them as writes come and go.
//!
//! Upstream: `sigs.k8s.io/structured-merge-diff/v6`, `apimachinery/pkg/util/managedfields`.

pub(crate) mod apply;
mod compare;
mod document;
mod element;
pub(crate) mod entries;
mod managers;
mod merge;
mod origin;
mod remove;
pub(crate) mod reset;
pub(crate) mod scale;
mod set;
pub(crate) mod shapes;
#[cfg(test)]
mod tests;
pub(crate) mod update;
mod validate;

pub(crate) use document::Document;
pub(crate) use set::Set;
