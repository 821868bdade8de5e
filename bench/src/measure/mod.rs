//! The figures, one file each.

mod binds;
mod container;
mod list;
mod memory;
mod pods;
mod start;
mod writes;

use crate::Options;
use anyhow::Result;
use stdx::BoxFuture;

type Measure = fn(&Options) -> BoxFuture<'_, Result<()>>;

/// Name, what it is, and how it is taken.
pub(crate) const MEASURES: &[(&str, &str, Measure)] = &[
    ("binds", "static binding of volumes and claims", |it| Box::pin(binds::measure(it))),
    ("container", "one container in the embedded runtime", |it| Box::pin(container::measure(it))),
    ("list", "a whole kind at once", |it| Box::pin(list::measure(it))),
    ("memory", "`up` without pods, 30 s after ready", |it| Box::pin(memory::measure(it))),
    ("pods", "a StatefulSet of three with claims and 1 s probes", |it| Box::pin(pods::measure(it))),
    ("start", "`up` until it is ready", |it| Box::pin(start::measure(it))),
    ("writes", "create, get, patch and delete", |it| Box::pin(writes::measure(it))),
];
