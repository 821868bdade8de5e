//! What a node may do: with its own objects what it must, and with others' objects only what its pods
//! name. What it writes is judged once more by admission, which sees the object.
//!
//! Upstream: `plugin/pkg/auth/authorizer/node/{node_authorizer,graph}.go`; NodeRules in
//! `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go`. Deviation: no graph is kept; the pods of
//! the node are looked at when it asks.

use super::{About, Objects, Verdict, Wish};
use crate::view::View;
use api::{
    Object,
    core::{
        persistent_volume::claim_ref,
        pod::{self, references},
        v1::{PersistentVolume, Pod},
    },
    storage::v1::VolumeAttachment,
};
use world::{ObjectKey, Typed};

const LEASES: &str = "kube-node-lease";

/// What every node may do with objects that are not told apart: group, resource, verbs.
const RULES: &[(&str, &str, &[&str])] = &[
    ("", "endpoints", &["get"]),
    ("", "events", &["create", "update", "patch"]),
    ("", "services", &["get", "list", "watch"]),
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "localsubjectaccessreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["create", "get", "list", "watch"]),
    ("events.k8s.io", "events", &["create", "update", "patch"]),
    ("node.k8s.io", "runtimeclasses", &["get", "list", "watch"]),
    ("storage.k8s.io", "csidrivers", &["get", "list", "watch"]),
];

pub(super) fn authorize(view: &View, node: &str, wish: &Wish<'_>) -> Verdict {
    let About::Objects(it) = wish.about else { return Verdict::no("") };
    let asker = Asker { view, node, verb: wish.verb, it };
    match (it.group, it.resource) {
        ("", "secrets") => asker.read(|it| it.has_secret()),
        ("", "configmaps") => asker.read(|it| it.pods_here().any(|pod| it.names_map(&pod))),
        ("", "persistentvolumeclaims") if it.subresource == "status" => match wish.verb {
            "update" | "patch" => asker.related(|it| it.has_claim(it.it.namespace, it.it.name)),
            _ => Verdict::no("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims") => asker.get(|it| it.has_claim(it.it.namespace, it.it.name)),
        ("", "persistentvolumes") => asker.get(Asker::has_volume),
        ("storage.k8s.io", "volumeattachments") => asker.get(Asker::has_attachment),
        ("", "serviceaccounts") => asker.account(),
        ("coordination.k8s.io", "leases") => asker.lease(),
        ("storage.k8s.io", "csinodes") => asker.csi_node(),
        ("", "nodes") => asker.node(),
        ("", "pods") => asker.pod(),
        (group, resource) => {
            let known = RULES.iter().find(|rule| rule.0 == group && rule.1 == resource);
            match known {
                Some((_, _, verbs)) if it.subresource.is_empty() && verbs.contains(&wish.verb) => {
                    Verdict::yes("")
                }
                _ => Verdict::no(""),
            }
        }
    }
}

struct Asker<'a> {
    view: &'a View,
    node: &'a str,
    verb: &'a str,
    it: Objects<'a>,
}

