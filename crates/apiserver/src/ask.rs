//! One request for objects: who asks what of which, and in which form the answer goes.

use crate::{
    accept::Form,
    server::Server,
    target::{Query, Target},
    user::User,
};
use api::{AnyObject, Erased, Errors, Failure, Object, core::v1::Event, events::event};
use http::HeaderMap;
use std::sync::Arc;
use world::ObjectKey;

pub(crate) struct Ask {
    pub(crate) server: Arc<Server>,
    pub(crate) user: User,
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) form: Form,
}

impl Ask {
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.target.namespace, &self.target.name)
    }

    /// `?pretty`, or a person with a browser or curl.
    pub(crate) fn is_pretty(&self) -> bool {
        if self.query.has("pretty") {
            return self.query.is("pretty");
        }
        let agent = self.headers.get(http::header::USER_AGENT).and_then(|it| it.to_str().ok());
        agent
            .is_some_and(|it| ["curl", "Wget", "Mozilla/5.0"].iter().any(|who| it.starts_with(who)))
    }

    /// Sentences about the version that was asked for.
    pub(crate) fn deprecations(&self) -> Vec<String> {
        let (kind, version) = (&self.target.kind, &*self.target.version);
        if kind.plural == "endpoints" && kind.group.is_empty() {
            let instead = "discovery.k8s.io/v1 EndpointSlice";
            return vec![format!("v1 Endpoints is deprecated in v1.33+; use {instead}")];
        }
        if *version == kind.version || version.contains('/') {
            return Vec::new();
        }
        let (old, new) = (kind.api_version_as(version), kind.api_version());
        vec![format!("{old} {0} is deprecated; use {new} {0}", kind.kind)]
    }

    /// What is asked of an object under other names besides what its kind asks.
    pub(crate) fn expect_face(
        &self,
        object: &AnyObject,
        old: Option<&dyn Erased>,
    ) -> Result<(), Failure> {
        let event = |it: &dyn Erased| it.as_any().downcast_ref::<Event>().cloned();
        let Some(new) = event(&**object).filter(|_| self.target.is_face()) else { return Ok(()) };
        let mut errors = Errors::default();
        event::validate(&new, old.and_then(event).as_ref(), &mut errors);
        crate::admit::refuse(&self.target.kind, new.name(), &errors)
    }

    /// A new object lies in the namespace of the path.
    pub(crate) fn place(&self, object: &mut AnyObject) -> Result<(), Failure> {
        let meta = object.metadata_mut();
        match meta.namespace.as_deref().unwrap_or_default() {
            "" if self.target.kind.is_namespaced() => {
                meta.namespace = Some(self.target.namespace.clone());
                Ok(())
            }
            given if given == self.target.namespace => {
                if given.is_empty() {
                    meta.namespace = None;
                }
                Ok(())
            }
            _ => Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )),
        }
    }

    /// An object that is written over another is of its name and namespace.
    pub(crate) fn expect_name(&self, object: &AnyObject) -> Result<(), Failure> {
        let (meta, target) = (object.metadata(), &self.target);
        let name = meta.name.as_deref().unwrap_or_default();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(Failure::bad_request(format!(
                "the name of the object ({} based on URL) was undeterminable: name must be provided",
                target.name
            )));
        }
        if name != target.name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name
            )));
        }
        if !target.namespace.is_empty() && !namespace.is_empty() && namespace != target.namespace {
            return Err(Failure::bad_request(format!(
                "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
                target.namespace
            )));
        }
        Ok(())
    }
}
