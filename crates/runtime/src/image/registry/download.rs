//! One layer of a registry as a file: `<hex>.part` while it grows, `<hex>` when it is whole and checked.
//!
//! A broken connection goes on where it broke, in the next try and in the next process. Whoever wants the same
//! layer at the same time waits for the one download: the file's lock says whose it is.

use super::{PullError, Result, connection::PIECE_PATIENCE, repository::Repository};
use crate::image::{Attempt, Digest, ImageError, ImageStore};
use http::StatusCode;
use http_body_util::BodyExt;
use ring::digest::{Context, SHA256};
use rustix::fs::FlockOperation;
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use stdx::Backoff;

/// Tries without a byte of progress between them. With the waits between them about 15 s.
const FRUITLESS_MAX: u32 = 5;

/// Whoever downloads the same layer is looked at this often, at most.
const LOOK: Duration = Duration::from_millis(500);

/// What nobody has gone on with for a day, nobody will.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// One layer to fetch.
pub(super) struct Wanted {
    pub(super) blob: Digest,
    pub(super) diff_id: Digest,
    /// Bytes, as the manifest has it.
    pub(super) size: u64,
}

/// Fetches a layer into `directory`, unless it is there or gets into the store meanwhile. `arrived` is told of the
/// bytes that are there more, or, after damage, fewer.
pub(super) async fn download(
    store: &ImageStore,
    places: &[Repository<'_>],
    directory: &Path,
    wanted: &Wanted,
    arrived: &(dyn Fn(i64) + Sync),
) -> Result<()> {
    let whole = directory.join(wanted.blob.hex());
    let mut growing = match own(store, directory, wanted).await? {
        Some(growing) => growing,
        None => {
            arrived(i64::try_from(wanted.size).unwrap_or(i64::MAX));
            return Ok(());
        }
    };
    arrived(growing.counted());
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
    let mut damages = 0;
    loop {
        let before = growing.length;
        let failure = match growing.go_on(places, wanted, arrived).await {
            Ok(()) if growing.is(&wanted.blob) => break,
            Ok(()) => {
                damages += 1;
                PullError::Unfit(format!("layer {} arrived damaged", wanted.blob))
            }
            Err(failure) => failure,
        };
        if matches!(failure, PullError::Unfit(_)) {
            arrived(-growing.counted());
            growing.start_over().map_err(Box::new)?;
            if damages > 1 {
                return Err(failure);
            }
        } else if !failure.may_pass() {
            return Err(failure);
        }
        if growing.length > before {
            backoff.succeeded();
        }
        let wait = backoff.failed();
        if backoff.failures() >= FRUITLESS_MAX {
            return Err(failure);
        }
        tracing::info!(layer = %wanted.blob, error = stdx::one_line(&failure), "a layer is fetched on in {wait:?}");
        stdx::sleep(wait).await;
    }
    let renamed = std::fs::rename(&growing.path, &whole);
    renamed.attempt(|| format!("keep {}", whole.display())).map_err(Box::new)?;
    Ok(())
}

/// Takes the growing file as its only owner; none: the layer is whole, here or in the store.
async fn own(store: &ImageStore, directory: &Path, wanted: &Wanted) -> Result<Option<Growing>> {
    let path = directory.join(format!("{}.part", wanted.blob.hex()));
    let mut backoff = Backoff::new(Duration::from_millis(20), LOOK);
    loop {
        let whole = directory.join(wanted.blob.hex());
        let is_whole = || std::fs::metadata(&whole).is_ok_and(|it| it.len() == wanted.size);
        if is_whole() || store.has_layer(&wanted.diff_id).map_err(Box::new)? {
            return Ok(None);
        }
        let attempted = || format!("open {}", path.display());
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = options.open(&path).attempt(attempted).map_err(Box::new)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => stdx::sleep(backoff.failed()).await,
            Err(error) => Err(error).attempt(attempted).map_err(Box::new)?,
            Ok(()) => {
                // Whoever had it may have finished it and put it away, and the name is another file's by now.
                let same = std::fs::metadata(&path).ok().map(|it| it.ino())
                    == file.metadata().ok().map(|it| it.ino());
                if same && !is_whole() {
                    let read = tokio::task::spawn_blocking(move || Growing::over(file, path)).await;
                    let read = read.map_err(|error| PullError::Unfit(error.to_string()))?;
                    return read.map(Some).map_err(|it| Box::new(it).into());
                }
            }
        }
    }
}

