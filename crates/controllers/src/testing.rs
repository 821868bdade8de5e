//! Worlds from YAML, for golden tests.

use bytes::Bytes;
use world::World;

/// A world of these documents, each defaulted as the door would.
pub(crate) fn world(yaml: &str) -> World {
    let mut world = World::default();
    load(&mut world, yaml);
    world
}

/// Adds documents to a world.
pub(crate) fn load(world: &mut World, yaml: &str) {
    for document in yaml.split("---\n").filter(|it| !it.trim().is_empty()) {
        let value: serde_json::Value = serde_saphyr::from_str(document).expect("YAML");
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let fits = |it: &&api::KindRef| it.kind == kind && it.api_version() == version;
        let kind = api::kinds().iter().find(fits).expect("a kind that we know");
        let json = serde_json::to_vec(&value).expect("plain data");
        let (mut object, unknown) = kind.rules.decode(&json).expect("an object of its kind");
        assert!(unknown.is_empty(), "unknown fields in a test: {unknown:?}");
        kind.rules.default(&mut object);
        let revision = world.revision + 1;
        world.put(kind, Bytes::from(object.encode()), revision).expect("decodes");
    }
}
