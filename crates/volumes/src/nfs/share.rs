//! The provisioner `nfs.stanchion.dev`: each of its volumes is a directory of a share. Pods mount it as any NFS volume.

use super::{
    directory::{OnDelete, Wanted},
    helper::{self, Job, Work},
};
use crate::{
    Capabilities, Config, CreateVolume, PublishVolume, Published, Result, Volume, VolumeError,
    VolumePlugin, work::blocking,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use stdx::BoxFuture;

pub(crate) const NAME: &str = "nfs.stanchion.dev";

/// What everyone may do in a directory whose class says nothing, as nfs-subdir-external-provisioner has it.
const MODE: u32 = 0o777;

struct Shares {
    /// Where a helper mounts a share, in a mount namespace of its own.
    point: PathBuf,
    /// One helper at a time: where the server has no locks, this one is left.
    turn: Arc<Mutex<()>>,
}

pub(crate) fn open(config: &Config) -> Arc<dyn VolumePlugin> {
    Arc::new(Shares { point: config.data_dir.join("nfs"), turn: Arc::default() })
}

impl VolumePlugin for Shares {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { create: true, ..Capabilities::default() }
    }

    /// `parameters`: `server`, `share`, `directory` (relative), `onDelete`; if given `mountOptions`, `uid`, `gid`, `mode`
    /// (octal). The answer's context: `server` and `path`. A share has no sizes: the volume's is what was asked for.
    fn create<'a>(&'a self, request: &'a CreateVolume) -> BoxFuture<'a, Result<Volume>> {
        Box::pin(async move {
            let (handle, wanted) = wanted(request)?;
            let path = format!("{}/{}", handle.share.trim_end_matches('/'), handle.directory);
            let volume = Volume {
                handle: handle.text()?,
                bytes: request.bytes_min,
                context: BTreeMap::from([
                    ("server".to_owned(), handle.server.clone()),
                    ("path".to_owned(), path),
                ]),
                topology: BTreeMap::new(),
            };
            self.help("create", &request.name, handle, Work::Make(wanted)).await?;
            Ok(volume)
        })
    }

    fn delete<'a>(&'a self, handle: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let handle = Handle::parse(handle)?;
            let (directory, volume) = (handle.directory.clone(), handle.volume.clone());
            let then = handle.then;
            self.help("delete", &volume.clone(), handle, Work::Delete { directory, volume, then })
                .await
        })
    }

    fn publish<'a>(&'a self, request: &'a PublishVolume) -> BoxFuture<'a, Result<Published>> {
        let text = format!("volume {}: pods mount it as an NFS volume", request.volume.handle);
        Box::pin(async { Err(VolumeError::Invalid(text)) })
    }

    fn unpublish<'a>(&'a self, _: &'a str, _: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

impl Shares {
    async fn help(
        &self,
        operation: &'static str,
        volume: &str,
        handle: Handle,
        work: Work,
    ) -> Result<()> {
        let (turn, name) = (Arc::clone(&self.turn), volume.to_owned());
        let job = Job {
            server: handle.server,
            share: handle.share,
            options: handle.options,
            point: self.point.clone(),
            work,
        };
        blocking(operation, volume, move || {
            let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
            helper::start(operation, &name, &job)
        })
        .await
    }
}

/// What deleting a volume takes, in one text: it outlives the class.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Handle {
    then: OnDelete,
    options: String,
    volume: String,
    server: String,
    share: String,
    directory: String,
}

impl Handle {
    fn text(&self) -> Result<String> {
        let then = match self.then {
            OnDelete::Delete => "delete",
            OnDelete::Retain => "retain",
            OnDelete::Archive => "archive",
        };
        let parts = [then, &self.options, &self.volume, &self.server, &self.share];
        if let Some(part) = parts.iter().find(|it| it.contains('#')) {
            return Err(VolumeError::Invalid(format!("{part:?} contains a '#'")));
        }
        Ok(format!("{}#{}", parts.join("#"), self.directory))
    }

    fn parse(text: &str) -> Result<Handle> {
        let unfit = || VolumeError::Invalid(format!("{text:?} is no volume of {NAME}"));
        let parts: Vec<&str> = text.splitn(6, '#').collect();
        let [then, options, volume, server, share, directory] = parts[..] else {
            return Err(unfit());
        };
        if volume.is_empty() || volume.contains('/') || directory.is_empty() {
            return Err(unfit());
        }
        Ok(Handle {
            then: on_delete(then).ok_or_else(unfit)?,
            options: options.to_owned(),
            volume: volume.to_owned(),
            server: server.to_owned(),
            share: share.to_owned(),
            directory: directory.to_owned(),
        })
    }
}

fn on_delete(text: &str) -> Option<OnDelete> {
    match text {
        "delete" => Some(OnDelete::Delete),
        "retain" => Some(OnDelete::Retain),
        "archive" => Some(OnDelete::Archive),
        _ => None,
    }
}

fn wanted(request: &CreateVolume) -> Result<(Handle, Wanted)> {
    let field = |name: &str| request.parameters.get(name).map_or("", String::as_str);
    let number = |name: &str, radix: u32| match field(name) {
        "" => Ok(None),
        text => match u32::from_str_radix(text, radix) {
            Ok(number) => Ok(Some(number)),
            Err(error) => Err(VolumeError::Invalid(format!("parameter {name} {text:?}: {error}"))),
        },
    };
    let then = on_delete(field("onDelete"));
    let handle = Handle {
        then: then.ok_or_else(|| VolumeError::Invalid("parameter onDelete".to_owned()))?,
        options: field("mountOptions").to_owned(),
        volume: request.name.clone(),
        server: field("server").to_owned(),
        share: field("share").to_owned(),
        directory: field("directory").to_owned(),
    };
    let wanted = Wanted {
        directory: handle.directory.clone(),
        volume: request.name.clone(),
        claim: request.claim.clone().unwrap_or_default(),
        uid: number("uid", 10)?,
        gid: number("gid", 10)?,
        mode: number("mode", 8)?.unwrap_or(MODE),
    };
    Ok((handle, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_says_all_that_deleting_takes() {
        let handle = Handle {
            then: OnDelete::Archive,
            options: "hard,nfsvers=4.1".to_owned(),
            volume: "pvc-u".to_owned(),
            server: "fd00::1".to_owned(),
            share: "/nfs".to_owned(),
            directory: "team/a#b".to_owned(),
        };
        let text = handle.text().unwrap();
        assert_eq!(text, "archive#hard,nfsvers=4.1#pvc-u#fd00::1#/nfs#team/a#b");
        assert_eq!(Handle::parse(&text).unwrap(), handle);
        assert!(Handle { share: "/n#fs".to_owned(), ..handle }.text().is_err());
        for text in ["", "delete#a", "shred##v#s#/n#d", "delete##v/w#s#/n#d", "delete##v#s#/n#"] {
            assert!(Handle::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parameters_become_an_owner_and_a_mode() {
        let parameters = [("onDelete", "delete"), ("uid", "99"), ("mode", "0750")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut request = CreateVolume { parameters: parameters.into(), ..CreateVolume::default() };
        let (_, made) = wanted(&request).unwrap();
        assert_eq!((made.uid, made.gid, made.mode), (Some(99), None, 0o750));
        request.parameters.insert("gid".to_owned(), "x".to_owned());
        assert!(wanted(&request).is_err());
    }
}
