//! Work on a share, in a process of its own: whatever the server does, the work has a deadline, and its mount ends with it.
//!
//! The process is this same program, called with a job. It mounts the share in a mount namespace of its own.

use super::{
    directory::{OnDelete, Share, Wanted},
    mounting,
};
use crate::{
    Result, VolumeError,
    error::{Attempted, Failure, OnVolume},
    program, tree,
};
use rustix::{
    mount::{MountPropagationFlags, UnmountFlags},
    thread::UnshareFlags,
};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// The subcommand that takes a job.
pub const COMMAND: &str = "nfs-directory";

/// Mounting may take half a minute; what is left is for the directory, whose files may be many.
const DEADLINE: Duration = Duration::from_secs(300);

/// Told by the end code: asking again cannot help.
const INVALID: u8 = 3;

/// A server that stops answering ends the work with an error, whatever the class says of pods.
const OPTIONS: &str = "soft,timeo=100,retrans=3";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) server: String,
    pub(super) share: String,
    pub(super) options: String,
    /// A directory of this node to mount at; nobody else sees it.
    pub(super) point: PathBuf,
    pub(super) work: Work,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Work {
    Make(Wanted),
    Delete { directory: String, volume: String, then: OnDelete },
}

impl Work {
    fn volume(&self) -> &str {
        match self {
            Work::Make(wanted) => &wanted.volume,
            Work::Delete { volume, .. } => volume,
        }
    }
}

/// Has a job done. Blocks.
pub(super) fn start(operation: &'static str, volume: &str, job: &Job) -> Result<()> {
    // What is wrong with the request needs no process to find out.
    mounting::source(&job.server, &job.share)?;
    tree::make(&job.point, 0o700).on(operation, volume)?;
    let text =
        serde_json::to_string(job).attempted(|| "write a job".to_owned()).on(operation, volume)?;
    let ended = program::run("/proc/self/exe", "stanchion", &[COMMAND, &text], DEADLINE)
        .on(operation, volume)?;
    match ended.code {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(INVALID) => Err(VolumeError::Invalid(ended.output)),
        _ => Err(Failure::new(ended.output)).on(operation, volume),
    }
}

/// The other side: carries out the job that [`start`] wrote, and says why not. The code to end with.
pub fn run(job: &str) -> u8 {
    let Ok(job) = serde_json::from_str::<Job>(job) else {
        eprintln!("this is no job for {COMMAND}");
        return INVALID;
    };
    match carry_out(&job) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{}", stdx::one_line(&error));
            if matches!(error, VolumeError::Invalid(_)) { INVALID } else { 1 }
        }
    }
}

fn carry_out(job: &Job) -> Result<()> {
    let (operation, volume) = ("mount the share of", job.work.volume());
    let source = mounting::source(&job.server, &job.share)?;
    let options = mounting::joined([&*job.options, OPTIONS]);
    let alone = || {
        // SAFETY: this process has one thread, and no descriptor of its is shared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)
    };
    alone().attempted(|| "make a mount namespace".to_owned()).on(operation, volume)?;
    mounting::mount_nfs(&source, &job.point, &options, true).on(operation, volume)?;
    let done = match Share::open(&job.point).on(operation, volume) {
        Err(error) => Err(error),
        Ok(share) => match &job.work {
            Work::Make(wanted) => share.make(wanted),
            Work::Delete { directory, volume, then } => share.delete(directory, volume, *then),
        },
    };
    // The namespace ends with this process, and its mounts with it; a server in userspace is to end, too.
    let _either = rustix::mount::unmount(&job.point, UnmountFlags::DETACH);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_comes_back_as_it_was_written() {
        let work = Work::Delete {
            directory: "a/b".to_owned(),
            volume: "v".to_owned(),
            then: OnDelete::Retain,
        };
        let job = Job {
            server: "s".to_owned(),
            share: "/nfs".to_owned(),
            options: "hard".to_owned(),
            point: "/point".into(),
            work,
        };
        let text = serde_json::to_string(&job).unwrap();
        let read: Job = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{read:?}"), format!("{job:?}"));
        assert_eq!(run("no job"), INVALID);
    }
}
