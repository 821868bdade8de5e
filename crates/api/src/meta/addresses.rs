//! Addresses and ranges as old fields of the API take them, and what to say of odd ways to write them.
//!
//! Upstream: `apimachinery/pkg/util/validation/ip.go` (IsValidIPForLegacyField, GetWarningsForIP,
//! GetWarningsForCIDR), 1.36.

use crate::field::{Errors, quoted};
use std::{
    fmt::Display,
    net::{IpAddr, Ipv6Addr},
};

/// An address, also one with zeros in front of its parts, which are decimal all the same.
pub(crate) fn sloppy(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    if !text.contains('.') {
        return None;
    }
    let (front, four) = text.rsplit_once(':').map_or(("", text), |(front, four)| (front, four));
    let parts: Vec<&str> = four.split('.').collect();
    let plain = |it: &&&str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() != 4 || parts.iter().filter(plain).count() != 4 {
        return None;
    }
    let bare = |it: &&str| match it.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    };
    let four = parts.iter().map(bare).collect::<Vec<_>>().join(".");
    match front {
        "" => four.parse().ok(),
        front => format!("{front}:{four}").parse().ok(),
    }
}

/// An address, and how many of its bits are the range's.
fn range(text: &str) -> Option<(IpAddr, u32)> {
    let (ip, bits) = text.split_once('/')?;
    let ip = sloppy(ip)?;
    let plain = !bits.is_empty() && bits.bytes().all(|it| it.is_ascii_digit());
    let bits: u32 = plain.then(|| bits.parse().ok())??;
    // Go counts the bits of a mapped address as it is written: of 128.
    let most = if text.contains(':') { 128 } else { 32 };
    (bits <= most).then_some((ip, bits))
}

/// Refuses what is no address, or is written in a way that others read differently.
pub(crate) fn validate(path: impl Display, text: &str, errors: &mut Errors) {
    let detail = match (sloppy(text), text.parse::<IpAddr>()) {
        (None, _) => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        (Some(_), Err(_)) => "must not have leading 0s",
        (Some(_), Ok(ip)) if ip != ip.to_canonical() => "must not be an IPv4-mapped IPv6 address",
        (Some(_), Ok(_)) => return,
    };
    errors.invalid(path, quoted(text), detail);
}

/// Refuses what is no range, or is written in a way that others read differently.
pub(crate) fn validate_range(path: impl Display, text: &str, errors: &mut Errors) {
    let Some((ip, bits)) = range(text) else {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.invalid(path, quoted(text), detail);
        return;
    };
    let (address, digits) = text.split_once('/').unwrap_or((text, ""));
    let strict = address.parse::<IpAddr>().ok();
    if strict.is_none() || has_leading_zero(digits) {
        let detail = "must not have leading 0s in IP or prefix length";
        errors.invalid(&path, quoted(text), detail);
    } else if strict.is_some_and(|it| it != it.to_canonical()) {
        let detail = "must not have an IPv4-mapped IPv6 address";
        errors.invalid(&path, quoted(text), detail);
    } else if first(ip, bits) != ip {
        let detail = "must not have bits set beyond the prefix length";
        errors.invalid(path, quoted(text), detail);
    }
}

fn has_leading_zero(digits: &str) -> bool {
    digits.len() > 1 && digits.starts_with('0')
}

/// What to say of an address that is not written as it should be.
pub(crate) fn warning(path: impl Display, text: &str) -> Option<String> {
    let ip = sloppy(text)?;
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => None,
        Ok(IpAddr::V6(six)) if six.to_ipv4_mapped().is_none() => {
            let shown = six.to_string();
            let what = format!("should be in RFC 5952 canonical format ({shown:?})");
            (shown != text).then(|| format!("{path}: IPv6 address {text:?} {what}"))
        }
        Ok(IpAddr::V6(_)) | Err(_) => {
            let shown = ip.to_canonical().to_string();
            Some(format!("{path}: non-standard IP address {text:?} is invalid: use {shown:?}"))
        }
    }
}

