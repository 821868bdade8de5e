//! What the binder and the scheduler both ask: which volumes are free for a claim, and the commit
//! that binds one.

use crate::{Change, Typed, World};
use api::core::{
    binding::bound_pair,
    persistent_volume as volumes, persistent_volume_claim as claims,
    v1::{PersistentVolume, PersistentVolumeClaim},
};

impl World {
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
            let rows = table.map(|it| it.indexed_from("unbound", &from).collect::<Vec<_>>());
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
