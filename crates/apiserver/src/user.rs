//! Who asks: a name and the groups that it belongs to.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Everybody who proved who they are.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
pub(crate) const ANONYMOUS: &str = "system:anonymous";
/// Its members may do everything, whatever the rules say.
pub(crate) const MASTERS: &str = "system:masters";
const ACCOUNT: &str = "system:serviceaccount:";
const NODE: &str = "system:node:";
pub(crate) const NODES: &str = "system:nodes";
/// Extra field: which credential was shown, never the credential itself.
pub(crate) const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
    /// A loop of this process: trusted as the process itself is.
    pub(crate) inside: bool,
}

impl User {
    pub(crate) fn inside(name: &str) -> User {
        User { name: name.to_owned(), inside: true, ..User::default() }
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|it| it == group)
    }

    /// Whether no rule holds for it: the process itself, and the cluster's masters.
    pub(crate) fn is_master(&self) -> bool {
        self.inside || self.is_in(MASTERS)
    }

    /// The name of the node that it is, if it is one.
    pub(crate) fn node(&self) -> Option<&str> {
        let name = self.name.strip_prefix(NODE).filter(|it| !it.is_empty())?;
        self.is_in(NODES).then_some(name)
    }

    /// As reviews and audit events show it.
    pub(crate) fn to_json(&self) -> Value {
        let mut shown = Map::new();
        shown.insert("username".to_owned(), self.name.as_str().into());
        if !self.uid.is_empty() {
            shown.insert("uid".to_owned(), self.uid.as_str().into());
        }
        if !self.groups.is_empty() {
            shown.insert("groups".to_owned(), self.groups.clone().into());
        }
        if !self.extra.is_empty() {
            let extra = self.extra.iter().map(|(key, it)| (key.clone(), it.clone().into()));
            shown.insert("extra".to_owned(), Value::Object(extra.collect()));
        }
        Value::Object(shown)
    }
}

/// The user that a service account is.
pub(crate) fn account_name(namespace: &str, name: &str) -> String {
    format!("{ACCOUNT}{namespace}:{name}")
}

/// The groups that a service account is in by its namespace.
pub(crate) fn account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

/// Namespace and name of the service account that a user is.
pub(crate) fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}
