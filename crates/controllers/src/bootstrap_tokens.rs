//! Takes away bootstrap tokens whose time is over.
//!
//! Upstream: `pkg/controller/bootstrap/tokencleaner.go` (1.36).

use api::core::v1::Secret;
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Watch, World};

const KIND: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";

/// Its keys are Secrets.
pub struct BootstrapTokens;

impl Controller for BootstrapTokens {
    fn name(&self) -> &'static str {
        "token-cleaner"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Secret>()]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if &*key.namespace != NAMESPACE {
            return plan;
        }
        let secret = world.get::<Secret>(key);
        let Some(secret) = secret.filter(|it| it.type_.as_deref() == Some(KIND)) else {
            return plan;
        };
        let end = secret.data.as_ref().and_then(|it| it.get("expiration"));
        let end = end.and_then(|it| std::str::from_utf8(&it.0).ok()).filter(|it| !it.is_empty());
        let Some(end) = end else { return plan };
        match Timestamp::parse(end) {
            // One that cannot be read would be good for ever.
            None => drop(plan.write([Change::delete(&*secret)])),
            Some(end) if end <= now => drop(plan.write([Change::delete(&*secret)])),
            Some(end) => plan.requeue = Some(end.since(now)),
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;

    #[test]
    fn a_token_goes_when_its_time_is_over() {
        let world = world(
            "
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData: {expiration: '1970-01-01T00:01:00Z'}
",
        );
        let key = ObjectKey::new("kube-system", "bootstrap-token-abcdef");
        let at = |seconds| {
            let now = Timestamp::from_seconds(seconds);
            BootstrapTokens.reconcile(&world, &key, now).to_string()
        };
        assert_eq!(at(50), "requeue 10s\n");
        assert_eq!(at(60), "write\n  delete Secret kube-system/bootstrap-token-abcdef\n");
    }
}
