//! What runs in a container: its command, its environment, and as whom.

use super::pod::hostname;
use crate::{
    capability::Capabilities,
    container::{Container, security},
    error::{Error, Result},
    sandbox::Sandbox,
};
use rpc::cri::{ContainerConfig, LinuxContainerSecurityContext, SupplementalGroupsPolicy};
use shim::protocol::{Process, User};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command and what the image says about it, as upstream combines them.
pub(crate) fn arguments(
    config: &ContainerConfig,
    image: &crate::image::ImageConfig,
) -> Result<Vec<String>> {
    let (entrypoint, default) = if config.command.is_empty() {
        (&image.entrypoint, &image.cmd)
    } else {
        // A command of one's own makes the image's arguments meaningless.
        (&config.command, &Vec::new())
    };
    let arguments = if config.args.is_empty() { default } else { &config.args };
    let all: Vec<String> = entrypoint.iter().chain(arguments).cloned().collect();
    if all.is_empty() {
        return Err(Error::Invalid("no command specified".into()));
    }
    Ok(all)
}

pub(crate) fn environment(
    config: &ContainerConfig,
    image: &[String],
    sandbox: &Sandbox,
) -> Vec<String> {
    let mut all = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", hostname(sandbox))];
    if config.tty {
        all.push("TERM=xterm".to_owned());
    }
    let own = config
        .envs
        .iter()
        .map(|env| format!("{}={}", env.key, String::from_utf8_lossy(&env.value)));
    for entry in image.iter().cloned().chain(own) {
        let name = entry.split('=').next().unwrap_or_default().to_owned() + "=";
        match all.iter_mut().find(|earlier| earlier.starts_with(&name)) {
            Some(earlier) => *earlier = entry,
            None => all.push(entry),
        }
    }
    all
}

pub(super) fn user(security: &LinuxContainerSecurityContext, image_user: &str) -> Result<User> {
    let number = |value: i64, what: &str| {
        u32::try_from(value).map_err(|_| Error::Invalid(format!("{what} {value} is out of range")))
    };
    let uid = security.run_as_user.map(|user| number(user.value, "user")).transpose()?;
    let gid = security.run_as_group.map(|group| number(group.value, "group")).transpose()?;
    let name =
        if security.run_as_username.is_empty() { image_user } else { &security.run_as_username };
    // A node passes on the number that an image names; the group that stands beside it is meant as well.
    let is_of_image = image_user.split(':').next().and_then(|user| user.parse().ok()) == uid;
    Ok(User {
        uid: uid.filter(|_| !is_of_image || gid.is_some()),
        gid,
        name: name.to_owned(),
        groups: groups(security)?,
        only_these_groups: security.supplemental_groups_policy()
            == SupplementalGroupsPolicy::Strict,
    })
}

fn groups(security: &LinuxContainerSecurityContext) -> Result<Vec<u32>> {
    let number = |gid: &i64| {
        u32::try_from(*gid).map_err(|_| Error::Invalid(format!("group {gid} is out of range")))
    };
    security.supplemental_groups.iter().map(number).collect()
}

/// A process of the container: its first one, or with other arguments and terminal a later one.
pub(crate) fn process(
    container: &Container,
    arguments: Vec<String>,
    terminal: bool,
    seccomp: Vec<Vec<u8>>,
) -> Result<Process> {
    let security = security(&container.config);
    let change = security.capabilities.clone().unwrap_or_default();
    let mut environment = container.record.environment.clone();
    if terminal && !environment.iter().any(|entry| entry.starts_with("TERM=")) {
        environment.push("TERM=xterm".to_owned());
    }
    Ok(Process {
        arguments,
        environment,
        directory: container.record.directory.clone(),
        user: user(&security, &container.record.user)?,
        capabilities: container.capabilities.0,
        ambient_capabilities: Capabilities::of(&change.add_ambient_capabilities)?.0,
        no_new_privileges: security.no_new_privs,
        seccomp,
        terminal,
    })
}
