//! The protocol's words in the kernel's: attributes, kinds of file, times and errors.

use fuser::{Errno, FileAttr, FileType, INodeNo};
use nfs3_client::nfs3_types::nfs3::{fattr3, ftype3, nfsstat3, nfstime3};
use std::time::{Duration, SystemTime};

pub(super) fn attributes(number: u64, it: &fattr3) -> FileAttr {
    FileAttr {
        ino: INodeNo(number),
        size: it.size,
        blocks: it.used.div_ceil(512),
        atime: system_time(it.atime),
        mtime: system_time(it.mtime),
        ctime: system_time(it.ctime),
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(it.type_),
        perm: u16::try_from(it.mode & 0o7777).unwrap_or_default(),
        nlink: it.nlink,
        uid: it.uid,
        gid: it.gid,
        rdev: u32::try_from(libc::makedev(it.rdev.specdata1, it.rdev.specdata2))
            .unwrap_or_default(),
        blksize: 128 << 10,
        flags: 0,
    }
}

pub(super) fn kind(kind: ftype3) -> FileType {
    match kind {
        ftype3::NF3REG => FileType::RegularFile,
        ftype3::NF3DIR => FileType::Directory,
        ftype3::NF3BLK => FileType::BlockDevice,
        ftype3::NF3CHR => FileType::CharDevice,
        ftype3::NF3LNK => FileType::Symlink,
        ftype3::NF3SOCK => FileType::Socket,
        ftype3::NF3FIFO => FileType::NamedPipe,
    }
}

fn system_time(at: nfstime3) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(u64::from(at.seconds), at.nseconds.min(999_999_999))
}

/// The protocol ends in the year 2106, and begins in 1970.
pub(super) fn time(at: SystemTime) -> nfstime3 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    nfstime3 {
        seconds: u32::try_from(since.as_secs()).unwrap_or(u32::MAX),
        nseconds: since.subsec_nanos(),
    }
}

pub(super) fn errno(number: i32) -> Errno {
    Errno::from_i32(number)
}

pub(super) fn server_error(status: nfsstat3) -> Errno {
    errno(match status {
        nfsstat3::NFS3ERR_PERM => libc::EPERM,
        nfsstat3::NFS3ERR_NOENT => libc::ENOENT,
        nfsstat3::NFS3ERR_NXIO => libc::ENXIO,
        nfsstat3::NFS3ERR_ACCES => libc::EACCES,
        nfsstat3::NFS3ERR_EXIST => libc::EEXIST,
        nfsstat3::NFS3ERR_XDEV => libc::EXDEV,
        nfsstat3::NFS3ERR_NODEV => libc::ENODEV,
        nfsstat3::NFS3ERR_NOTDIR => libc::ENOTDIR,
        nfsstat3::NFS3ERR_ISDIR => libc::EISDIR,
        nfsstat3::NFS3ERR_INVAL => libc::EINVAL,
        nfsstat3::NFS3ERR_FBIG => libc::EFBIG,
        nfsstat3::NFS3ERR_NOSPC => libc::ENOSPC,
        nfsstat3::NFS3ERR_ROFS => libc::EROFS,
        nfsstat3::NFS3ERR_MLINK => libc::EMLINK,
        nfsstat3::NFS3ERR_NAMETOOLONG => libc::ENAMETOOLONG,
        nfsstat3::NFS3ERR_NOTEMPTY => libc::ENOTEMPTY,
        nfsstat3::NFS3ERR_DQUOT => libc::EDQUOT,
        nfsstat3::NFS3ERR_STALE | nfsstat3::NFS3ERR_BADHANDLE => libc::ESTALE,
        nfsstat3::NFS3ERR_REMOTE => libc::EREMOTE,
        nfsstat3::NFS3ERR_NOTSUPP => libc::EOPNOTSUPP,
        nfsstat3::NFS3ERR_JUKEBOX => libc::EAGAIN,
        nfsstat3::NFS3_OK
        | nfsstat3::NFS3ERR_IO
        | nfsstat3::NFS3ERR_NOT_SYNC
        | nfsstat3::NFS3ERR_BAD_COOKIE
        | nfsstat3::NFS3ERR_TOOSMALL
        | nfsstat3::NFS3ERR_SERVERFAULT
        | nfsstat3::NFS3ERR_BADTYPE => libc::EIO,
    })
}
