//! What a path and its query name.
//!
//! Upstream: `apiserver/pkg/endpoints/request/requestinfo.go`.

use api::KindRef;

/// The parameters of a query, decoded, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|it| !it.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
        });
        Query(pairs.collect())
    }

    /// Empty when it is not there.
    pub(crate) fn one(&self, key: &str) -> &str {
        self.0.iter().find(|it| it.0 == key).map_or("", |it| &it.1)
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |it| it.0 == key).map(|it| it.1.as_str())
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|it| it.0 == key)
    }

    /// `true` and `1`, as Go reads them.
    pub(crate) fn is(&self, key: &str) -> bool {
        matches!(self.one(key), "1" | "t" | "T" | "true" | "TRUE" | "True")
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Undoes percent-encoding; what is no encoding stays.
pub(crate) fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Percent-encodes one part of a path or a query.
pub(crate) fn encode(text: &str) -> String {
    let plain = |it: u8| it.is_ascii_alphanumeric() || b"-_.~".contains(&it);
    let encoded = text.bytes().map(|it| match plain(it) {
        true => char::from(it).to_string(),
        false => format!("%{it:02X}"),
    });
    encoded.collect()
}

/// An object, or all objects of a kind, by path.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: KindRef,
    /// The version asked for: one of those that the kind is served in, or, with its group, another
    /// face of the kind.
    pub(crate) version: String,
    /// Empty: all namespaces, or objects of the cluster.
    pub(crate) namespace: String,
    /// Empty: the whole list.
    pub(crate) name: String,
    /// Empty: the object itself.
    pub(crate) subresource: String,
    /// What follows `proxy`, still encoded: empty, or with a slash before it.
    pub(crate) rest: String,
}

impl Target {
    /// Reads `/api/v1/namespaces/default/pods/web-0/log` and the like. `None`: no such path.
    pub(crate) fn parse(kinds: &[KindRef], path: &str) -> Option<Target> {
        let (path, rest) = split_proxy(path);
        let mut segments: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        if segments.len() < 3 || segments.iter().any(String::is_empty) {
            return None;
        }
        let group = match segments.remove(0).as_str() {
            "api" => String::new(),
            "apis" => segments.remove(0),
            _ => return None,
        };
        let version = segments.remove(0);
        let mut namespace = String::new();
        // `namespaces/x` is the namespace itself; `namespaces/x/pods` lies in it.
        let below = |it: &str| !matches!(it, "status" | "finalize");
        let inside = segments.first().is_some_and(|it| it == "namespaces")
            && segments.get(2).is_some_and(|it| below(it));
        if inside {
            namespace = segments.remove(1);
            segments.remove(0);
        }
        let mut segments = segments.into_iter();
        let plural = segments.next()?;
        let served = |it: &&KindRef| {
            it.group == group && it.plural == plural && it.served.contains(&version)
        };
        let kind = kinds.iter().find(served)?.clone();
        if kind.is_namespaced() == namespace.is_empty() && segments.len() > 0
            || inside && !kind.is_namespaced()
        {
            return None;
        }
        let name = segments.next().unwrap_or_default();
        let subresource = segments.next().unwrap_or_default();
        if segments.next().is_some() {
            return None;
        }
        let (kind, version) = match kind.is_face() {
            true => {
                let face = kind.api_version_as(&version);
                (kinds.iter().find(|it| it.storage == kind.storage)?.clone(), face)
            }
            false => (kind, version),
        };
        Some(Target { kind, version, namespace, name, subresource, rest: rest.to_owned() })
    }

    /// Whether the objects are asked for under other names than they are stored with.
    pub(crate) fn is_face(&self) -> bool {
        self.version.contains('/')
    }

    /// The group of the path: what roles are about. That of the stored kind may be another.
    pub(crate) fn group(&self) -> &str {
        self.version.split_once('/').map_or(&self.kind.group, |it| it.0)
    }

    /// `/api/v1/pods`
    pub(crate) fn is_all_namespaces(&self) -> bool {
        self.kind.is_namespaced() && self.namespace.is_empty()
    }
}

/// The object's part of `/api/v1/namespaces/a/pods/b/proxy/c//d/`, and the rest, which is somebody else's path.
fn split_proxy(path: &str) -> (&str, &str) {
    let parts: Vec<&str> = path.trim_start_matches('/').splitn(8, '/').collect();
    let depth = match parts.as_slice() {
        ["api", _, "namespaces", _, _, _, "proxy", ..] => 7,
        ["api", _, _, _, "proxy", ..] => 5,
        _ => return (path, ""),
    };
    let slash = path.match_indices('/').nth(depth).map(|it| it.0);
    path.split_at(slash.unwrap_or(path.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_path() {
        for (path, expected) in [
            ("/api/v1/pods", "pods   "),
            ("/api/v1/namespaces", "namespaces   "),
            ("/api/v1/namespaces/a", "namespaces  a "),
            ("/api/v1/namespaces/a/finalize", "namespaces  a finalize"),
            ("/api/v1/namespaces/a/pods", "pods a  "),
            ("/api/v1/namespaces/a/pods/b/log", "pods a b log"),
            ("/apis/apps/v1/namespaces/a/statefulsets/b", "statefulsets a b "),
            ("/apis/events.k8s.io/v1/namespaces/a/events/b", "events a b "),
            ("/apis/storage.k8s.io/v1beta1/storageclasses/x%2Ey", "storageclasses  x.y "),
        ] {
            let it = Target::parse(api::kinds(), path).expect(path);
            let read =
                format!("{} {} {} {}", it.kind.plural, it.namespace, it.name, it.subresource);
            assert_eq!(read, expected, "{path}");
        }
        for path in [
            "/api/v1",
            "/api/v2/pods",
            "/api/v1/pods/x",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/pods/b/log/c",
            "/apis/apps/v1beta1/statefulsets",
            "/x/y/z",
        ] {
            assert!(Target::parse(api::kinds(), path).is_none(), "{path}");
        }
    }

    #[test]
    fn what_follows_proxy_stays_as_it_was_written() {
        for (path, name, rest) in [
            ("/api/v1/namespaces/a/pods/b/proxy", "b", ""),
            ("/api/v1/namespaces/a/pods/b:80/proxy/", "b:80", "/"),
            ("/api/v1/namespaces/a/services/https:b:x/proxy/c//d%2Fe/", "https:b:x", "/c//d%2Fe/"),
            ("/api/v1/nodes/n1/proxy/stats/proxy/x", "n1", "/stats/proxy/x"),
        ] {
            let it = Target::parse(api::kinds(), path).expect(path);
            let read = (it.name.as_str(), it.subresource.as_str(), it.rest.as_str());
            assert_eq!(read, (name, "proxy", rest), "{path}");
        }
    }

    #[test]
    fn another_face_keeps_its_group() {
        let group = |path: &str| Target::parse(api::kinds(), path).unwrap().group().to_owned();
        assert_eq!(group("/apis/events.k8s.io/v1/events"), "events.k8s.io");
        assert_eq!(group("/api/v1/events"), "");
        assert_eq!(group("/apis/apps/v1/statefulsets"), "apps");
    }

    #[test]
    fn reads_a_query() {
        let query = Query::parse("a=b+c&a=d%2Ce&watch=1&x");
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["b c", "d,e"]);
        assert!(query.is("watch") && query.has("x") && !query.is("x"));
        assert_eq!(encode("a b/c"), "a%20b%2Fc");
    }
}
