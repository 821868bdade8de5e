//! Images that nobody uses go when their disk fills: those first that were not used for the longest time.
//!
//! Upstream: `pkg/kubelet/images/image_gc_manager.go` (1.36). Deviation: the runtime calls imported images pinned, for
//! nobody could fetch them again.

use crate::{figures::Figures, kubelet::Shared, runtime::message};
use api::core::v1::{ContainerImage, Node, Pod};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use stdx::{BoxFuture, Timestamp};
use world::Event;

/// When images are collected, in hundredths of their disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Above it images go …
    pub high_percent: u64,
    /// … until no more than this is used.
    pub low_percent: u64,
    /// Younger ones stay: the pod that wants them may be on its way.
    pub age_min: Duration,
}

impl Default for ImageLimits {
    fn default() -> ImageLimits {
        ImageLimits { high_percent: 85, low_percent: 80, age_min: Duration::from_secs(120) }
    }
}

/// Upstream: `nodeStatusMaxImages`, and names of one image.
const TOLD_MAX: usize = 50;
const NAMES_MAX: usize = 5;

/// What was seen of images: losing it only makes them young again.
pub(super) struct Collector {
    limits: ImageLimits,
    seen: BTreeMap<String, Seen>,
    /// What is there at the first look was there before, nobody knows how long.
    looked: bool,
}

#[derive(Clone, Copy)]
struct Seen {
    first: Timestamp,
    used: Timestamp,
}

impl Collector {
    pub(super) fn new(limits: ImageLimits) -> Collector {
        Collector { limits, seen: BTreeMap::new(), looked: false }
    }

    /// Notes which images are there and which are used.
    pub(super) async fn look(&mut self, shared: &Shared) -> Vec<message::Image> {
        let now = shared.clock.now();
        let images = shared.runtime.images().await.unwrap_or_default();
        let pods = shared.client.world();
        let pods = pods.indexed::<Pod>("node", &shared.facts.node_name);
        let id_of = |name: String| -> BoxFuture<'_, Option<String>> {
            Box::pin(async move { shared.runtime.image(&name).await.ok()?.map(|it| it.id) })
        };
        let used = in_use(pods.map(|it| it.to_owned()).collect(), id_of).await;
        let first = if self.looked { now } else { Timestamp(0) };
        self.looked = true;
        self.seen.retain(|id, _| images.iter().any(|it| it.id == *id));
        if !images.is_empty() {
            shared.pull_records.keep_only(&images.iter().map(|it| it.id.clone()).collect());
        }
        for image in &images {
            let seen =
                self.seen.entry(image.id.clone()).or_insert(Seen { first, used: Timestamp(0) });
            if names(image).any(|it| used.contains(it)) {
                seen.used = now;
            }
        }
        images
    }

    /// Frees the disk if it is fuller than it may be; `all`: every image that nobody uses goes.
    pub(super) async fn collect(&mut self, shared: &Shared, figures: &Figures, all: bool) {
        let images = self.look(shared).await;
        let disk = figures.image_disk;
        if disk.bytes == 0 {
            return;
        }
        let used_percent = 100 - (disk.available.min(disk.bytes) * 100 / disk.bytes);
        if !all && used_percent < self.limits.high_percent {
            return;
        }
        let wanted = match all {
            true => u64::MAX,
            false => {
                (disk.bytes / 100 * (100 - self.limits.low_percent)).saturating_sub(disk.available)
            }
        };
        let order = self.order(images, shared.clock.now());
        let mut freed = 0;
        for image in order {
            if freed >= wanted {
                break;
            }
            match shared.runtime.remove_image(&image.id).await {
                Ok(()) => {
                    tracing::info!(image = image.id, bytes = image.size, "image removed");
                    freed += image.size;
                    self.seen.remove(&image.id);
                }
                // A container that has ended may still hold it.
                Err(error) => tracing::debug!(image = image.id, %error, "image kept"),
            }
        }
        if !all && freed < wanted {
            let text = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
            );
            tracing::warn!("{text}");
            if let Some(node) = shared.client.world().cluster::<Node>(&shared.facts.node_name) {
                shared.client.record(Event::warning(&*node, "FreeDiskSpaceFailed", text));
            }
        }
    }

    /// Those that may go, in the order in which they do.
    fn order(&self, images: Vec<message::Image>, now: Timestamp) -> Vec<message::Image> {
        let mut order: Vec<(Seen, message::Image)> = images
            .into_iter()
            .filter(|it| !it.pinned)
            .filter_map(|it| Some((*self.seen.get(&it.id)?, it)))
            .filter(|(seen, _)| seen.used < now && now.since(seen.first) >= self.limits.age_min)
            .collect();
        order.sort_by_key(|(seen, _)| (seen.used, seen.first));
        order.into_iter().map(|(_, image)| image).collect()
    }
}

