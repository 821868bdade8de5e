//! `stanchion image`: what lies in the image store of a data dir.

use crate::config::DataDir;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use kubelet::credentials::Keyring;
use runtime::image::{self, Auth, ImageStore, Progress, Reference, Registries, Registry, Report};
use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use stdx::{Clock, SystemClock};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Import a docker archive, an OCI archive or an OCI layout
    Import(Import),
    /// Fetch an image from its registry
    Pull(Pull),
    /// Make an image of a directory as it is: its root, as one layer (no Dockerfile is read)
    Build(Build),
    /// List images
    Ls(DataDir),
    /// Remove a reference, or an image by its id
    Rm(Remove),
}

#[derive(Args)]
pub(crate) struct Import {
    #[command(flatten)]
    data: DataDir,
    /// Archive (plain, gzip or zstd) or layout directory
    path: PathBuf,
    /// Name the image this instead of what the archive says
    #[arg(short, long = "tag", value_name = "REF")]
    tag: Option<String>,
}

#[derive(Args)]
pub(crate) struct Pull {
    #[command(flatten)]
    data: DataDir,
    /// Credentials: a file as `docker login` writes it [default: $DOCKER_CONFIG/config.json, else
    /// ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// `nginx:1.27`, `registry.lan:5000/app@sha256:...`
    reference: String,
}

#[derive(Args)]
pub(crate) struct Build {
    #[command(flatten)]
    data: DataDir,
    /// Everything in it becomes the image's root, owned by root
    directory: PathBuf,
    /// Name of the image
    #[arg(short, long = "tag", value_name = "REF")]
    tag: String,
    /// Program and first arguments (repeatable)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Further arguments, which a pod may replace (repeatable)
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// NAME=VALUE (repeatable)
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// User, or user:group
    #[arg(long, default_value = "")]
    user: String,
    /// Working directory
    #[arg(long, default_value = "/")]
    workdir: String,
}

#[derive(Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    data: DataDir,
    /// Reference or image id
    reference: String,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Import(import) => {
            let store = open(&import.data.open()?)?;
            let images = match &import.tag {
                Some(tag) => store.import_as(&import.path, tag)?,
                None => store.import(&import.path)?,
            };
            for image in images {
                if image.references.is_empty() {
                    println!("imported {}", image.id);
                }
                for name in &image.references {
                    println!("imported {name}");
                }
            }
            Ok(())
        }
        Command::Pull(pull) => self::pull(pull),
        Command::Build(build) => {
            let config = image::ImageConfig {
                entrypoint: build.entrypoint.clone(),
                cmd: build.cmd.clone(),
                env: build.env.clone(),
                user: build.user.clone(),
                working_dir: build.workdir.clone(),
                ..image::ImageConfig::default()
            };
            let store = open(&build.data.open()?)?;
            let built = store.build(&build.directory, &build.tag, &config)?;
            println!("built {}", built.references.first().unwrap_or(&built.id));
            Ok(())
        }
        Command::Ls(data) => {
            print!("{}", image::table(&open(&data.existing()?)?.list()?, SystemClock.now()));
            Ok(())
        }
        Command::Rm(remove) => {
            let data_dir = remove.data.existing()?;
            let users = runtime::image_users(&data_dir.join("runtime"));
            let user = |id: &str| users.iter().find(|it| it.0 == id).map(|it| it.1.clone());
            let removed = open(&data_dir)?.remove(&remove.reference, &user)?;
            for name in removed.untagged {
                println!("untagged {name}");
            }
            if let Some(id) = removed.deleted {
                println!("deleted {id}");
            }
            Ok(())
        }
    }
}

fn pull(pull: &Pull) -> Result<()> {
    let data_dir = pull.data.open()?;
    let (store, registries) = (open(&data_dir)?, registries(&data_dir)?);
    let reference = Reference::parse(&pull.reference)?;
    let keyring = match login_file(pull.config.as_deref()) {
        None => Keyring::default(),
        Some(file) => {
            let bytes = std::fs::read(&file);
            let bytes = bytes.with_context(|| format!("read {}", file.display()))?;
            Keyring::of_config(&bytes).with_context(|| format!("read {}", file.display()))?
        }
    };
    let mut credentials: Vec<Auth> = keyring.lookup(&pull.reference).map(auth).collect();
    if credentials.is_empty() {
        credentials.push(Auth::default());
    }
    let report = progress();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let pulled = runtime.block_on(async {
        let mut pulled = None;
        for auth in &credentials {
            pulled = Some(registries.pull(&store, &reference, auth, &report).await);
            if let Some(Ok(_)) = &pulled {
                break;
            }
        }
        pulled.expect("there is one way at least")
    });
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let image = pulled?;
    println!("pulled {}", reference.familiar());
    println!("{}", image.digests.first().unwrap_or(&image.id));
    Ok(())
}

/// One line that is written over on a terminal; a line a layer elsewhere.
fn progress() -> Report {
    let terminal = std::io::stderr().is_terminal();
    let said = Mutex::new(Progress::default());
    Arc::new(move |now: Progress| {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let step = now.bytes_done.abs_diff(said.bytes_done) >= now.bytes / 200;
        if now.layers_done == said.layers_done && !(terminal && step) {
            return;
        }
        *said = now;
        let (begin, end) = if terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        eprint!(
            "{begin}{} of {} layers, {:.1} of {:.1} MB{end}",
            now.layers_done,
            now.layers,
            megabytes(now.bytes_done),
            megabytes(now.bytes)
        );
    })
}

fn login_file(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(named) = named {
        return Some(named.to_owned());
    }
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from).or_else(home)?;
    Some(directory.join("config.json")).filter(|file| file.exists())
}

fn auth(credential: &kubelet::credentials::Credential) -> Auth {
    Auth {
        username: credential.username.clone(),
        password: credential.password.clone(),
        identity_token: credential.identity_token.clone(),
        registry_token: credential.registry_token.clone(),
    }
}

/// What DATA/registries.yaml says about registries, by host.
pub(crate) fn registries(data_dir: &Path) -> Result<Registries> {
    let path = data_dir.join("registries.yaml");
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Registries::default());
        }
        read => read.with_context(|| format!("read {}", path.display()))?,
    };
    let settings: BTreeMap<String, Registry> =
        serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    Ok(Registries::new(settings))
}

/// Where a data dir keeps its images.
pub(crate) fn open(data_dir: &Path) -> Result<ImageStore> {
    let dir = data_dir.join("images");
    ImageStore::open(&dir).with_context(|| format!("open images in {}", dir.display()))
}
