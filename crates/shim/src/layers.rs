//! Images as directories: the layers of one on top of each other, with or without a place to write.
//!
//! For a pod with users of its own each layer is first shown as theirs. What is needed on the way lies on a small
//! filesystem of its own, which is gone with the container's old root.

use crate::{
    Result,
    sys::{self, c_string, failure},
    user_namespace::UserNamespace,
};
use shim::protocol::Start;
use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

pub(crate) struct Layers<'a> {
    users: Option<&'a UserNamespace>,
    /// Where directories to mount on are made, and how many there are.
    workshop: String,
    made: usize,
}

impl<'a> Layers<'a> {
    pub(crate) fn new(start: &Start, users: Option<&'a UserNamespace>) -> Result<Layers<'a>> {
        let workshop = Path::new(&start.directory).join("rootfs").to_string_lossy().into_owned();
        let target = c_string(&workshop)?;
        sys::mount(Some(c"layers"), &target, Some(c"tmpfs"), 0, Some(c"mode=755,size=1024k"))
            .map_err(|error| failure(format_args!("mount tmpfs on {workshop}"), &error))?;
        Ok(Layers { users, workshop, made: 0 })
    }

    /// The image of the container below what the container writes.
    pub(crate) fn root(&mut self, start: &Start) -> Result<OwnedFd> {
        let own = self.layer(&start.directory)?;
        let part = |name: &str| format!("/proc/self/fd/{}/{name}", own.as_raw_fd());
        let above = format!(",upperdir={},workdir={}", part("upper"), part("work"));
        self.overlay(&start.layers, &above)
    }

    /// An image that nobody can write to.
    pub(crate) fn image(&mut self, layers: &[String]) -> Result<OwnedFd> {
        match layers {
            // An overlay without a place to write has two layers at least.
            [only] => {
                let place = self.place()?;
                let tree = sys::clone_part(directory(only)?.as_fd())?;
                if let Some(users) = self.users {
                    users.map(tree.as_fd(), false)?;
                }
                self.attach(&tree, &place)
            }
            layers => self.overlay(layers, ""),
        }
    }

    /// Layers are named by descriptor, because the option string is limited to one page.
    fn overlay(&mut self, layers: &[String], above: &str) -> Result<OwnedFd> {
        let mut opened = Vec::new();
        for layer in layers.iter().rev() {
            opened.push(self.layer(layer)?);
        }
        let lower: Vec<String> =
            opened.iter().map(|it| format!("/proc/self/fd/{}", it.as_raw_fd())).collect();
        let place = self.place()?;
        let options = c_string(&format!("lowerdir={}{above}", lower.join(":")))?;
        let target = c_string(&place)?;
        sys::mount(Some(c"overlay"), &target, Some(c"overlay"), 0, Some(&options)).map_err(
            |error| failure(format_args!("mount the overlay of {} layers", lower.len()), &error),
        )?;
        directory(&place)
    }

    /// A directory of the host as the container's users see it.
    fn layer(&mut self, path: &str) -> Result<OwnedFd> {
        let plain = directory(path)?;
        let Some(users) = self.users else { return Ok(plain) };
        let tree = sys::clone_part(plain.as_fd())?;
        users.map(tree.as_fd(), false)?;
        let place = self.place()?;
        self.attach(&tree, &place)
    }

    /// Older kernels take only what is mounted somewhere as a layer.
    fn attach(&self, tree: &OwnedFd, place: &str) -> Result<OwnedFd> {
        let target = directory(place)?;
        sys::attach_mount(tree.as_fd(), target.as_fd())
            .map_err(|error| failure(format_args!("attach a layer on {place}"), &error))?;
        directory(place)
    }

    fn place(&mut self) -> Result<String> {
        let place = format!("{}/{}", self.workshop, self.made);
        self.made += 1;
        fs::create_dir(&place).map_err(|error| failure(format_args!("make {place}"), &error))?;
        Ok(place)
    }
}

fn directory(path: &str) -> Result<OwnedFd> {
    sys::open(path, libc::O_PATH | libc::O_DIRECTORY, 0)
}
