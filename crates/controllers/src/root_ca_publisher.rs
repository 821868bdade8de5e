//! Gives every namespace the ConfigMap `kube-root-ca.crt`: the certificate by which pods know the API
//! server. What somebody changes in it is put back.
//!
//! Upstream: `pkg/controller/certificates/rootcacertpublisher/publisher.go` (1.36).

use api::{
    core::{
        namespace,
        v1::{ConfigMap, Namespace},
    },
    meta::ObjectMeta,
};
use std::collections::BTreeMap;
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Touched, Watch, World};

const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const ABOUT: &str = "kubernetes.io/description";
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// Its keys are namespaces.
pub struct RootCaPublisher {
    certificate: String,
}

impl RootCaPublisher {
    /// `certificate`: PEM.
    pub fn new(certificate: &str) -> RootCaPublisher {
        RootCaPublisher { certificate: certificate.to_owned() }
    }
}

impl Controller for RootCaPublisher {
    fn name(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Namespace>(), Watch::mapped::<ConfigMap>(namespace_of)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let namespace = world.get::<Namespace>(key);
        if namespace.is_none_or(|it| namespace::phase(&it) != namespace::ACTIVE) {
            return plan;
        }
        let data = BTreeMap::from([(KEY.to_owned(), self.certificate.clone())]);
        let annotation = (ABOUT.to_owned(), TEXT.to_owned());
        let Some(map) = world.get::<ConfigMap>(&ObjectKey::new(&key.name, NAME)) else {
            plan.write([Change::create(ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    namespace: Some(key.name.to_string()),
                    annotations: Some(BTreeMap::from([annotation])),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                ..ConfigMap::default()
            })]);
            return plan;
        };
        let told = map.metadata.annotations.as_ref().and_then(|it| it.get(ABOUT));
        if map.data.as_ref() == Some(&data) && told == Some(&annotation.1) {
            return plan;
        }
        let mut map = map.to_owned();
        map.data = Some(data);
        map.metadata.annotations.get_or_insert_default().extend([annotation]);
        plan.write([Change::update(map)]);
        plan
    }
}

fn namespace_of(_world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let ours = &*touched.key.name == NAME;
    ours.then(|| ObjectKey::cluster(&touched.key.namespace)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{load, world};

    #[test]
    fn a_namespace_gets_the_certificate_and_keeps_it() {
        let publisher = RootCaPublisher::new("PEM");
        let key = ObjectKey::cluster("a");
        let before = world("{apiVersion: v1, kind: Namespace, metadata: {name: a}}");
        let plan = publisher.reconcile(&before, &key, Timestamp(0));
        assert_eq!(plan.to_string(), "write\n  create ConfigMap a/kube-root-ca.crt\n");
        let mut world = before.after(&plan, Timestamp(0));
        assert!(publisher.reconcile(&world, &key, Timestamp(0)).is_empty());
        let edited = "{apiVersion: v1, kind: ConfigMap, metadata: {name: kube-root-ca.crt, namespace: a}, data: {ca.crt: other}}";
        load(&mut world, edited);
        let plan = publisher.reconcile(&world, &key, Timestamp(0));
        assert_eq!(plan.to_string(), "write\n  update ConfigMap a/kube-root-ca.crt\n");
    }

    #[test]
    fn a_namespace_on_its_way_out_gets_none() {
        let going =
            "{apiVersion: v1, kind: Namespace, metadata: {name: a}, status: {phase: Terminating}}";
        let key = ObjectKey::cluster("a");
        let publisher = RootCaPublisher::new("PEM");
        assert!(publisher.reconcile(&world(going), &key, Timestamp(0)).is_empty());
    }
}
