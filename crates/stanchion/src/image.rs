//! `stanchion image`: what lies in the image store of a data dir.

use crate::config::DataDir;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use runtime::image::{self, ImageStore};
use std::path::{Path, PathBuf};
use stdx::{Clock, SystemClock};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Import a docker archive, an OCI archive or an OCI layout
    Import(Import),
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

/// Where a data dir keeps its images.
pub(crate) fn open(data_dir: &Path) -> Result<ImageStore> {
    let dir = data_dir.join("images");
    ImageStore::open(&dir).with_context(|| format!("open images in {}", dir.display()))
}
