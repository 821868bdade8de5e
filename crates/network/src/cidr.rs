//! An IPv4 range in prefix notation: the node's pod CIDR.

use crate::Error;
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A range of IPv4 addresses: 8 to 29 bits of prefix, so that a gateway and at least five pods fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

impl Ipv4Cidr {
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.network.to_bits()
    }

    /// The first address after the network's own: the node's side of the pod network.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// The first and the last address that a pod may have: neither network, gateway nor broadcast.
    pub fn pods(self) -> (Ipv4Addr, Ipv4Addr) {
        let network = self.network.to_bits();
        (Ipv4Addr::from_bits(network + 2), Ipv4Addr::from_bits((network | !self.mask()) - 1))
    }

    pub(crate) fn network(self) -> Ipv4Addr {
        self.network
    }

    pub(crate) fn mask(self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }
}

impl FromStr for Ipv4Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Ipv4Cidr, Error> {
        let wrong = || Error::Range(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let network: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if !(8..=29).contains(&prefix) {
            return Err(wrong());
        }
        let cidr = Ipv4Cidr { network, prefix };
        Ok(Ipv4Cidr { network: Ipv4Addr::from_bits(network.to_bits() & cidr.mask()), prefix })
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserves_network_gateway_and_broadcast() {
        let cidr: Ipv4Cidr = "10.244.3.77/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.244.3.0/24");
        assert_eq!(cidr.gateway(), Ipv4Addr::new(10, 244, 3, 1));
        assert_eq!(cidr.pods(), (Ipv4Addr::new(10, 244, 3, 2), Ipv4Addr::new(10, 244, 3, 254)));
        assert!(cidr.contains(Ipv4Addr::new(10, 244, 3, 255)));
        assert!(!cidr.contains(Ipv4Addr::new(10, 244, 4, 0)));
    }

    #[test]
    fn refuses_what_is_no_usable_range() {
        for text in ["", "10.244.0.0", "10.244.0.0/30", "10.0.0.0/7", "fd00::/64", "10.0.0/24"] {
            assert!(text.parse::<Ipv4Cidr>().is_err(), "{text}");
        }
    }
}