impl<'a> Asker<'a> {
    fn pods(&self) -> impl Iterator<Item = Typed<Pod>> + use<'a> {
        self.view.world.indexed::<Pod>("node", self.node)
    }

    fn pods_here(&self) -> impl Iterator<Item = Typed<Pod>> + use<'a> {
        let namespace = self.it.namespace;
        self.pods().filter(move |it| it.namespace() == namespace)
    }

    fn related(&self, is: impl Fn(&Self) -> bool) -> Verdict {
        if self.it.name.is_empty() {
            return Verdict::no("No Object name found");
        }
        if is(self) {
            return Verdict::yes("");
        }
        let node = self.node;
        Verdict::no(format!("no relationship found between node '{node}' and this object"))
    }

    fn get(&self, is: impl Fn(&Self) -> bool) -> Verdict {
        match (self.verb, self.it.subresource) {
            ("get", "") => self.related(is),
            ("get", _) => Verdict::no("cannot get subresource"),
            _ => Verdict::no("can only get individual resources of this type"),
        }
    }

    fn read(&self, is: impl Fn(&Self) -> bool) -> Verdict {
        if !matches!(self.verb, "get" | "list" | "watch") {
            return Verdict::no("can only read resources of this type");
        }
        if !self.it.subresource.is_empty() {
            return Verdict::no("cannot read subresource");
        }
        if self.it.namespace.is_empty() {
            return Verdict::no("can only read namespaced object of this type");
        }
        self.related(is)
    }

    fn names_map(&self, pod: &Pod) -> bool {
        references::config_maps(pod).contains(&self.it.name)
    }

    /// A Secret that a pod of this node names, or one of the volumes of its claims.
    fn has_secret(&self) -> bool {
        let (namespace, name) = (self.it.namespace, self.it.name);
        self.pods_here().any(|it| references::secrets(&it).contains(&name))
            || self.pods().any(|pod| {
                pod::claims(&pod).iter().any(|(_, claim)| {
                    let key = format!("{}/{claim}", pod.namespace());
                    let volumes = self.view.world.indexed::<PersistentVolume>("claim", &key);
                    volumes.into_iter().any(|it| volume_names(&it, namespace, name))
                })
            })
    }

    fn has_claim(&self, namespace: &str, name: &str) -> bool {
        self.pods().any(|pod| {
            pod.namespace() == namespace && pod::claims(&pod).iter().any(|it| it.1 == name)
        })
    }

    fn has_volume(&self) -> bool {
        let volume = self.view.world.cluster::<PersistentVolume>(self.it.name);
        let claim = volume.as_ref().and_then(|it| claim_ref(it));
        claim.is_some_and(|it| {
            let part = |it: &'_ Option<String>| it.clone().unwrap_or_default();
            self.has_claim(&part(&it.namespace), &part(&it.name))
        })
    }

    fn has_attachment(&self) -> bool {
        let attachment = self.view.world.cluster::<VolumeAttachment>(self.it.name);
        attachment.is_some_and(|it| it.spec.node_name == self.node)
    }

    /// Tokens of accounts that pods of this node run as.
    fn account(&self) -> Verdict {
        let runs = |it: &Self| {
            it.pods_here().any(|pod| {
                let account = pod.spec.as_ref().and_then(|it| it.service_account_name.as_deref());
                account == Some(it.it.name)
            })
        };
        match (self.verb, self.it.subresource) {
            ("get", "") => self.read(runs),
            ("create", "token") => self.related(runs),
            ("create", _) => Verdict::no("can only create token subresource of serviceaccount"),
            _ => Verdict::no("can only create tokens for individual service accounts"),
        }
    }

    fn lease(&self) -> Verdict {
        if !matches!(self.verb, "get" | "create" | "update" | "patch" | "delete") {
            return Verdict::no("can only get, create, update, patch, or delete a node lease");
        }
        if self.it.namespace != LEASES {
            return Verdict::no(format!(
                "can only access leases in the {LEASES:?} system namespace"
            ));
        }
        if self.verb != "create" && self.it.name != self.node {
            let why = "can only access node lease with the same name as the requesting node";
            return Verdict::no(why);
        }
        Verdict::yes("")
    }

    fn csi_node(&self) -> Verdict {
        if !matches!(self.verb, "get" | "create" | "update" | "patch" | "delete") {
            return Verdict::no("can only get, create, update, patch, or delete a CSINode");
        }
        if !self.it.subresource.is_empty() {
            return Verdict::no("cannot authorize CSINode subresources");
        }
        if self.verb != "create" && self.it.name != self.node {
            let why = "can only access CSINode with the same name as the requesting node";
            return Verdict::no(why);
        }
        Verdict::yes("")
    }

    fn node(&self) -> Verdict {
        let (node, name) = (self.node, self.it.name);
        match (self.it.subresource, self.verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => {
                Verdict::yes("")
            }
            ("", "get" | "list" | "watch") if name == node => Verdict::yes(""),
            ("", "get" | "list" | "watch") if name.is_empty() => Verdict::no(format!(
                "node '{node}' cannot read all nodes, only its own Node object"
            )),
            ("", "get" | "list" | "watch") => {
                Verdict::no(format!("node '{node}' cannot read '{name}', only its own Node object"))
            }
            _ => Verdict::no(""),
        }
    }

    fn pod(&self) -> Verdict {
        let own = |it: &Self| {
            let key = ObjectKey::new(it.it.namespace, it.it.name);
            let pod = it.view.world.get::<Pod>(&key);
            pod.is_some_and(|pod| pod::node_name(&pod) == it.node)
        };
        match (self.it.subresource, self.verb) {
            ("", "get") => self.related(own),
            ("", "list" | "watch") => {
                let wanted = format!("spec.nodeName={}", self.node);
                let same = format!("spec.nodeName=={}", self.node);
                if self.it.fields.split(',').any(|it| it == wanted || it == same) {
                    return Verdict::yes("");
                }
                match self.it.name {
                    "" => Verdict::no("can only list/watch pods with spec.nodeName field selector"),
                    _ => self.related(own),
                }
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Verdict::yes("")
            }
            _ => Verdict::no(""),
        }
    }
}

/// Whether a volume needs this Secret on the node that mounts it.
fn volume_names(volume: &PersistentVolume, namespace: &str, name: &str) -> bool {
    let Some(spec) = &volume.spec else { return false };
    let own = claim_ref(volume).and_then(|it| it.namespace.as_deref()).unwrap_or_default();
    let csi = spec.csi.iter().flat_map(|it| {
        [&it.node_publish_secret_ref, &it.node_stage_secret_ref, &it.node_expand_secret_ref]
    });
    let references = [
        spec.cephfs.as_ref().and_then(|it| it.secret_ref.as_ref()),
        spec.flex_volume.as_ref().and_then(|it| it.secret_ref.as_ref()),
        spec.iscsi.as_ref().and_then(|it| it.secret_ref.as_ref()),
        spec.rbd.as_ref().and_then(|it| it.secret_ref.as_ref()),
        spec.scale_io.as_ref().map(|it| &it.secret_ref),
    ];
    let references = references.into_iter().chain(csi.map(Option::as_ref)).flatten();
    let azure = spec
        .azure_file
        .as_ref()
        .map(|it| (it.secret_namespace.as_deref().unwrap_or(own), it.secret_name.as_str()));
    let named = references.map(|it| {
        let place = it.namespace.as_deref().filter(|it| !it.is_empty()).unwrap_or(own);
        (place, it.name.as_deref().unwrap_or_default())
    });
    named.chain(azure).any(|it| it == (namespace, name))
}
