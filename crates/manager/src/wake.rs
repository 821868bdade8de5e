//! From what changed to the keys that somebody must look at.

use client::Tick;
use world::{ObjectKey, Touched, Watch, World};

/// The keys that a tick wakes.
pub(crate) fn keys(watches: &[Watch], tick: &Tick) -> Vec<ObjectKey> {
    match &tick.touched {
        Some(touched) => touched.iter().flat_map(|it| woken(watches, &tick.world, it)).collect(),
        None => everything(watches, &tick.world),
    }
}

/// The keys that a first look at a world wakes.
pub(crate) fn everything(watches: &[Watch], world: &World) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    for table in world.tables() {
        for row in table.rows(None) {
            let (kind, key) = (table.kind.clone(), row.key());
            let touched = Touched { kind, key, old: None, new: Some(row.clone()) };
            keys.extend(woken(watches, world, &touched));
        }
    }
    keys
}

fn woken(watches: &[Watch], world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    for watch in watches {
        match watch {
            Watch::Of(kind) if *kind == touched.kind => keys.push(touched.key.clone()),
            Watch::OwnedBy(kind, owner_kind) if *kind == touched.kind => {
                for row in [&touched.old, &touched.new].into_iter().flatten() {
                    let owner = row.meta.controller().filter(|it| it.kind == owner_kind.kind);
                    keys.extend(owner.map(|it| ObjectKey::new(&row.meta.namespace, &it.name)));
                }
            }
            Watch::Mapped(kind, map) if *kind == touched.kind => keys.extend(map(world, touched)),
            Watch::Any(map) => keys.extend(map(world, touched)),
            Watch::Of(_) | Watch::OwnedBy(..) | Watch::Mapped(..) => {}
        }
    }
    keys
}