/// A file that grows, and the hash of what is in it.
struct Growing {
    file: File,
    path: PathBuf,
    length: u64,
    context: Context,
}

impl Growing {
    fn over(mut file: File, path: PathBuf) -> Result<Growing, ImageError> {
        let mut context = Context::new(&SHA256);
        let mut length = 0;
        let mut piece = vec![0; 256 * 1024];
        loop {
            let read = file.read(&mut piece).attempt(|| format!("read {}", path.display()))?;
            if read == 0 {
                return Ok(Growing { file, path, length, context });
            }
            context.update(&piece[..read]);
            length += read as u64;
        }
    }

    fn counted(&self) -> i64 {
        i64::try_from(self.length).unwrap_or(i64::MAX)
    }

    fn is(&self, digest: &Digest) -> bool {
        Digest::of_context(self.context.clone()) == *digest
    }

    fn start_over(&mut self) -> Result<(), ImageError> {
        let cut = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cut.attempt(|| format!("cut {}", self.path.display()))?;
        (self.length, self.context) = (0, Context::new(&SHA256));
        Ok(())
    }

    /// Asks for the rest and writes what comes. Done means: as many bytes as the manifest says.
    async fn go_on(
        &mut self,
        places: &[Repository<'_>],
        wanted: &Wanted,
        arrived: &(dyn Fn(i64) + Sync),
    ) -> Result<()> {
        if self.length == wanted.size {
            return Ok(());
        }
        if self.length > wanted.size {
            return Err(PullError::Unfit(format!("layer {} is longer than said", wanted.blob)));
        }
        let mut last = None;
        for place in places {
            let response = match place.blob(&wanted.blob, self.length).await {
                Ok(response) => response,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            if self.length > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                arrived(-self.counted());
                self.start_over().map_err(Box::new)?;
            }
            let mut body = response.into_body();
            let failed = |why: io::Error| {
                PullError::unreachable(format!("fetch layer {}", wanted.blob), why)
            };
            loop {
                let frame = match stdx::timeout(PIECE_PATIENCE, body.frame()).await {
                    None => {
                        return Err(failed(io::Error::new(io::ErrorKind::TimedOut, "it stalls")));
                    }
                    Some(None) if self.length < wanted.size => {
                        return Err(failed(io::ErrorKind::UnexpectedEof.into()));
                    }
                    Some(None) => return Ok(()),
                    Some(Some(frame)) => frame.map_err(|error| failed(io::Error::other(error)))?,
                };
                let Ok(piece) = frame.into_data() else { continue };
                if self.length + piece.len() as u64 > wanted.size {
                    return Err(PullError::Unfit(format!(
                        "layer {} is longer than said",
                        wanted.blob
                    )));
                }
                let path = &self.path;
                let written = self.file.write_all(&piece);
                written.attempt(|| format!("write {}", path.display())).map_err(Box::new)?;
                self.context.update(&piece);
                self.length += piece.len() as u64;
                arrived(i64::try_from(piece.len()).unwrap_or(i64::MAX));
            }
        }
        Err(last.unwrap_or_else(|| PullError::NotFound(String::new())))
    }
}

/// Puts away what was taken into the store, and what nobody will go on with.
pub(super) fn tidy(directory: &Path, taken: &[Wanted]) {
    for wanted in taken {
        let _gone_is_fine = std::fs::remove_file(directory.join(wanted.blob.hex()));
    }
    let old = SystemTime::now().checked_sub(STALE).unwrap_or(SystemTime::UNIX_EPOCH);
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let stale = entry.metadata().and_then(|it| it.modified()).is_ok_and(|it| it < old);
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        if stale && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _another_day = std::fs::remove_file(&path);
        }
    }
}
