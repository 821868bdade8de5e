//! Capabilities by name, and those that a container gets.
//!
//! Upstream: containerd's default set, which Kubernetes users rely on (NET_RAW lets root ping).

use crate::error::{Error, Result};
use rpc::cri::Capability;

/// By number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A set, bit by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Capabilities(pub(crate) u64);

impl Capabilities {
    pub(crate) const ALL: Capabilities = Capabilities((1 << NAMES.len()) - 1);

    pub(crate) fn has(self, name: &str) -> bool {
        number(name).is_ok_and(|number| self.0 & 1 << number != 0)
    }

    /// Additions and removals on top of the default; ALL stands for every one. As upstream, adding ALL comes before
    /// single removals, and removing ALL before single additions.
    pub(crate) fn adjusted(change: &Capability) -> Result<Capabilities> {
        let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
        let (add, drop) = (&change.add_capabilities, &change.drop_capabilities);
        let mut set = DEFAULT
            .iter()
            .map(|name| named(name))
            .try_fold(0, |set, bit| bit.map(|bit| set | bit))?;
        if add.iter().any(is_all) {
            set = Capabilities::ALL.0;
        }
        if drop.iter().any(is_all) {
            set = 0;
        }
        for name in add.iter().filter(|name| !is_all(name)) {
            set |= named(name)?;
        }
        for name in drop.iter().filter(|name| !is_all(name)) {
            set &= !named(name)?;
        }
        Ok(Capabilities(set))
    }

    pub(crate) fn of(names: &[String]) -> Result<Capabilities> {
        names.iter().try_fold(0, |set, name| Ok(set | named(name)?)).map(Capabilities)
    }
}

fn named(name: &str) -> Result<u64> {
    number(name).map(|number| 1 << number)
}

/// With or without the prefix CAP_, in any case.
fn number(name: &str) -> Result<usize> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES
        .iter()
        .position(|known| *known == short)
        .ok_or_else(|| Error::Invalid(format!("unknown capability {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], expected: u64) {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let change = Capability {
            add_capabilities: list(add),
            drop_capabilities: list(drop),
            ..Capability::default()
        };
        let got = Capabilities::adjusted(&change).unwrap();
        assert_eq!(format!("{:x}", got.0), format!("{expected:x}"), "add {add:?} drop {drop:?}");
    }

    #[test]
    fn changes_apply_to_the_default_set() {
        check(&[], &[], 0xa804_25fb);
        check(&["SYS_ADMIN"], &["NET_RAW", "cap_mknod"], 0xa024_05fb);
        check(&[], &["ALL"], 0);
        check(&["NET_BIND_SERVICE"], &["ALL"], 0x400);
        check(&["ALL"], &["SYS_ADMIN"], 0x1ff_ffdf_ffff);
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let change = Capability { add_capabilities: vec!["FLY".into()], ..Capability::default() };
        assert_eq!(
            Capabilities::adjusted(&change).unwrap_err().to_string(),
            "unknown capability \"FLY\""
        );
    }
}
