//! Promises of the container runtime, kept on a real kernel: root, overlayfs, control groups, a static busybox.

mod harness;
mod image_volumes;
mod isolation;
mod lifecycle;
mod process;
mod restart;
mod toolbox;
mod users;
