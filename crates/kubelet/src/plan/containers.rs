//! The containers of a pod by name, whichever list of the spec they stand in.

pub use api::core::pod::as_container;
use api::core::v1::{Container, Pod};
use std::borrow::Cow;

/// The lists of a spec, and how events call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Init,
    Regular,
    Ephemeral,
}

impl List {
    /// The field of the spec.
    pub fn field(self) -> &'static str {
        match self {
            List::Init => "initContainers",
            List::Regular => "containers",
            List::Ephemeral => "ephemeralContainers",
        }
    }
}

/// The container of this name, and where it stands.
pub fn find<'a>(pod: &'a Pod, name: &str) -> Option<(List, Cow<'a, Container>)> {
    let spec = pod.spec.as_ref()?;
    let of = |list: &'a [Container]| list.iter().find(|it| it.name == name);
    if let Some(found) = of(&spec.containers) {
        return Some((List::Regular, Cow::Borrowed(found)));
    }
    if let Some(found) = of(spec.init_containers.as_deref().unwrap_or_default()) {
        return Some((List::Init, Cow::Borrowed(found)));
    }
    let ephemeral = spec.ephemeral_containers.as_deref().unwrap_or_default();
    let found = ephemeral.iter().find(|it| it.name == name)?;
    Some((List::Ephemeral, Cow::Owned(as_container(found))))
}

/// The container of this name.
pub fn named<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    find(pod, name).map(|(_, it)| it)
}
