//! resolv.conf of a pod, by its DNS policy. Upstream: `pkg/kubelet/network/dns/dns.go`.

use super::Facts;
use crate::runtime::message::DnsConfig;
use api::{Object, core::v1::Pod};

/// What glibc looks at: more servers are ignored, so they are left out.
const SERVERS_MAX: usize = 3;
/// Upstream: MaxDNSSearchPaths, MaxDNSSearchListChars.
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;

pub fn config(pod: &Pod, facts: &Facts) -> DnsConfig {
    let spec = pod.spec.as_ref();
    let host_network = spec.is_some_and(|it| it.host_network == Some(true));
    let policy = spec.and_then(|it| it.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let mut dns = match policy {
        "None" => DnsConfig::default(),
        "ClusterFirst" if !host_network => cluster(pod, facts),
        "ClusterFirstWithHostNet" => cluster(pod, facts),
        // Default, and ClusterFirst with the host's network.
        _ => facts.host_dns.clone(),
    };
    if let Some(own) = spec.and_then(|it| it.dns_config.as_ref()) {
        dns.servers.extend(own.nameservers.iter().flatten().cloned());
        dns.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            dns.options.retain(|it| it.split(':').next() != Some(name.as_str()));
            dns.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                Some(_) | None => name,
            });
        }
    }
    unique(&mut dns.servers);
    unique(&mut dns.searches);
    dns.servers.truncate(SERVERS_MAX);
    dns.searches.truncate(SEARCHES_MAX);
    while dns.searches.join(" ").len() > SEARCH_CHARS_MAX {
        dns.searches.pop();
    }
    dns
}

fn cluster(pod: &Pod, facts: &Facts) -> DnsConfig {
    if facts.cluster_dns.is_empty() {
        return facts.host_dns.clone();
    }
    let (namespace, domain) = (pod.namespace(), &facts.cluster_domain);
    let mut searches =
        vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    searches.extend(facts.host_dns.searches.iter().cloned());
    DnsConfig {
        servers: vec![facts.cluster_dns.clone()],
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

/// Reads a resolv.conf.
pub fn parse(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().take_while(|it| !it.starts_with(['#', ';']));
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                dns.searches = words
                    .map(|it| it.trim_end_matches('.').to_owned())
                    .filter(|it| !it.is_empty())
                    .collect();
            }
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            Some(_) | None => {}
        }
    }
    dns
}

fn unique(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|it| seen.insert(it.clone()));
}
