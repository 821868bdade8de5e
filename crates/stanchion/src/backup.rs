//! `stanchion backup`: ledger, certificates and keys of a data dir as one file.
//!
//! While a server holds the data dir, it writes the backup itself, to whoever connects to a socket in the data
//! dir that only root (or the server's own user) may use: no port, no credentials to keep.

use crate::{config::DataDir, hands::VERSION};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt, unix::fs::PermissionsExt, unix::net},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use stdx::{Clock, ShutdownSignal, SystemClock};
use store::{
    Store, StoreError,
    backend::Hold,
    backup::{self, Head},
};
use tokio::net::{UnixListener, UnixStream};

const SOCKET: &str = "backup.socket";

/// Who asks for a backup and does not read it holds up the next one no longer than this.
const STALLED: Duration = Duration::from_secs(30);

/// What belongs to a backup beside the ledger: the authority, the admin's identity, keys of tokens.
pub(crate) const PKI: &str = "pki";

#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    data: DataDir,
    /// File to write; replaced once the new backup is complete and verified. It holds the objects with their
    /// Secrets, the cluster's authority and its keys: mode 0600. Not in it are data of volumes, images, and the file
    /// of --encryption-provider-config, without which sealed objects cannot be read
    file: PathBuf,
}

pub(crate) fn run(flags: &Flags) -> Result<()> {
    let data_dir = flags.data.existing()?;
    let path = &flags.file;
    let attempt = || format!("write {}", path.display());
    let mut name = path.file_name().with_context(attempt)?.to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let written = write(&data_dir, &partial).and_then(|()| {
        let verified = backup::verify(&partial).context("verify what was written")?;
        fs::rename(&partial, path).with_context(attempt)?;
        sync_parent(path)?;
        Ok(verified)
    });
    if written.is_err() {
        // What is left of a failed attempt helps nobody; that it may stay changes nothing.
        let _stays = fs::remove_file(&partial);
    }
    let verified = written?;
    println!(
        "backed up {} objects at revision {}, {} keys and certificates, to {} ({} bytes)",
        verified.counts.entries,
        verified.head.revision,
        verified.counts.files,
        path.display(),
        fs::metadata(path).with_context(attempt)?.len(),
    );
    let recalled = crate::config::Flags::recall(&DataDir { data_dir })?;
    if let Some(keys) = recalled.encryption_provider_config {
        println!("sealed objects need {}, which is not in it: keep that as well", keys.display());
    }
    Ok(())
}

fn write(data_dir: &Path, partial: &Path) -> Result<()> {
    let attempt = || format!("write {}", partial.display());
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial);
    let mut out = open.with_context(attempt)?;
    let state = data_dir.join("state");
    let store = crate::config::Flags::recall(&DataDir { data_dir: data_dir.to_owned() })?.store;
    if !store.is_shared() && !state.join("ledger").exists() {
        bail!("back up {}: it holds no ledger", data_dir.display());
    }
    match Hold::take(&state) {
        Ok(hold) => {
            let runtime = tokio::runtime::Builder::new_current_thread().build().context("start")?;
            let attempt = || format!("open the ledger of {}", data_dir.display());
            if store.is_shared() {
                let (url, tls) = (&store.store, store.tls.files());
                let store = store::backend::open(url, &tls, &state, Arc::new(SystemClock));
                runtime.block_on(save(&*store.with_context(attempt)?, data_dir, &mut out))?;
            } else {
                let store = hold.open(Arc::new(SystemClock)).with_context(attempt)?;
                runtime.block_on(save(&store, data_dir, &mut out))?;
            }
        }
        Err(StoreError::InUse { .. }) => ask(data_dir, &mut out)?,
        Err(error) => return Err(error).with_context(|| format!("open {}", state.display())),
    }
    out.sync_all().with_context(attempt)
}

async fn save(store: &dyn Store, data_dir: &Path, out: impl Write) -> Result<()> {
    let (snapshot, leases) = (store.snapshot().await?, store.leases().await?);
    let head = Head {
        revision: snapshot.revision(),
        made: SystemClock.now(),
        program: format!("stanchion {VERSION}"),
    };
    backup::save(&*snapshot, &leases, files(data_dir)?, &head, BufWriter::new(out))?;
    Ok(())
}

