//! The share against a server that does what real ones do when they are being restarted.

use super::{Inner, attributes::New};
use crate::nfs::userspace::{
    connection::{Asker, Connections, Server},
    fake_server::{FakeServer, ROOT},
};
use fuser::{Errno, FileHandle, INodeNo};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
    time::Duration,
};

const TOP: INodeNo = INodeNo(1);
const REMOVE: u32 = 12;

/// A mount of a server, where this process may take a port that servers trust.
fn mounted() -> Option<(FakeServer, Inner, Asker)> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: ports below 1024 need root");
        return None;
    }
    let server = FakeServer::start();
    let told = Server {
        host: "127.0.0.1".to_owned(),
        path: "/share".to_owned(),
        port: Some(server.port),
        mount_port: Some(server.port),
        timeout: Duration::from_secs(30),
        tries: Some(3),
    };
    let (mut connections, root) = Connections::open(told, Path::new("/")).expect("a mount");
    connections.is_wanted = |_| true;
    let asker = Asker::default();
    Some((server, Inner::new(connections, root), asker))
}

fn name(it: &str) -> &OsStr {
    OsStr::new(it)
}

fn code<T>(of: Result<T, Errno>) -> i32 {
    of.err().map_or(0, |it| it.code())
}

#[test]
fn what_was_made_is_there_although_the_answer_was_lost() {
    let Some((server, mut share, asker)) = mounted() else { return };
    let lose = |procedure| {
        let mut state = server.state();
        (state.lose, state.lose_of) = (1, procedure);
    };
    lose(8);
    let file = share.create(&asker, TOP, name("file"), 0o640, libc::O_EXCL).unwrap();
    assert_eq!(file.perm, 0o640);
    lose(9);
    share.mkdir(&asker, TOP, name("directory"), 0o755).unwrap();
    lose(10);
    share.symlink(&asker, TOP, name("link"), Path::new("file")).unwrap();
    lose(15);
    share.link(&asker, file.ino, TOP, name("other")).unwrap();
    lose(14);
    share.rename(&asker, (TOP, name("other")), (TOP, name("moved"))).unwrap();
    lose(REMOVE);
    share.unlink(&asker, TOP, name("link")).unwrap();
    lose(13);
    share.rmdir(&asker, TOP, name("directory")).unwrap();
    assert_eq!(server.state().lose, 0, "each answer was lost");
    assert_eq!(server.state().all_names(), ["file", "moved"]);
}

#[test]
fn what_others_made_is_in_the_way_also_when_the_answer_was_lost() {
    let Some((server, mut share, asker)) = mounted() else { return };
    for it in ["file", "other"] {
        share.create(&asker, TOP, name(it), 0o600, libc::O_EXCL).unwrap();
    }
    let lose = |procedure| {
        let mut state = server.state();
        (state.lose, state.lose_of) = (1, procedure);
    };
    lose(8);
    let again = share.create(&asker, TOP, name("file"), 0o600, libc::O_EXCL);
    assert_eq!(code(again), libc::EEXIST);
    lose(9);
    assert_eq!(code(share.mkdir(&asker, TOP, name("file"), 0o700)), libc::EEXIST);
    lose(10);
    let link = share.symlink(&asker, TOP, name("file"), Path::new("x"));
    assert_eq!(code(link), libc::EEXIST);
    lose(15);
    let other = share.lookup(&asker, &share.handle(TOP).unwrap(), name("other")).unwrap();
    assert_eq!(code(share.link(&asker, other.ino, TOP, name("file"))), libc::EEXIST);
    // Without a lost answer nothing is taken for one's own.
    assert_eq!(code(share.unlink(&asker, TOP, name("none"))), libc::ENOENT);
    assert_eq!(code(share.rmdir(&asker, TOP, name("none"))), libc::ENOENT);
}

#[test]
fn a_server_without_marks_makes_files_that_were_not_there() {
    let Some((server, mut share, asker)) = mounted() else { return };
    server.state().knows_marks = false;
    let made = share.create(&asker, TOP, name("file"), 0o600, libc::O_EXCL).unwrap();
    assert_eq!(made.perm, 0o600);
    let again = share.create(&asker, TOP, name("file"), 0o600, libc::O_EXCL);
    assert_eq!(code(again), libc::EEXIST);
}

#[test]
fn what_a_server_kept_in_memory_is_written_again_when_it_restarted() {
    let Some((server, mut share, asker)) = mounted() else { return };
    let file = share.create(&asker, TOP, name("file"), 0o600, 0).unwrap();
    {
        let mut state = server.state();
        (state.is_lazy, state.restarts) = (true, 2);
    }
    assert_eq!(share.write(&asker, file.ino, 0, b"data"), Ok(4));
    let number = server.state().named(b"file").unwrap();
    assert_eq!(server.state().nodes[&number].data, b"data");
    server.state().restarts = 100;
    let lost = share.write(&asker, file.ino, 0, b"lost");
    assert_eq!(code(lost), libc::EIO, "told, not forgotten");
}

