//! Pods that have users of their own: which of the host's they are, and whether this kernel can do it.

use crate::error::{Error, Result};
use rpc::cri::{IdMapping, NamespaceMode, NamespaceOption};
use shim::protocol::Ids;
use std::{fs, path::Path};

/// The first kernel on which the layers of an overlay can be shown with other owners.
const KERNEL_MIN: (u32, u32) = (5, 19);

/// The pod's users and groups, if they are not the host's.
pub(super) fn ids(options: &NamespaceOption) -> Result<Option<Ids>> {
    let Some(users) = &options.userns_options else { return Ok(None) };
    if users.mode() != NamespaceMode::Pod {
        return Ok(None);
    }
    let refused = |why: &str| Err(Error::Invalid(format!("user namespace: {why}")));
    if options.network() == NamespaceMode::Node
        || options.ipc() == NamespaceMode::Node
        || options.pid() == NamespaceMode::Node
    {
        return refused(
            "a pod with users of its own cannot have the host's network, processes or IPC",
        );
    }
    match (users.uids.as_slice(), users.gids.as_slice()) {
        ([uids], [gids]) if uids == gids && is_sound(uids) => {
            Ok(Some(Ids { first: uids.host_id, count: uids.length }))
        }
        _ => refused("one range from id 0 is wanted, the same for users and groups"),
    }
}

fn is_sound(range: &IdMapping) -> bool {
    let end = range.host_id.checked_add(range.length);
    range.container_id == 0 && range.length > 0 && range.host_id > 0 && end.is_some()
}

/// Whether this machine can have them at all; what holds the data is tried with each pod.
pub(crate) fn are_possible() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let kernel = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => return false,
    };
    let most = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    kernel >= KERNEL_MIN
        && Path::new("/proc/self/ns/user").exists()
        && most.trim().parse::<u64>().is_ok_and(|it| it > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc::cri::UserNamespace;

    #[test]
    fn one_range_from_zero_is_taken_and_nothing_else() {
        let range = |host_id, container_id, length| IdMapping { host_id, container_id, length };
        let ask = |uids: Vec<IdMapping>, gids: Vec<IdMapping>| {
            let users = UserNamespace { mode: NamespaceMode::Pod as i32, uids, gids };
            ids(&NamespaceOption { userns_options: Some(users), ..Default::default() })
        };
        let good = range(65536, 0, 65536);
        let taken = ask(vec![good], vec![good]).unwrap();
        assert_eq!(taken, Some(Ids { first: 65536, count: 65536 }));
        for bad in [range(65536, 1, 65536), range(0, 0, 65536), range(u32::MAX, 0, 2)] {
            assert!(ask(vec![bad], vec![bad]).is_err(), "{bad:?}");
        }
        assert!(ask(vec![good], vec![range(131072, 0, 65536)]).is_err());
        assert!(ask(vec![], vec![]).is_err());
        assert_eq!(ids(&NamespaceOption::default()).unwrap(), None);
    }
}
