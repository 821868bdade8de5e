//! Where objects lie below the server's URL.

use api::{AnyKind, KindRef};
use world::ObjectKey;

/// `/api/v1/namespaces/default/pods`; of all namespaces where none is named.
pub(super) fn collection(kind: &AnyKind, namespace: &str) -> String {
    let root = match kind.group.as_str() {
        "" => format!("/api/{}", kind.version),
        group => format!("/apis/{group}/{}", kind.version),
    };
    match namespace {
        "" => format!("{root}/{}", kind.plural),
        namespace => format!("{root}/namespaces/{namespace}/{}", kind.plural),
    }
}

pub(super) fn of(kind: &KindRef, key: &ObjectKey) -> String {
    format!("{}/{}", collection(kind, &key.namespace), key.name)
}

/// What may stand in a query: `=` and `,` of selectors may not.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{core::v1::Pod, storage::v1::CSINode};

    #[test]
    fn objects_lie_where_the_api_says() {
        let pod = of(api::kind_of::<Pod>(), &ObjectKey::new("a", "p"));
        assert_eq!(pod, "/api/v1/namespaces/a/pods/p");
        let node = of(api::kind_of::<CSINode>(), &ObjectKey::cluster("n"));
        assert_eq!(node, "/apis/storage.k8s.io/v1/csinodes/n");
        assert_eq!(collection(api::kind_of::<Pod>(), ""), "/api/v1/pods");
        assert_eq!(encoded("spec.nodeName=n1"), "spec.nodeName%3Dn1");
    }
}
