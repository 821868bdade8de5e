//! Between labels, addresses and names.

use hickory_proto::rr::Name;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A name's labels from left to right, in small letters. A label that is no text matches nothing of
/// ours, whatever stands in its place.
pub(crate) fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|it| String::from_utf8_lossy(it).to_ascii_lowercase()).collect()
}

/// `10-244-0-5`, `fd00--5`.
pub(crate) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a dashed label stands for.
pub(crate) fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// What a name below `arpa` stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reverse {
    Address(IpAddr),
    /// A part of an IPv4 address: all that begin with these bits.
    Network(Ipv4Addr, u8),
}

pub(crate) fn reverse(labels: &[String]) -> Option<Reverse> {
    if let Some(octets) = labels.strip_suffix(&["in-addr".to_owned(), "arpa".to_owned()][..]) {
        let octets: Option<Vec<u8>> = octets.iter().rev().map(|it| it.parse().ok()).collect();
        let octets = octets.filter(|it| (1..=4).contains(&it.len()))?;
        let mut bytes = [0; 4];
        bytes[..octets.len()].copy_from_slice(&octets);
        return Some(match octets.len() {
            4 => Reverse::Address(IpAddr::V4(bytes.into())),
            // At most 3 octets: 24.
            short => Reverse::Network(bytes.into(), 8 * short as u8),
        });
    }
    let nibbles = labels.strip_suffix(&["ip6".to_owned(), "arpa".to_owned()][..])?;
    let digit = |it: &String| it.len() == 1 && it.as_bytes()[0].is_ascii_hexdigit();
    if nibbles.len() != 32 || !nibbles.iter().all(digit) {
        return None;
    }
    let digits: String = nibbles.iter().rev().map(String::as_str).collect();
    let bits = u128::from_str_radix(&digits, 16).ok()?;
    Some(Reverse::Address(IpAddr::V6(Ipv6Addr::from_bits(bits))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<Reverse> {
        reverse(&labels(&Name::from_ascii(name).unwrap()))
    }

    #[test]
    fn reads_addresses_from_dashes_and_from_reverse_names() {
        for address in ["10.244.0.5", "fd00::5"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(undashed(&dashed(address)), Some(address));
        }
        assert_eq!(undashed("10-244-0"), None);
        assert_eq!(undashed("nginx"), None);
        let address = Reverse::Address("10.244.0.5".parse().unwrap());
        assert_eq!(of("5.0.244.10.IN-ADDR.arpa."), Some(address));
        let network = Reverse::Network(Ipv4Addr::new(10, 244, 0, 0), 16);
        assert_eq!(of("244.10.in-addr.arpa."), Some(network));
        assert_eq!(of("256.0.244.10.in-addr.arpa."), None);
        let zeros = "0.".repeat(27);
        let address = Reverse::Address("fd00::5".parse().unwrap());
        assert_eq!(of(&format!("5.{zeros}0.0.d.f.ip6.arpa.")), Some(address));
    }
}
