//! Who asks: a name and the groups that it belongs to.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
    /// A loop of this process: trusted as the process itself is.
    pub(crate) inside: bool,
}

impl User {
    pub(crate) fn inside(name: &str) -> User {
        User { name: name.to_owned(), groups: Vec::new(), inside: true }
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|it| it == group)
    }
}