#[test]
fn short_answers_are_gone_on_with() {
    let Some((server, mut share, asker)) = mounted() else { return };
    let file = share.create(&asker, TOP, name("file"), 0o600, 0).unwrap();
    server.state().short = Some(1000);
    let data: Vec<u8> = (0..200_000_u32).map(|it| (it % 251) as u8).collect();
    assert_eq!(share.write(&asker, file.ino, 0, &data), Ok(200_000));
    assert_eq!(share.read(&asker, file.ino, 0, 300_000), Ok(data.clone()));
    assert_eq!(share.read(&asker, file.ino, 199_990, 100), Ok(data[199_990..].to_vec()));
    assert_eq!(share.read(&asker, file.ino, 1 << 20, 100), Ok(Vec::new()));
    server.state().short = Some(0);
    assert_eq!(code(share.read(&asker, file.ino, 0, 10)), libc::EIO, "this is not the end");
}

#[test]
fn an_open_file_that_loses_its_name_is_there_until_it_is_closed() {
    let Some((server, mut share, asker)) = mounted() else { return };
    let open = share.create(&asker, TOP, name("open"), 0o600, 0).unwrap();
    share.write(&asker, open.ino, 0, b"old").unwrap();
    let new = share.create(&asker, TOP, name("new"), 0o600, 0).unwrap();
    share.release(&asker, new.ino).unwrap();
    // Another takes its place.
    share.rename(&asker, (TOP, name("new")), (TOP, name("open"))).unwrap();
    assert_eq!(share.read(&asker, open.ino, 0, 10), Ok(b"old".to_vec()));
    let names = server.state().all_names();
    assert_eq!(names.len(), 2, "{names:?}");
    let hidden = names.iter().find(|it| it.starts_with(".nfs")).unwrap();
    assert_eq!(code(share.unlink(&asker, TOP, name(hidden))), libc::EBUSY);
    share.release(&asker, open.ino).unwrap();
    assert_eq!(server.state().all_names(), ["open"]);
    // Removed while open.
    let there = share.lookup(&asker, &share.handle(TOP).unwrap(), name("open")).unwrap();
    share.nodes.opened(there.ino.0);
    share.unlink(&asker, TOP, name("open")).unwrap();
    assert_eq!(share.read(&asker, there.ino, 0, 10), Ok(Vec::new()));
    share.release(&asker, there.ino).unwrap();
    assert!(server.state().all_names().is_empty());
}

#[test]
fn a_large_directory_comes_in_parts_with_every_name_once() {
    let Some((server, mut share, asker)) = mounted() else { return };
    let mut wanted: Vec<OsString> = (0..20).map(|it| format!("f{it}").into()).collect();
    wanted.push(OsStr::from_bytes(b"\xff\xfe\x80").to_owned());
    wanted.sort();
    for it in &wanted {
        let made = share.create(&asker, TOP, it, 0o600, 0).unwrap();
        share.release(&asker, made.ino).unwrap();
    }
    share.mkdir(&asker, TOP, name("z"), 0o700).unwrap();
    wanted.push("z".into());
    wanted.sort();
    server.state().is_terse = true;
    let (mut found, mut cookie) = (Vec::new(), 0);
    loop {
        let (before, from) = (found.len(), cookie);
        // The kernel has room for five at a time.
        let add = |_, at, kind, name: &OsStr| {
            if found.len() - before == 5 {
                return true;
            }
            cookie = at;
            assert_eq!(kind == fuser::FileType::Directory, name == "z", "{name:?}");
            found.push(name.to_owned());
            false
        };
        share.list(&asker, TOP, FileHandle(1), from, add).unwrap();
        if found.len() == before {
            break;
        }
    }
    assert_eq!(found, wanted);
}

#[test]
fn a_file_that_another_node_removed_is_stale_and_not_empty() {
    let Some((server, mut share, asker)) = mounted() else { return };
    let file = share.create(&asker, TOP, name("file"), 0o600, 0).unwrap();
    let number = server.state().named(b"file").unwrap();
    assert_ne!(number, ROOT);
    server.state().nodes.remove(&number);
    assert_eq!(code(share.read(&asker, file.ino, 0, 10)), libc::ESTALE);
    assert_eq!(code(share.write(&asker, file.ino, 0, b"x")), libc::ESTALE);
}

#[test]
fn files_are_cut_and_begun_anew() {
    let Some((server, mut share, asker)) = mounted() else { return };
    let file = share.create(&asker, TOP, name("file"), 0o600, 0).unwrap();
    share.write(&asker, file.ino, 0, b"0123456789").unwrap();
    let new = New { mode: None, uid: None, gid: None, size: Some(4), atime: None, mtime: None };
    assert_eq!(share.set(&asker, file.ino, new.into()).unwrap().size, 4);
    assert_eq!(share.read(&asker, file.ino, 0, 10), Ok(b"0123".to_vec()));
    // Made by somebody else between the look and the call.
    share.create(&asker, TOP, name("file"), 0o600, libc::O_TRUNC).unwrap();
    let number = server.state().named(b"file").unwrap();
    assert!(server.state().nodes[&number].data.is_empty());
}
