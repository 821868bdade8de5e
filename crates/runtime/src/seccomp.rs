//! System call filters: which profile a container has, compiled once for each set of capabilities.
//!
//! A profile is data ([`profile::Profile`]); `default` is ours, `local` reads a file in the common JSON form.
//! Compiled here, installed by the shim right before execve.

mod default;
mod local;
mod number;
mod profile;

use crate::{
    capability::Capabilities,
    error::{Attempt, Error, Result},
};
use rpc::cri::{SecurityProfile, security_profile::ProfileType};
use std::{
    collections::HashMap,
    fs,
    sync::{Mutex, PoisonError},
};

/// Programs of `sock_filter`s, to be installed in this order.
pub(crate) type Programs = Vec<Vec<u8>>;

/// Compiled default profiles. There are as many as there are different sets of capabilities on the node: few.
#[derive(Debug, Default)]
pub(crate) struct Seccomp {
    compiled: Mutex<HashMap<Capabilities, Programs>>,
}

/// Beyond this many the cache starts anew.
const COMPILED_MAX: usize = 256;

impl Seccomp {
    /// No profile at all means unconfined, as upstream.
    pub(crate) fn programs(
        &self,
        wanted: Option<&SecurityProfile>,
        has: Capabilities,
    ) -> Result<Programs> {
        let Some(wanted) = wanted else { return Ok(Programs::new()) };
        match ProfileType::try_from(wanted.profile_type) {
            Ok(ProfileType::Unconfined) => Ok(Programs::new()),
            Ok(ProfileType::RuntimeDefault) => self.default_programs(has),
            Ok(ProfileType::Localhost) => {
                let path = &wanted.localhost_ref;
                let text = fs::read_to_string(path)
                    .attempt(|| format!("read the seccomp profile {path}"))?;
                let profile = local::parse(&text)
                    .map_err(|why| Error::Invalid(format!("seccomp profile {path}: {why}")))?;
                profile.compile(has)
            }
            Err(_) => {
                Err(Error::Invalid(format!("unknown seccomp profile type {}", wanted.profile_type)))
            }
        }
    }

    fn default_programs(&self, has: Capabilities) -> Result<Programs> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(programs) = compiled.get(&has) {
            return Ok(programs.clone());
        }
        let programs = default::profile().compile(has)?;
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.insert(has, programs.clone());
        Ok(programs)
    }
}
