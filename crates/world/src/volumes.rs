//! What the binder and the scheduler both ask: which volumes are free for a claim, and the commit
//! that binds one.

use crate::{Change, Typed, World};
use api::{
    Object,
    core::{
        binding::bound_pair,
        persistent_volume as volumes, persistent_volume_claim as claims,
        v1::{PersistentVolume, PersistentVolumeClaim},
    },
};

/// How many volumes a message names.
const NAMED_MAX: usize = 5;

impl World {
    /// Why no free volume of the claim's class satisfies it, volume by volume; empty without any.
    pub fn why_none_fits(&self, claim: &PersistentVolumeClaim) -> String {
        let prefix = format!("{}/", claims::class(claim).unwrap_or_default());
        let rows = self.table::<PersistentVolume>();
        let rows = rows.into_iter().flat_map(|it| it.indexed_from("unbound", &prefix));
        let rows = rows.take_while(|(key, _)| key.starts_with(&prefix));
        let mut words: Vec<String> = Vec::new();
        let mut more = 0;
        for (_, row) in rows {
            if words.len() == NAMED_MAX {
                more += 1;
                continue;
            }
            let Some(volume) = row.typed::<PersistentVolume>() else { continue };
            let name = volume.name();
            let size = volume.spec.as_ref().and_then(|it| it.capacity.as_ref()?.get("storage"));
            let size = size.map_or("", |it| it.0.as_str());
            match volumes::satisfies(&volume, claim) {
                Err(volumes::Mismatch::Size) => {
                    words.push(format!("{name}: requested PV is too small ({size})"));
                }
                Err(why) => words.push(format!("{name}: {why}")),
                Ok(()) => {
                    words.push(format!("{name}: its phase is {}", volumes::phase(&volume)));
                }
            }
        }
        if more > 0 {
            words.push(format!("{more} more"));
        }
        words.join(", ")
    }

    /// Free volumes that satisfy the claim, in the order in which they are to be taken.
    pub fn free_volumes<'a>(
        &'a self,
        claim: &'a PersistentVolumeClaim,
    ) -> impl Iterator<Item = Typed<PersistentVolume>> + 'a {
        let class = claims::class(claim).unwrap_or_default();
        let prefix = format!("{class}/");
        let bytes = claims::requested(claim).units();
        // Four access modes exist; what offers fewer than the claim asks for cannot satisfy it.
        let modes = claims::access_modes(claim).len()..=4;
        let table = self.table::<PersistentVolume>();
        let of_modes = move |modes: usize| {
            let (from, end) =
                (volumes::unbound_key(class, modes, bytes, 0), format!("{prefix}{modes:02}/"));
            // One step at a time: mostly the first volume is the one, of however many.
            let rows = table.map(|it| it.indexed_from("unbound", &from));
            rows.into_iter().flatten().take_while(move |(key, _)| key.starts_with(&end))
        };
        modes.flat_map(of_modes).filter_map(|(_, row)| row.typed::<PersistentVolume>()).filter(
            |it| {
                matches!(volumes::phase(it), "" | volumes::PENDING | volumes::AVAILABLE)
                    && volumes::satisfies(it, claim).is_ok()
            },
        )
    }
}

impl Change {
    /// Both sides of the binding, for one commit. Sides that are already right are left out.
    pub fn bind(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Vec<Change> {
        let (bound_volume, bound_claim) = bound_pair(volume, claim);
        let mut changes = Vec::new();
        if bound_volume != *volume {
            changes.push(Change::both(bound_volume));
        } else {
            changes.push(Change::check(volume));
        }
        if bound_claim != *claim {
            changes.push(Change::both(bound_claim));
        } else {
            changes.push(Change::check(claim));
        }
        if changes.iter().all(|it| !it.is_write()) {
            changes.clear();
        }
        changes
    }
}
