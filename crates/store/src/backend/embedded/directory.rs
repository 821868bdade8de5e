//! The ledger's directory: held by one process, and made whole or not at all.

use super::{Embedded, ballast::Ballast, import::fill, medium::FileMedium};
use crate::{Entry, LeaseId, StoreError};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use stdx::{Clock, Timestamp};

/// A ledger's directory that nobody else opens meanwhile.
#[derive(Debug)]
pub struct Hold {
    dir: PathBuf,
    lock: File,
}

impl Hold {
    /// Fails at once, with [`StoreError::InUse`], if another process holds it.
    pub fn take(dir: &Path) -> Result<Hold, StoreError> {
        fs::create_dir_all(dir).map_err(attempt("create", dir))?;
        Ok(Hold { dir: dir.to_owned(), lock: lock(dir)? })
    }

    /// Where the ledger is, or will be.
    pub fn ledger(&self) -> PathBuf {
        self.dir.join(LEDGER)
    }

    /// Opens the ledger, or makes one.
    pub fn open(self, clock: Arc<dyn Clock>) -> Result<Embedded, StoreError> {
        let Hold { dir, lock } = self;
        let ledger = dir.join(LEDGER);
        let exists = ledger.try_exists().map_err(attempt("look for", &ledger))?;
        if !exists {
            create(&dir, &ledger)?;
        }
        let ballast = ledger.join(BALLAST);
        let laid_by = Ballast::open(&ballast).map_err(attempt("open", &ballast))?;
        let pages = Arc::new(file(&ledger.join(PAGES), false)?.with_ballast(laid_by));
        let log = medium(&ledger.join(LOG), false)?;
        let mut embedded = Embedded::on(pages, log, clock)?;
        embedded.lock = Some(lock);
        Ok(embedded)
    }
}

/// Makes the ledger `at` (a directory that is not there yet) of entries and leases. The last entry
/// is the latest revision, and the only one that is history.
pub(super) fn import<E: From<StoreError>>(
    at: &Path,
    leases: &[(LeaseId, Duration)],
    entries: impl FnOnce(&mut dyn FnMut(&Entry) -> Result<(), StoreError>) -> Result<(), E>,
    last: &Entry,
    now: Timestamp,
) -> Result<(), E> {
    fs::create_dir(at).map_err(attempt("create", at))?;
    let (pages, log) = (medium(&at.join(PAGES), true)?, medium(&at.join(LOG), true)?);
    Embedded::create(Arc::clone(&pages) as _, log)?;
    fill(pages, leases, entries, last, now)?;
    Ok(sync(at)?)
}

/// Held while the process lives; names it for those who come second.
const LOCK: &str = "lock";
const LEDGER: &str = "ledger";
/// A ledger that is being made. Nothing in it was ever acknowledged.
const UNFINISHED: &str = "ledger.new";
const PAGES: &str = "pages";
const LOG: &str = "log";
/// Takes up space, and holds nothing.
const BALLAST: &str = "ballast";

pub(super) fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Embedded, StoreError> {
    Hold::take(dir)?.open(clock)
}

fn create(dir: &Path, ledger: &Path) -> Result<(), StoreError> {
    let unfinished = dir.join(UNFINISHED);
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(attempt("remove", &unfinished)(error));
        }
        Ok(()) | Err(_) => {}
    }
    fs::create_dir(&unfinished).map_err(attempt("create", &unfinished))?;
    Embedded::create(medium(&unfinished.join(PAGES), true)?, medium(&unfinished.join(LOG), true)?)?;
    sync(&unfinished)?;
    fs::rename(&unfinished, ledger).map_err(attempt("finish", ledger))?;
    sync(dir)
}

fn medium(path: &Path, create: bool) -> Result<Arc<FileMedium>, StoreError> {
    file(path, create).map(Arc::new)
}

fn file(path: &Path, create: bool) -> Result<FileMedium, StoreError> {
    match FileMedium::open(path, create) {
        Ok(medium) => Ok(medium),
        Err(error) if !create && error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::Corrupt { path: path.to_owned(), detail: "the file is gone".into() })
        }
        Err(error) => Err(attempt("open", path)(error)),
    }
}

fn sync(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(attempt("sync", dir))
}

/// The kernel lets go of the lock when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    let options =
        || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options().map_err(attempt("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Without a readable pid the error only knows less.
            let _unread = file.read_to_string(&mut holder);
            let pid = holder.trim().parse().ok();
            return Err(StoreError::InUse { path: PathBuf::from(dir), pid });
        }
        Err(TryLockError::Error(error)) => return Err(attempt("lock", &path)(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(attempt("write", &path))?;
    Ok(file)
}

fn attempt<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |error| {
        if error.kind() == io::ErrorKind::StorageFull {
            return StoreError::Full { attempted: what.into(), path: path.to_owned() };
        }
        StoreError::io(format!("{what} {}", path.display()), error)
    }
}