fn names(image: &message::Image) -> impl Iterator<Item = &str> {
    [&image.id].into_iter().chain(&image.repo_tags).chain(&image.repo_digests).map(String::as_str)
}

/// What containers run and volumes are, by id or by name. A volume's name is short, as somebody wrote it: the runtime
/// knows what it leads to.
async fn in_use<'a>(
    pods: Vec<Pod>,
    id_of: impl Fn(String) -> BoxFuture<'a, Option<String>>,
) -> BTreeSet<String> {
    let (mut used, mut mounted) = (BTreeSet::new(), BTreeSet::new());
    for pod in pods {
        let volumes = pod.spec.iter().flat_map(|it| it.volumes.iter().flatten());
        mounted.extend(volumes.filter_map(|it| it.image.as_ref()?.reference.clone()));
        let Some(status) = &pod.status else { continue };
        let lists = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        for it in lists.into_iter().flatten().flatten() {
            used.extend([it.image_id.clone(), it.image.clone()]);
        }
    }
    for name in mounted {
        used.extend(id_of(name.clone()).await);
        used.insert(name);
    }
    used
}

/// The images as the node's status lists them: the largest first.
pub(crate) fn told(mut images: Vec<message::Image>) -> Vec<ContainerImage> {
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let told = images.into_iter().map(|it| {
        let names = it.repo_digests.into_iter().chain(it.repo_tags).take(NAMES_MAX);
        ContainerImage { names: Some(names.collect()), size_bytes: i64::try_from(it.size).ok() }
    });
    told.filter(|it| it.names.as_ref().is_some_and(|it| !it.is_empty())).take(TOLD_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, pinned: bool) -> message::Image {
        let tag = format!("r.lan/{id}:1");
        message::Image {
            id: id.to_owned(),
            repo_tags: vec![tag],
            size: 10,
            pinned,
            ..message::Image::default()
        }
    }

    #[test]
    fn the_longest_unused_goes_first_and_young_used_and_pinned_ones_stay() {
        let now = Timestamp::from_seconds(1000);
        let at = Timestamp::from_seconds;
        let seen = [
            ("old", 0, 10),
            ("older", 0, 5),
            ("never", 0, 0),
            ("used", 0, 1000),
            ("young", 950, 0),
            ("pinned", 0, 0),
        ];
        let mut collector = Collector::new(ImageLimits::default());
        for (id, first, used) in seen {
            collector.seen.insert(id.to_owned(), Seen { first: at(first), used: at(used) });
        }
        let images = seen.map(|(id, ..)| image(id, id == "pinned")).to_vec();
        let order: Vec<String> = collector.order(images, now).into_iter().map(|it| it.id).collect();
        assert_eq!(order, ["never", "older", "old"]);
    }

    #[test]
    fn the_node_tells_of_its_images_by_all_their_names() {
        let mut large = image("large", false);
        large.size = 20;
        large.repo_digests = vec!["r.lan/large@sha256:0".to_owned()];
        let nameless = message::Image { repo_tags: Vec::new(), ..image("nameless", false) };
        let told = told(vec![image("small", false), nameless, large]);
        let names: Vec<Vec<String>> = told.into_iter().filter_map(|it| it.names).collect();
        assert_eq!(names, [vec!["r.lan/large@sha256:0", "r.lan/large:1"], vec!["r.lan/small:1"]]);
    }

    #[test]
    fn an_image_that_a_volume_calls_by_a_short_name_is_in_use() {
        let value = serde_json::json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [], "volumes": [{"name": "v", "image": {"reference": "tools"}}]},
        });
        let id_of = |name: String| -> BoxFuture<'static, Option<String>> {
            Box::pin(async move { (name == "tools").then(|| "sha256:1".to_owned()) })
        };
        let pods = vec![api::codec::from_value(&value).unwrap()];
        let used = futures_util::FutureExt::now_or_never(in_use(pods, id_of)).unwrap();
        assert!(names(&image("sha256:1", false)).any(|it| used.contains(it)), "{used:?}");
    }
}
