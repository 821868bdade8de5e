//! A server of its own for each test.

use apiserver::{Config, Server};
use std::sync::Arc;
use stdx::{SystemClock, SystemEntropy};
use store::{Store, backend::Memory};

pub(crate) fn config() -> Config {
    Config {
        service_cidr: "10.96.0.0/12".to_owned(),
        admission_enabled: Default::default(),
        admission_disabled: Default::default(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::default()),
        version: "v1.36.0+stanchion".to_owned(),
        node_proxy: None,
    }
}

pub(crate) async fn open() -> Arc<Server> {
    open_on(Arc::new(Memory::new(Arc::new(SystemClock)))).await
}

pub(crate) async fn open_on(store: Arc<dyn Store>) -> Arc<Server> {
    apiserver::open(store, config()).await.expect("a ledger in memory opens")
}

/// An object from its JSON.
pub(crate) fn object<T: api::Kind>(json: serde_json::Value) -> T {
    let mut json = json;
    json["apiVersion"] = T::API_VERSION.into();
    json["kind"] = T::KIND.into();
    api::codec::from_value(&json).expect("a well-formed object")
}
