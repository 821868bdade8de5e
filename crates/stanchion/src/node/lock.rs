//! One process for the node of a data dir: a second one fails at once and says who holds it. Who takes the node down
//! ends the first.

use anyhow::{Context, Result, anyhow, bail};
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

const FILE: &str = "node.lock";
/// A process that was asked to end has little to do: containers stay. A loaded machine is given time.
const ENDING: Duration = Duration::from_secs(60);

/// Held until it is dropped, or the process ends.
pub(crate) struct Lock {
    _file: File,
}

pub(crate) fn take(data_dir: &Path) -> Result<Lock> {
    let (path, mut file) = open(data_dir)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => sign(&path, file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let holder = holder(&path, &mut file)?;
            bail!("{} is in use by process {holder}", path.display());
        }
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// Ends the process that holds it, as ^C would, and takes it then. `told` hears who is asked to end.
pub(crate) async fn take_over(data_dir: &Path, told: impl FnOnce(u32)) -> Result<Lock> {
    let (path, mut file) = open(data_dir)?;
    let attempt = || format!("lock {}", path.display());
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return sign(&path, file),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error).with_context(attempt),
    }
    let holder = holder(&path, &mut file)?;
    let process = i32::try_from(holder).ok().and_then(Pid::from_raw);
    // A number that was written down may be somebody else's by now.
    let process = process.filter(|_| has_open(holder, &path));
    let process = process.ok_or_else(|| anyhow!("{}: process {holder} is not it", attempt()))?;
    told(holder);
    kill_process(process, Signal::TERM).with_context(|| format!("end process {holder}"))?;
    let free = tokio::task::spawn_blocking(move || {
        flock(&file, FlockOperation::LockExclusive).map(|()| file)
    });
    let free = stdx::timeout(ENDING, free).await;
    let free = free.ok_or_else(|| anyhow!("{}: process {holder} does not end", attempt()))?;
    sign(&path, free.context("wait for a lock")?.with_context(attempt)?)
}

fn open(data_dir: &Path) -> Result<(PathBuf, File)> {
    let path = data_dir.join(FILE);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("lock {}", path.display()))?;
    Ok((path, file))
}

/// Who it says holds it.
fn holder(path: &Path, file: &mut File) -> Result<u32> {
    let mut pid = String::new();
    let attempt = || format!("read {}", path.display());
    file.read_to_string(&mut pid).with_context(attempt)?;
    pid.trim().parse().with_context(attempt)
}

fn sign(path: &Path, mut file: File) -> Result<Lock> {
    let attempt = || format!("write {}", path.display());
    file.set_len(0).with_context(attempt)?;
    file.rewind().with_context(attempt)?;
    writeln!(file, "{}", std::process::id()).with_context(attempt)?;
    Ok(Lock { _file: file })
}

fn has_open(process: u32, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(wanted) = path.metadata() else { return false };
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    open.filter_map(|it| std::fs::metadata(it.path()).ok())
        .any(|it| (it.dev(), it.ino()) == (wanted.dev(), wanted.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = take(directory.path()).unwrap();
        let error = take(directory.path()).err().unwrap().to_string();
        let why = format!("is in use by process {}", std::process::id());
        assert!(error.ends_with(&why), "{error}");
        drop(first);
        take(directory.path()).unwrap();
    }

    #[tokio::test]
    async fn the_holder_is_asked_to_end_and_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let script =
            format!("exec 9<> {0}; flock -x 9; echo $$ > {0}; echo held; read _", path.display());
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &script]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let mut said = [0; 5];
        holder.stdout.take().unwrap().read_exact(&mut said).unwrap();
        let mut asked = None;
        let held = take_over(directory.path(), |it| asked = Some(it)).await.unwrap();
        assert_eq!(asked, Some(holder.id()));
        assert!(!holder.wait().unwrap().success());
        drop(held);
        // Nobody has it: nobody is asked.
        take_over(directory.path(), |it| panic!("asked {it}")).await.unwrap();
        // What it says is not who has it.
        let held = take(directory.path()).unwrap();
        std::fs::write(&path, "1\n").unwrap();
        let error = take_over(directory.path(), |it| panic!("asked {it}")).await;
        assert!(error.err().unwrap().to_string().ends_with("process 1 is not it"));
        drop(held);
    }
}
