//! What the server is an authority for: the cluster domain, and the addresses of its own ranges.

use super::{Error, names};
use crate::Ipv4Cidr;
use hickory_proto::rr::{
    Name, RData, Record,
    rdata::{NS, SOA},
};
use std::net::{IpAddr, Ipv4Addr};

/// How long an answer may be remembered: what kubeadm sets for CoreDNS.
pub(crate) const TTL: u32 = 30;

/// How long "no such name" may be remembered. Short, because a pod's name comes into being while its
/// peers are already asking for it.
const NEGATIVE_TTL: u32 = 5;

/// The version of the specification that `dns-version` names.
pub(crate) const SPECIFICATION: &str = "1.1.0";

#[derive(Clone, Debug)]
pub struct Zone {
    pub(crate) domain: Name,
    /// `["cluster", "local"]`, in small letters.
    labels: Vec<String>,
    /// Addresses that nobody else can name: an unknown one of these is not asked for elsewhere.
    ranges: Vec<Ipv4Cidr>,
    /// Where the server itself is: the address of `ns.dns`.
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) known: Known,
}

/// What of the cluster the World shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// Every pod: a name is there at the revision that says that its pod is Ready.
    #[default]
    Everything,
    /// Services and their slices, and the pods of one node: names come from slices alone.
    Slices,
}

impl Zone {
    /// Names come from what this World shows.
    pub fn knowing(self, known: Known) -> Zone {
        Zone { known, ..self }
    }

    /// `domain` as in `cluster.local`; `ranges` of pods and Services; `servers`, the cluster's DNS
    /// addresses.
    pub fn new(domain: &str, ranges: Vec<Ipv4Cidr>, servers: Vec<IpAddr>) -> Result<Zone, Error> {
        let wrong = || Error::Domain(domain.to_owned());
        let mut name = Name::from_ascii(domain).map_err(|_| wrong())?;
        name.set_fqdn(true);
        let name = name.to_lowercase();
        let labels = names::labels(&name);
        if labels.is_empty() {
            return Err(wrong());
        }
        Ok(Zone { domain: name, labels, ranges, servers, known: Known::default() })
    }

    /// The labels before the domain's, if the name is in it: `["nginx", "default", "svc"]`.
    pub(crate) fn within<'a>(&self, labels: &'a [String]) -> Option<&'a [String]> {
        labels.strip_suffix(&self.labels[..])
    }

    pub(crate) fn owns(&self, address: Ipv4Addr) -> bool {
        self.ranges.iter().any(|it| it.contains(address))
    }

    /// Whether all addresses below this prefix are ours.
    pub(crate) fn owns_all(&self, network: Ipv4Addr, prefix: u8) -> bool {
        self.ranges.iter().any(|it| it.contains(network) && it.prefix() <= prefix)
    }

    /// A name in the domain.
    pub(crate) fn name(&self, labels: &[&str]) -> Option<Name> {
        let local = Name::from_labels(labels.iter().map(|it| it.as_bytes())).ok()?;
        local.append_domain(&self.domain).ok()
    }

    pub(crate) fn name_server(&self) -> RData {
        RData::NS(NS(self.name(&["ns", "dns"]).unwrap_or_else(|| self.domain.clone())))
    }

    /// The start of authority over a name that is ours: the domain, or one of the trees of addresses.
    pub(crate) fn authority(&self, name: &Name, revision: u64) -> Record {
        let owner = if self.domain.zone_of(name) {
            self.domain.clone()
        } else {
            // `in-addr.arpa` and `ip6.arpa` have two labels, like CoreDNS's zones of these names.
            name.trim_to(2)
        };
        let server = self.name(&["ns", "dns"]).unwrap_or_else(|| self.domain.clone());
        let person = self.name(&["hostmaster"]).unwrap_or_else(|| self.domain.clone());
        // A serial number is 32 bits that go round.
        let serial = (revision & u64::from(u32::MAX)) as u32;
        let soa = SOA::new(server, person, serial, 7200, 1800, 86400, NEGATIVE_TTL);
        Record::from_rdata(owner, NEGATIVE_TTL, RData::SOA(soa))
    }
}
