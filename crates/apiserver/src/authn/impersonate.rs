//! Acting as somebody else: `Impersonate-User` and its companions, each part of the new identity
//! allowed by a rule of its own.
//!
//! Upstream: `apiserver/pkg/endpoints/filters/impersonation/impersonation.go`.

use crate::{
    authz::{About, Objects, Wish},
    server::Server,
    target::decode,
    user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User, account, account_groups},
    view::View,
};
use api::Failure;
use http::HeaderMap;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const GROUP_OF_REVIEWS: &str = "authentication.k8s.io";

impl Server {
    /// Whom the author wants to be taken for; `None`: for themselves.
    pub(crate) fn impersonated(
        &self,
        view: &View,
        author: &User,
        headers: &HeaderMap,
    ) -> Result<Option<User>, Failure> {
        let all = |name: &'static str| {
            headers.get_all(name).iter().filter_map(|it| it.to_str().ok()).map(str::to_owned)
        };
        let name = all(USER).next().unwrap_or_default();
        let given: Vec<String> = all(GROUP).collect();
        let uid = all(UID).next().unwrap_or_default();
        let extra: Vec<(String, String)> = headers
            .iter()
            .filter_map(|(key, value)| {
                let key = key.as_str().strip_prefix(EXTRA)?;
                Some((decode(key), value.to_str().ok()?.to_owned()))
            })
            .collect();
        if name.is_empty() {
            if given.is_empty() && uid.is_empty() && extra.is_empty() {
                return Ok(None);
            }
            let shown: Vec<&str> = given.iter().map(String::as_str).chain([uid.as_str()]).collect();
            let why = format!("requested {shown:?} without impersonating a user");
            return Err(Failure::bad_request(why));
        }
        let permit = |about: Objects<'_>| {
            let wish = Wish { verb: "impersonate", about: About::Objects(about) };
            self.permit(view, author, &wish)
        };
        let mut user = User { name, uid, ..User::default() };
        match account(&user.name) {
            Some((namespace, name)) => {
                let resource = "serviceaccounts";
                permit(Objects { resource, namespace, name, ..Objects::default() })?;
                if given.is_empty() {
                    user.groups = account_groups(namespace);
                }
            }
            None => {
                let (resource, name) = ("users", user.name.as_str());
                permit(Objects { resource, name, ..Objects::default() })?;
            }
        }
        for name in &given {
            permit(Objects { resource: "groups", name, ..Objects::default() })?;
            user.groups.push(name.clone());
        }
        let group = GROUP_OF_REVIEWS;
        for (key, name) in extra {
            let resource = "userextras";
            let about =
                Objects { group, resource, subresource: &key, name: &name, ..Objects::default() };
            permit(about)?;
            user.extra.entry(key).or_default().push(name);
        }
        if !user.uid.is_empty() {
            let (resource, name) = ("uids", user.uid.as_str());
            permit(Objects { group, resource, name, ..Objects::default() })?;
        }
        let is_anonymous = user.name == ANONYMOUS;
        if is_anonymous && !user.is_in(UNAUTHENTICATED) {
            user.groups.push(UNAUTHENTICATED.to_owned());
        }
        if !is_anonymous && !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(Some(user))
    }
}
