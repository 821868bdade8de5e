//! The authors of an object, each with what it owns, and how a write moves fields between them.
//!
//! Upstream: `structured-merge-diff/v6/merge/update.go`,
//! `apimachinery/pkg/util/managedfields/internal/{managedfieldsupdater,capmanagers,stripmeta}.go`.

use super::Set;
use api::{AnyKind, schema::Shapes};
use std::{
    collections::{BTreeMap, btree_map::ValuesMut},
    sync::LazyLock,
};
use stdx::Timestamp;

/// More authors of updates than this, and the oldest become one.
const UPDATERS_MAX: usize = 10;

/// The name of that one.
const ANCIENT: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Who owns fields. One who applies is the same in every version of the API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) manager: String,
    pub(crate) operation: Operation,
    /// Empty for those who apply.
    pub(crate) api_version: String,
    pub(crate) subresource: String,
}

impl Identity {
    pub(crate) fn new(
        manager: String,
        operation: Operation,
        api_version: &str,
        subresource: String,
    ) -> Identity {
        let api_version = match operation {
            Operation::Apply => String::new(),
            Operation::Update => api_version.to_owned(),
        };
        Identity { manager, operation, api_version, subresource }
    }

    /// As conflicts name it: `"kubectl" using apps/v1`.
    pub(crate) fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            shown.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            shown.push_str(&format!(" using {}", self.api_version));
        }
        shown
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owned<'a> {
    pub(crate) api_version: String,
    pub(crate) time: Option<String>,
    pub(crate) set: Set<'a>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Managers<'a>(BTreeMap<Identity, Owned<'a>>);

/// What others own and a write would take from them.
pub(crate) type Conflicts<'a> = Vec<(Identity, Set<'a>)>;

impl<'a> Managers<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, identity: Identity, owned: Owned<'a>) -> Option<Owned<'a>> {
        self.0.insert(identity, owned)
    }

    pub(crate) fn remove(&mut self, identity: &Identity) -> Option<Owned<'a>> {
        self.0.remove(identity)
    }

    pub(crate) fn get(&self, identity: &Identity) -> Option<&Owned<'a>> {
        self.0.get(identity)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Identity, &Owned<'a>)> {
        self.0.iter()
    }

    pub(crate) fn values_mut(&mut self) -> ValuesMut<'_, Identity, Owned<'a>> {
        self.0.values_mut()
    }

    pub(crate) fn into_owned(self) -> Managers<'static> {
        let owned = |it: Owned<'a>| Owned {
            api_version: it.api_version,
            time: it.time,
            set: it.set.into_owned(),
        };
        Managers(self.0.into_iter().map(|(identity, it)| (identity, owned(it))).collect())
    }

    /// Everything that somebody owns.
    pub(crate) fn all(&self) -> Set<'a> {
        self.0.values().fold(Set::default(), |all, it| all.union(it.set.clone()))
    }

    /// Forgets versions that the kind is not served in, and brings sets to the kind's shape.
    pub(crate) fn for_kind(&mut self, kind: &AnyKind, shapes: &Shapes) {
        let known = |it: &str| kind.served.iter().any(|version| kind.api_version_as(version) == it);
        self.0.retain(|_, it| known(&it.api_version));
        let root = shapes.root();
        for owned in self.0.values_mut() {
            if let Some(set) = owned.set.reconciled(shapes, &root) {
                owned.set = set;
            }
        }
    }

    /// Takes from everybody but the author what was written and what is gone; without `force` it is
    /// refused if anything of theirs would be overwritten.
    pub(crate) fn give_way(
        &mut self,
        written: &Set<'a>,
        removed: &Set<'a>,
        author: Option<&Identity>,
        force: bool,
    ) -> Result<(), Conflicts<'a>> {
        let others = |it: &Identity| Some(it) != author;
        let conflicts: Conflicts<'a> = self
            .0
            .iter()
            .filter(|it| others(it.0))
            .map(|(identity, it)| (identity.clone(), it.set.intersection(written)))
            .filter(|it| !it.1.is_empty())
            .collect();
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        for (identity, lost) in &conflicts {
            if let Some(owned) = self.0.get_mut(identity) {
                owned.set = std::mem::take(&mut owned.set).difference(lost);
            }
        }
        for (_, owned) in self.0.iter_mut().filter(|it| others(it.0)) {
            owned.set = std::mem::take(&mut owned.set).difference(removed);
        }
        self.0.retain(|_, it| !it.set.is_empty());
        Ok(())
    }

    /// What an update changed is its author's from now on.
    pub(crate) fn take_over(
        &mut self,
        author: Identity,
        api_version: &str,
        now: &str,
        set: Set<'a>,
    ) {
        let set = set.difference(&STRIPPED);
        if set.is_empty() {
            return;
        }
        let set = match self.0.remove(&author) {
            Some(before) => set.union(before.set),
            None => set,
        };
        let (api_version, time) = (api_version.to_owned(), Some(now.to_owned()));
        self.0.insert(author, Owned { api_version, time, set });
    }

    /// Authors of updates beyond the limit become one for each version, the oldest first.
    pub(crate) fn cap(&mut self) {
        let updaters = self.0.iter().filter(|it| it.0.operation == Operation::Update);
        let seconds = |it: &Owned<'_>| {
            it.time.as_deref().and_then(Timestamp::parse).map_or(0, Timestamp::seconds)
        };
        let mut updaters: Vec<(i64, Identity)> =
            updaters.map(|(identity, it)| (seconds(it), identity.clone())).collect();
        if updaters.len() <= UPDATERS_MAX {
            return;
        }
        updaters.sort();
        let mut left = updaters.len();
        let mut first_of: BTreeMap<String, Identity> = BTreeMap::new();
        for (_, identity) in updaters {
            if left <= UPDATERS_MAX {
                return;
            }
            let Some(version) = self.0.get(&identity).map(|it| it.api_version.clone()) else {
                continue;
            };
            let bucket =
                Identity::new(ANCIENT.to_owned(), Operation::Update, &version, String::new());
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, identity);
                continue;
            };
            if !self.0.contains_key(&bucket)
                && let Some(owned) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), owned);
            }
            if identity == bucket {
                continue;
            }
            if let Some(owned) = self.0.remove(&identity)
                && let Some(merged) = self.0.get_mut(&bucket)
            {
                merged.set = std::mem::take(&mut merged.set).union(owned.set);
                merged.time = owned.time;
                left -= 1;
            }
        }
    }
}

/// What nobody owns: identity, and what the server writes.
pub(crate) static STRIPPED: LazyLock<Set<'static>> = LazyLock::new(|| {
    const METADATA: &[&str] = &[
        "clusterName",
        "creationTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    let mut set = Set::default();
    for path in [["apiVersion"], ["kind"], ["metadata"]] {
        set.insert(&path);
    }
    METADATA.iter().for_each(|it| set.insert(&["metadata", it]));
    set
});
