//! What an image is called: `nginx:1.9.1` and `docker.io/library/nginx:1.9.1` are one name.
//!
//! Upstream: the grammar of github.com/distribution/reference, as kubelet applies it to `image:`.

use super::{Digest, ImageError, Result};
use std::fmt;

/// Names are at most this long without tag and digest, as registries demand.
const NAME_BYTES_MAX: usize = 255;

/// A whole name: host, path, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Fills in `docker.io`, `library/` and `latest` where they are left out.
    pub fn parse(text: &str) -> Result<Reference> {
        let refuse = |reason| ImageError::Reference { name: text.to_owned(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| refuse("its digest is not sha256"))?))
            }
            None => (text, None),
        };
        // A colon before the last slash belongs to the host's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse("its tag has other characters than letters, digits, _ . and -"));
        }
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path),
            _ => ("docker.io", name),
        };
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let path = match (host, path.contains('/')) {
            ("docker.io", false) => format!("library/{path}"),
            _ => path.to_owned(),
        };
        if name.is_empty() {
            return Err(refuse("it has no name"));
        }
        if host.len() + path.len() > NAME_BYTES_MAX {
            return Err(refuse("it is longer than 255 bytes"));
        }
        if path.chars().any(char::is_uppercase) {
            return Err(refuse("the repository name must be lowercase"));
        }
        let host_is_plain = host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
            && host.bytes().all(|c| c.is_ascii_alphanumeric() || b"-.:[]".contains(&c));
        if !host_is_plain || !path.split('/').all(is_component) {
            return Err(refuse("invalid reference format"));
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Reference { host: host.to_owned(), path, tag, digest })
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `docker.io`, `localhost:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `library/nginx`
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub(super) fn wanted(&self) -> String {
        let tag = || self.tag.clone().unwrap_or_else(|| "latest".to_owned());
        self.digest.as_ref().map_or_else(tag, Digest::to_string)
    }

    /// Host and path, without tag and digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The short form that people type: without `docker.io/library/`.
    pub fn familiar(&self) -> String {
        let whole = self.to_string();
        let short = whole.strip_prefix("docker.io/").unwrap_or(&whole);
        short.strip_prefix("library/").unwrap_or(short).to_owned()
    }

    pub(super) fn without_digest(&self) -> Reference {
        Reference { digest: None, ..self.clone() }
    }

    pub(super) fn has_tag(&self) -> bool {
        self.tag.is_some()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A first component is a host only if it cannot be a folder of docker.io.
fn is_host(component: &str) -> bool {
    component.contains(['.', ':'])
        || component == "localhost"
        || component.chars().any(char::is_uppercase)
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=128).contains(&tag.len())
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let joints = component.split(plain).filter(|joint| !joint.is_empty());
    component.starts_with(plain)
        && component.ends_with(plain)
        && joints.into_iter().all(|j| matches!(j, "." | "_" | "__") || j.chars().all(|c| c == '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &str, whole: &str, familiar: &str) {
        let reference = Reference::parse(typed).unwrap();
        assert_eq!(reference.to_string(), whole);
        assert_eq!(reference.familiar(), familiar);
        assert_eq!(Reference::parse(whole).unwrap(), reference, "the whole form means the same");
    }

    #[test]
    fn fills_in_what_is_left_out() {
        check("nginx", "docker.io/library/nginx:latest", "nginx:latest");
        check("nginx:1.9.1", "docker.io/library/nginx:1.9.1", "nginx:1.9.1");
        check("docker.io/nginx:1", "docker.io/library/nginx:1", "nginx:1");
        check("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest");
        check("k8s.gcr.io/x:0.8", "k8s.gcr.io/x:0.8", "k8s.gcr.io/x:0.8");
        check("localhost/x", "localhost/x:latest", "localhost/x:latest");
        check("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest");
        check("a/b__c-d--e.f:V_1", "docker.io/a/b__c-d--e.f:V_1", "a/b__c-d--e.f:V_1");
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = Digest::of(b"");
        check(
            &format!("nginx@{digest}"),
            &format!("docker.io/library/nginx@{digest}"),
            &format!("nginx@{digest}"),
        );
        assert_eq!(
            Reference::parse(&format!("q.io/x:1@{digest}")).unwrap().to_string(),
            format!("q.io/x:1@{digest}")
        );
    }

    #[test]
    fn refuses_what_is_no_name() {
        for bad in
            ["", ":1", "Nginx", "a//b", "a/", "a b", "a:b c", "../x", "a@sha256:1", "-a", "a:"]
        {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }
}
