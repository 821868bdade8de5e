//! What a node has to know of its cluster before it can make a network: a ConfigMap that the server keeps true and
//! every node may read.

use crate::config::{Cluster, pod_network};
use anyhow::{Context, Result, anyhow};
use api::{Object, core::v1::ConfigMap, meta::ObjectMeta};
use client::Client;
use std::collections::BTreeMap;
use world::{Change, ObjectKey};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "stanchion-cluster";
pub(crate) const PATH: &str = "/api/v1/namespaces/kube-public/configmaps/stanchion-cluster";

/// Writes what this server was started with.
pub(crate) async fn publish(client: &dyn Client, cluster: &Cluster) -> Result<()> {
    let data = Some(data(cluster));
    let key = ObjectKey::new(NAMESPACE, NAME);
    let change = match client.world().get::<ConfigMap>(&key) {
        Some(known) if known.data == data => return Ok(()),
        Some(known) => Change::update(ConfigMap { data, ..known.to_owned() }),
        None => {
            let (name, namespace) = (Some(NAME.to_owned()), Some(NAMESPACE.to_owned()));
            let metadata = ObjectMeta { name, namespace, ..ObjectMeta::default() };
            Change::create(ConfigMap { metadata, data, ..ConfigMap::default() })
        }
    };
    client.write(vec![change]).await.context("publish the addresses of the cluster")?;
    Ok(())
}

fn data(cluster: &Cluster) -> BTreeMap<String, String> {
    let words = [
        ("clusterCIDR", cluster.pods.to_string()),
        ("serviceCIDR", cluster.services.to_string()),
        ("clusterDNS", cluster.dns.to_string()),
        ("clusterDomain", cluster.domain.clone()),
        ("podNetwork", pod_network::write(cluster.pod_network)),
    ];
    words.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Reads it as the server shows it.
pub(crate) fn read(json: &[u8]) -> Result<Cluster> {
    let (map, _) = api::codec::decode::<ConfigMap>(json).map_err(|it| anyhow!("{it}"))?;
    let word = |key: &str| {
        let found = map.data.as_ref().and_then(|it| it.get(key));
        found.ok_or_else(|| anyhow!("ConfigMap {} lacks {key}", map.name()))
    };
    let range = |key: &str| {
        let text = word(key)?;
        text.parse().map_err(|why| anyhow!("read {key} {text:?}: {why}"))
    };
    Ok(Cluster {
        pods: range("clusterCIDR")?,
        services: range("serviceCIDR")?,
        dns: word("clusterDNS")?.parse().context("read clusterDNS")?,
        domain: word("clusterDomain")?.clone(),
        pod_network: {
            let text = word("podNetwork")?;
            pod_network::read(text).ok_or_else(|| anyhow!("read podNetwork {text:?}"))?
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_read_what_the_server_wrote() {
        let cluster = Cluster {
            pods: "10.244.0.0/16".parse().unwrap(),
            services: "10.96.0.0/12".parse().unwrap(),
            dns: "10.96.0.10".parse().unwrap(),
            domain: "cluster.local".to_owned(),
            pod_network: network::PodNetwork::HostRoutes,
        };
        let map = ConfigMap { data: Some(data(&cluster)), ..ConfigMap::default() };
        let json = api::codec::to_value(&map).to_string();
        assert_eq!(read(json.as_bytes()).unwrap(), cluster);
        assert!(read(b"{\"metadata\":{}}").is_err());
    }
}
