//! Takes away Secrets that hold a token of an account that is gone, or that is another one by now.
//!
//! Upstream: `pkg/controller/serviceaccount/tokens_controller.go` (1.36). Tokens are put into Secrets by
//! the door, which has the key.

use api::{
    Object,
    core::v1::{Secret, ServiceAccount},
};
use stdx::Timestamp;
use world::{Change, Controller, ObjectKey, Plan, Touched, Watch, World};

const KIND: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// Its keys are Secrets.
pub struct ServiceAccountTokens;

impl Controller for ServiceAccountTokens {
    fn name(&self) -> &'static str {
        "tokens-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Secret>(), Watch::mapped::<ServiceAccount>(secrets_of)]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(secret) = world.get::<Secret>(key).filter(|it| is_token(it)) else { return plan };
        if secret.is_deleting() {
            return plan;
        }
        let account = secret.annotation(NAME).unwrap_or_default();
        let account = world.get::<ServiceAccount>(&ObjectKey::new(&key.namespace, account));
        let uid = secret.annotation(UID).unwrap_or_default();
        match account {
            Some(account) if uid.is_empty() || account.uid() == uid => {
                let has = |key: &str| {
                    let value = secret.data.as_ref().and_then(|it| it.get(key));
                    value.is_some_and(|it| !it.0.is_empty())
                };
                // Writing it is enough: the door fills in what is missing.
                if !has("token") || !has("namespace") || uid.is_empty() {
                    plan.write([Change::update(secret.to_owned())]);
                }
            }
            Some(_) | None => {
                plan.write([Change::delete(&*secret)]);
            }
        }
        plan
    }
}

fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(KIND)
        && secret.annotation(NAME).is_some_and(|it| !it.is_empty())
}

/// Secrets that name an account that came or went.
fn secrets_of(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    if touched.old.is_some() && touched.new.is_some() {
        return Vec::new();
    }
    let secrets = world.list::<Secret>(&touched.key.namespace);
    let names = |it: &Secret| it.annotation(NAME) == Some(&*touched.key.name);
    secrets.filter(|it| is_token(it) && names(it)).map(|it| ObjectKey::of(&*it)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;

    const SECRET: &str = "
apiVersion: v1
kind: Secret
metadata:
  name: s
  namespace: a
  annotations: {kubernetes.io/service-account.name: x, kubernetes.io/service-account.uid: '1'}
type: kubernetes.io/service-account-token
data: {token: eA==, namespace: YQ==}
";

    fn check(account: &str) -> String {
        let world = world(&format!("{SECRET}---\n{account}"));
        let key = ObjectKey::new("a", "s");
        ServiceAccountTokens.reconcile(&world, &key, Timestamp(0)).to_string()
    }

    #[test]
    fn a_token_goes_with_its_account() {
        let account = |uid: &str| {
            format!(
                "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: x, namespace: a, uid: '{uid}'}}}}"
            )
        };
        assert_eq!(check(&account("1")), "nothing to do\n");
        assert_eq!(check(&account("2")), "write\n  delete Secret a/s\n");
        assert_eq!(check(""), "write\n  delete Secret a/s\n");
    }
}
