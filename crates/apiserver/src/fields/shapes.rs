//! The shapes of kinds, made when a kind is first written and kept from then on.

use api::{AnyKind, GroupResource, schema::Shapes};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

#[derive(Default)]
pub(crate) struct ShapesOfKinds(Mutex<HashMap<GroupResource, Arc<Shapes>>>);

impl ShapesOfKinds {
    pub(crate) fn of(&self, kind: &AnyKind) -> Arc<Shapes> {
        let resource = kind.resource();
        if let Some(known) = self.0.lock().expect("no panic while held").get(&resource) {
            return known.clone();
        }
        // Outside the lock: it takes a while, and who makes it twice makes the same.
        let shapes = Arc::new(Shapes::of(kind));
        self.0.lock().expect("no panic while held").entry(resource).or_insert(shapes).clone()
    }
}
