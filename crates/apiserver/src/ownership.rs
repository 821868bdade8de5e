//! Whose a write is: the name under which its author owns fields, and the list of owners after it.
//!
//! Loops of this process own fields as upstream's processes do, so that who applies meets the same
//! conflicts. Events that they record have no list: there are many, and nobody applies events.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/create.go`, managerOrUserAgent.

use crate::{
    admit::Part,
    ask::Ask,
    body::invalid_options,
    fields::{
        reset::Filter,
        update::{Author, Given, Stored, updated},
    },
    server::Server,
    target::Query,
    user::User,
    view::is_event,
};
use api::{AnyKind, AnyObject, Failure, Subresource};
use http::header;
use world::Row;

/// Upstream's limit for the name of an author, in bytes.
const NAME_MAX: usize = 128;

/// What becomes of the owners of an object when it is written.
pub(crate) enum Ownership {
    /// What changes is theirs; each judges its part of the object.
    By(Vec<Author>),
    /// Worked out already.
    Settled(Option<String>),
    /// Nothing: the path writes for nobody.
    Kept,
}

impl Ownership {
    /// The author of a request.
    pub(crate) fn of(ask: &Ask) -> Ownership {
        Ownership::By(vec![author(ask, &ask.target.subresource)])
    }

    /// A loop of this process, or a subresource that does its own work.
    pub(crate) fn of_user(server: &Server, kind: &AnyKind, user: &User, part: Part) -> Ownership {
        let is_binding = part == Part::Both && kind.plural == "pods" && kind.group.is_empty();
        if !user.inside || is_event(kind) || is_binding {
            return Ownership::Kept;
        }
        let author = |subresource: &str, filter| Author {
            manager: manager_of(&user.name).to_owned(),
            api_version: kind.api_version(),
            subresource: subresource.to_owned(),
            filter,
            now: server.now().rfc3339(),
        };
        let own = || author("", Filter::of(kind, ""));
        Ownership::By(match part {
            Part::Status => vec![author("status", Filter::of(kind, "status"))],
            Part::Both if kind.has(Subresource::Status) => {
                vec![own(), author("status", Filter::Only(&[&["status"]]))]
            }
            Part::Own | Part::Both => vec![own()],
            Part::Approval => vec![author("approval", Filter::of(kind, "approval"))],
            Part::Finalize => vec![author("finalize", Filter::of(kind, "finalize"))],
            Part::Of(part) => vec![author(part.name(), Filter::of(kind, part.name()))],
        })
    }
}

/// Who writes by a request, through a path of its own or through the object's.
pub(crate) fn author(ask: &Ask, subresource: &str) -> Author {
    let given = ask.query.one("fieldManager");
    let agent = ask.headers.get(header::USER_AGENT).and_then(|it| it.to_str().ok());
    let manager = match given {
        "" => prefix(agent.unwrap_or_default()),
        given => given.to_owned(),
    };
    Author {
        manager,
        api_version: ask.target.kind.api_version_as(&ask.target.version),
        subresource: subresource.to_owned(),
        filter: Filter::of(&ask.target.kind, subresource),
        now: ask.server.now().rfc3339(),
    }
}

/// `kubectl/v1.32.0 (linux/amd64)` → `kubectl`
fn prefix(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or_default();
    let mut prefix = String::new();
    for letter in name.chars().filter(|it| !it.is_control()) {
        if prefix.len() + letter.len_utf8() > NAME_MAX {
            break;
        }
        prefix.push(letter);
    }
    prefix
}

/// As upstream's processes are called.
fn manager_of(user: &str) -> &str {
    match user.rsplit_once(':') {
        Some(("system:serviceaccount:kube-system", _)) => "kube-controller-manager",
        Some(("system:node", _)) => "kubelet",
        Some((_, name)) => name,
        None => user,
    }
}

/// Whether the name of an author is fit; `required`: for apply.
pub(crate) fn check_manager(query: &Query, options: &str, required: bool) -> Result<(), Failure> {
    let name = query.one("fieldManager");
    let refuse = |why: String| Err(invalid_options(options, &why));
    if required && name.is_empty() {
        return refuse("fieldManager: Required value: is required for apply patch".to_owned());
    }
    if !required && query.has("force") && options == "PatchOptions" {
        return refuse("force: Forbidden: may not be specified for non-apply patch".to_owned());
    }
    if name.len() > NAME_MAX {
        return refuse(format!("fieldManager: Too long: may not be more than {NAME_MAX} bytes"));
    }
    match name.char_indices().find(|it| it.1.is_control()) {
        None => Ok(()),
        Some((at, letter)) => refuse(format!(
            "fieldManager: Invalid value: {name:?}: invalid character U+{:04X} (at position {at})",
            u32::from(letter)
        )),
    }
}

/// What the author of an object says of managedFields; taken out of it.
pub(crate) fn given(object: &mut AnyObject) -> Given {
    match api::codec::take_managed(object.metadata_mut()).as_deref() {
        None => Given::Nothing,
        Some("[]" | "[{}]") => Given::Reset,
        Some(list) => Given::Entries(list.to_owned()),
    }
}

impl Server {
    /// The list of owners after a write of `object` over `row`.
    pub(crate) fn owners(
        &self,
        kind: &AnyKind,
        row: Option<&Row>,
        object: &AnyObject,
        given: &Given,
        ownership: Ownership,
    ) -> Option<String> {
        let before = row.and_then(Row::managed);
        let authors = match ownership {
            Ownership::Settled(list) => return list,
            Ownership::Kept => return before.map(str::to_owned),
            Ownership::By(authors) => authors,
        };
        let shapes = self.shapes.of(kind);
        let new = object.encode();
        let new = std::str::from_utf8(&new).expect("JSON is UTF-8");
        let plain = row.map(Row::plain);
        let live = plain.as_ref().and_then(|it| std::str::from_utf8(it).ok());
        let live = live.map(|json| Stored { json, managed: before });
        updated(kind, &shapes, live, new, given, &authors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_are_called_as_upstream_calls_them() {
        assert_eq!(prefix("kubectl/v1.32.0 (linux/amd64) kubernetes/70d3cc9"), "kubectl");
        assert_eq!(prefix("a\tb"), "ab");
        assert_eq!(prefix(&"é".repeat(100)).len(), 128);
        let loops = [
            ("system:serviceaccount:kube-system:statefulset-controller", "kube-controller-manager"),
            ("system:kube-scheduler", "kube-scheduler"),
            ("system:node:n1", "kubelet"),
            ("tester", "tester"),
        ];
        for (user, manager) in loops {
            assert_eq!(manager_of(user), manager);
        }
    }

    #[test]
    fn options_are_judged_in_upstreams_words() {
        let why = |query: &str, required| {
            let query = Query::parse(query);
            check_manager(&query, "PatchOptions", required).unwrap_err().message
        };
        let head = "PatchOptions.meta.k8s.io \"\" is invalid: ";
        assert_eq!(
            why("", true),
            format!("{head}fieldManager: Required value: is required for apply patch")
        );
        assert_eq!(
            why("force=true", false),
            format!("{head}force: Forbidden: may not be specified for non-apply patch")
        );
        assert!(why(&format!("fieldManager={}", "x".repeat(129)), true).ends_with("128 bytes"));
        assert!(
            why("fieldManager=a%0ab", true).ends_with("invalid character U+000A (at position 1)")
        );
        assert!(
            check_manager(&Query::parse("fieldManager=a&force=true"), "PatchOptions", true).is_ok()
        );
    }
}
