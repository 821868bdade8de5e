//! Whom a process runs as: names looked up in the image's own passwd and group files.
//!
//! Never through libc: its name service would load libraries of the image into this process.

use crate::{
    Failure, Result,
    sys::{self, Resolve},
};
use shim::protocol::{Identity, User};
use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, BorrowedFd},
};

/// A passwd file of a million users is far below this; what is beyond it is not read.
const FILE_MAX: u64 = 64 << 20;

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Looks up `user` in the files below `root`.
pub(crate) fn resolve(root: BorrowedFd<'_>, user: &User) -> Result<Identity> {
    let passwd = read_file(root, "/etc/passwd");
    let group = read_file(root, "/etc/group");
    look_up(user, &passwd, &group)
}

fn look_up(user: &User, passwd: &str, group: &str) -> Result<Identity> {
    let (wanted_user, wanted_group) = match user.name.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user.name.as_str(), None),
    };
    let by_number = user.uid.or_else(|| wanted_user.parse().ok());
    let account = match by_number {
        Some(uid) => accounts(passwd).find(|account| account.uid == uid),
        None if wanted_user.is_empty() => accounts(passwd).find(|account| account.uid == 0),
        None => accounts(passwd).find(|account| account.name == wanted_user),
    };
    let uid = match (by_number, &account) {
        (Some(uid), _) => uid,
        (None, Some(account)) => account.uid,
        (None, None) if wanted_user.is_empty() => 0,
        (None, None) => {
            return Err(Failure(format!(
                "unable to find user {wanted_user}: no matching entries in passwd file"
            )));
        }
    };
    let named_group = wanted_group.filter(|name| user.uid.is_none() && !name.is_empty());
    let gid = match (user.gid, named_group) {
        (Some(gid), _) => gid,
        (None, Some(name)) => match name.parse() {
            Ok(gid) => gid,
            Err(_) => groups(group)
                .find(|(known, _, _)| *known == name)
                .map(|(_, gid, _)| gid)
                .ok_or_else(|| {
                    Failure(format!(
                        "unable to find group {name}: no matching entries in group file"
                    ))
                })?,
        },
        (None, None) => account.as_ref().map_or(0, |account| account.gid),
    };
    // The primary group is listed too: without it, setgroups would take away what a negative permission rests on.
    let mut all = vec![gid];
    if !user.only_these_groups
        && named_group.is_none()
        && let Some(account) = &account
    {
        let member = |members: &str| members.split(',').any(|member| member == account.name);
        all.extend(groups(group).filter(|(_, _, members)| member(members)).map(|(_, gid, _)| gid));
    }
    all.extend(&user.groups);
    let mut seen = Vec::new();
    all.retain(|gid| {
        let new = !seen.contains(gid);
        seen.push(*gid);
        new
    });
    let home = account
        .map(|account| account.home)
        .filter(|home| !home.is_empty())
        .unwrap_or("/")
        .to_owned();
    Ok(Identity { uid, gid, groups: all, home })
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("");
        Some(Account { name, uid, gid, home })
    })
}

/// Name, number, members.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

/// Empty when there is no such regular file: an image needs none.
fn read_file(root: BorrowedFd<'_>, path: &str) -> String {
    // A pipe or a device in its place must not block us.
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let Ok(descriptor) = sys::open_in(root, path, flags, Resolve { no_links: false }) else {
        return String::new();
    };
    let file = File::from(descriptor);
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    match file.take(FILE_MAX).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// The identity inside the root that this process already has.
pub(crate) fn resolve_here(user: &User) -> Result<Identity> {
    let root = sys::open("/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    resolve(root.as_fd(), user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nnginx:x:101:102:web:/var/cache/nginx:/sbin/nologin\nbad\n";
    const GROUP: &str = "root:x:0:\nnginx:x:102:\nshadow:x:42:nginx,other\nlogs:x:50:other\n";

    fn check(user: User, expected: Result<(u32, u32, &[u32], &str)>) {
        let got = look_up(&user, PASSWD, GROUP);
        match (got, expected) {
            (Ok(got), Ok((uid, gid, groups, home))) => {
                assert_eq!(
                    (got.uid, got.gid, got.groups.as_slice(), got.home.as_str()),
                    (uid, gid, groups, home)
                );
            }
            (Err(got), Err(expected)) => assert_eq!(got.0, expected.0),
            (got, _) => panic!("{user:?} gave {got:?}"),
        }
    }

    fn named(name: &str) -> User {
        User { name: name.into(), ..User::default() }
    }

    #[test]
    fn names_and_numbers_are_looked_up_in_the_image() {
        check(named(""), Ok((0, 0, &[0], "/root")));
        check(named("nginx"), Ok((101, 102, &[102, 42], "/var/cache/nginx")));
        check(named("101"), Ok((101, 102, &[102, 42], "/var/cache/nginx")));
        check(named("nginx:logs"), Ok((101, 50, &[50], "/var/cache/nginx")));
        check(named("4711:7"), Ok((4711, 7, &[7], "/")));
        check(named("4711"), Ok((4711, 0, &[0], "/")));
    }

    #[test]
    fn a_number_from_the_pod_beats_the_image_and_groups_add_up() {
        let user =
            User { uid: Some(101), name: "root".into(), groups: vec![2000, 42], ..User::default() };
        check(user.clone(), Ok((101, 102, &[102, 42, 2000], "/var/cache/nginx")));
        check(
            User { only_these_groups: true, gid: Some(5), ..user },
            Ok((101, 5, &[5, 2000, 42], "/var/cache/nginx")),
        );
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it() {
        let missing = "unable to find user nobody: no matching entries in passwd file";
        check(named("nobody"), Err(Failure(missing.into())));
        let missing = "unable to find group web: no matching entries in group file";
        check(named("root:web"), Err(Failure(missing.into())));
    }
}