/// What to say of a range that is not written as it should be.
pub(crate) fn range_warnings(path: impl Display, text: &str) -> Vec<String> {
    let Some((ip, bits)) = range(text) else { return Vec::new() };
    let mut warnings = Vec::new();
    let first = first(ip, bits);
    let network = shown(first, bits);
    if first != ip {
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let single = format!("{ip}/{all}");
        warnings.push(format!(
            "{path}: CIDR value {text:?} is ambiguous in this context (should be {network:?} or {single:?}?)"
        ));
    }
    let (address, digits) = text.split_once('/').unwrap_or((text, ""));
    let strict = address.parse::<IpAddr>().ok();
    let mapped = strict.is_none_or(|it| it != it.to_canonical());
    if mapped || has_leading_zero(digits) {
        warnings
            .push(format!("{path}: non-standard CIDR value {text:?} is invalid: use {network:?}"));
    } else if warnings.is_empty() && ip.is_ipv6() && shown(ip, bits) != text {
        let canonical = shown(ip, bits);
        warnings.push(format!(
            "{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({canonical:?})"
        ));
    }
    warnings
}

fn shown(ip: IpAddr, bits: u32) -> String {
    match (ip.to_canonical(), ip) {
        (IpAddr::V4(four), IpAddr::V6(_)) => format!("{four}/{}", bits.saturating_sub(96)),
        (ip, _) => format!("{ip}/{bits}"),
    }
}

/// The range's first address.
fn first(ip: IpAddr, bits: u32) -> IpAddr {
    match ip {
        IpAddr::V4(four) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            IpAddr::V4((u32::from(four) & mask).into())
        }
        IpAddr::V6(six) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(six) & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_addresses_are_told_how_they_should_look() {
        for (text, expected) in [
            ("10.0.0.1", None),
            ("fd00::1", None),
            (
                "10.0.00.010",
                Some("ip: non-standard IP address \"10.0.00.010\" is invalid: use \"10.0.0.10\""),
            ),
            (
                "::ffff:10.0.0.1",
                Some(
                    "ip: non-standard IP address \"::ffff:10.0.0.1\" is invalid: use \"10.0.0.1\"",
                ),
            ),
            (
                "FD00:0::1",
                Some(
                    "ip: IPv6 address \"FD00:0::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
                ),
            ),
            ("ten", None),
        ] {
            assert_eq!(warning("ip", text).as_deref(), expected, "{text}");
        }
        for (text, expected) in [
            ("10.0.0.0/8", ""),
            (
                "10.1.0.0/8",
                "r: CIDR value \"10.1.0.0/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.1.0.0/32\"?)",
            ),
            (
                "010.0.0.0/8",
                "r: non-standard CIDR value \"010.0.0.0/8\" is invalid: use \"10.0.0.0/8\"",
            ),
            (
                "FD00::/8",
                "r: IPv6 CIDR value \"FD00::/8\" should be in RFC 5952 canonical format (\"fd00::/8\")",
            ),
            ("0.0.0.0/0", ""),
        ] {
            assert_eq!(range_warnings("r", text).join("; "), expected, "{text}");
        }
    }

    #[test]
    fn what_is_neither_address_nor_range_is_refused() {
        let mut errors = Errors::default();
        validate("ip", "10.0.0.256", &mut errors);
        validate("ip", "010.0.0.1", &mut errors);
        validate_range("r", "10.0.0.0", &mut errors);
        validate_range("r", "10.0.0.0/33", &mut errors);
        validate("ip", "::ffff:1.2.3.4", &mut errors);
        validate_range("r", "10.1.0.0/08", &mut errors);
        validate_range("r", "10.1.0.0/8", &mut errors);
        let shown: Vec<_> = errors
            .0
            .iter()
            .map(|it| format!("{} {}", it.value.as_deref().unwrap(), it.detail))
            .collect();
        assert_eq!(
            shown,
            [
                "\"10.0.0.256\" must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "\"010.0.0.1\" must not have leading 0s",
                "\"10.0.0.0\" must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                "\"10.0.0.0/33\" must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                "\"::ffff:1.2.3.4\" must not be an IPv4-mapped IPv6 address",
                "\"10.1.0.0/08\" must not have leading 0s in IP or prefix length",
                "\"10.1.0.0/8\" must not have bits set beyond the prefix length",
            ]
        );
    }
}