/// Everything below the directory of keys and certificates.
fn files(data_dir: &Path) -> Result<Vec<backup::File>> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::from(PKI)]);
    while let Some(folder) = folders.pop() {
        let attempt = || format!("list {}", data_dir.join(&folder).display());
        for entry in fs::read_dir(data_dir.join(&folder)).with_context(attempt)? {
            let entry = entry.with_context(attempt)?;
            let path = folder.join(entry.file_name());
            if entry.file_type().with_context(attempt)?.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(entry.path());
            let bytes = bytes.with_context(|| format!("read {}", entry.path().display()))?;
            if bytes.len() > backup::FILE_BYTES_MAX {
                bail!("back up {}: it has {} bytes", entry.path().display(), bytes.len());
            }
            let path = path.to_str().with_context(|| format!("name {}", path.display()))?;
            found.push(backup::File { path: path.to_owned(), bytes });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// Has the server that holds the data dir write it.
fn ask(data_dir: &Path, out: &mut File) -> Result<()> {
    io::copy(&mut connect(data_dir)?, out).context("take the server's backup")?;
    Ok(())
}

/// Reads a backup of a running server and keeps nothing of it: a look at all that its ledger holds.
pub(crate) fn rehearse(data_dir: &Path) -> Result<backup::Counts> {
    let mut reader = backup::Reader::open(connect(data_dir)?)?;
    let mut counts = backup::Counts::default();
    while let Some(part) = reader.next()? {
        counts.count(&part);
    }
    Ok(counts)
}

fn connect(data_dir: &Path) -> Result<net::UnixStream> {
    let attempt = || {
        let path = data_dir.join(SOCKET);
        format!(
            "ask the server that runs on {} for a backup at {}",
            data_dir.display(),
            path.display()
        )
    };
    let folder = File::open(data_dir).with_context(attempt)?;
    net::UnixStream::connect(short(&folder)).with_context(attempt)
}

/// A data dir's path may be longer than a socket's name (108 bytes).
fn short(folder: &File) -> PathBuf {
    format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).into()
}

/// The server's side.
pub(crate) struct Listener {
    data_dir: PathBuf,
    listener: UnixListener,
}

impl Listener {
    /// The caller holds the ledger, so a socket that lies there is nobody's.
    pub(crate) fn bind(data_dir: &Path) -> Result<Listener> {
        let path = data_dir.join(SOCKET);
        let attempt = || format!("listen on {}", path.display());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(attempt);
            }
            Ok(()) | Err(_) => {}
        }
        let folder = File::open(data_dir).with_context(attempt)?;
        let listener = UnixListener::bind(short(&folder)).with_context(attempt)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).with_context(attempt)?;
        Ok(Listener { data_dir: data_dir.to_owned(), listener })
    }

    /// One backup at a time, until shutdown.
    pub(crate) async fn serve(self, store: Arc<dyn Store>, mut shutdown: ShutdownSignal) {
        loop {
            let stream = tokio::select! {
                () = shutdown.wait() => return,
                accepted = self.listener.accept() => accepted,
            };
            let written = async {
                let (stream, _) = stream.context("accept")?;
                self.answer(stream, &store).await
            };
            if let Err(error) = written.await {
                tracing::warn!("write a backup: {}", stdx::one_line(error.as_ref()));
            }
        }
    }

    async fn answer(&self, stream: UnixStream, store: &Arc<dyn Store>) -> Result<()> {
        let peer = stream.peer_cred().context("ask who it is for")?.uid();
        if peer != 0 && peer != rustix::process::geteuid().as_raw() {
            bail!("user {peer} may not have one");
        }
        let stream = stream.into_std().context("take the connection over")?;
        stream.set_nonblocking(false).context("take the connection over")?;
        stream.set_write_timeout(Some(STALLED)).context("take the connection over")?;
        let (store, data_dir) = (store.clone(), self.data_dir.clone());
        let runtime = tokio::runtime::Handle::current();
        let work = move || runtime.block_on(save(&*store, &data_dir, stream));
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| anyhow!("it ended early: {error}"))?
    }
}

/// A name is durable once its directory is.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let synced = File::open(parent).and_then(|it| it.sync_all());
    synced.with_context(|| format!("sync {}", parent.display()))
}
