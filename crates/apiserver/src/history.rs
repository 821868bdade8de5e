//! What happened lately, kind by kind, so that a watch can begin in the past and a slow watcher
//! costs nothing but its position.
//!
//! Upstream: `apiserver/pkg/storage/cacher/watch_cache.go`.

use crate::protobuf;
use api::{GroupResource, KindRef};
use bytes::{BufMut, Bytes, BytesMut};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use stdx::Timestamp;
use tokio::sync::watch;
use world::{Row, Touched};

/// As long as the ledger keeps its own history: a watch may resume that late.
const AGE: Duration = Duration::from_secs(300);

/// Never less, whatever the size: a client that lists slowly comes back within this time.
const AGE_MIN: Duration = Duration::from_secs(75);

/// Beyond this, history goes as early as [`AGE_MIN`] allows.
const BYTES_MAX: usize = 64 << 20;

/// Beyond this, history goes whatever its age: memory is not the client's to fill.
const BYTES_LIMIT: usize = 4 * BYTES_MAX;

/// One change of one object.
pub(crate) struct Moment {
    pub(crate) revision: u64,
    pub(crate) old: Option<Arc<Row>>,
    pub(crate) new: Option<Arc<Row>>,
    lines: [OnceLock<Bytes>; 3],
    /// The same in protobuf; empty if it cannot be said in it.
    packed: [OnceLock<Bytes>; 3],
}

/// How a change looks to one watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Added,
    Modified,
    Deleted,
}

impl Seen {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Seen::Added => "ADDED",
            Seen::Modified => "MODIFIED",
            Seen::Deleted => "DELETED",
        }
    }
}

impl Moment {
    fn new(revision: u64, touched: &Touched) -> Moment {
        Moment {
            revision,
            old: touched.old.clone(),
            new: touched.new.clone(),
            lines: Default::default(),
            packed: Default::default(),
        }
    }

    /// What this change is to a watcher that selects by `wanted`; `None` if nothing.
    pub(crate) fn seen(&self, wanted: impl Fn(&Row) -> bool) -> Option<Seen> {
        let old = self.old.as_deref().is_some_and(&wanted);
        let new = self.new.as_deref().is_some_and(&wanted);
        match (old, new) {
            (false, true) => Some(Seen::Added),
            (true, true) => Some(Seen::Modified),
            (true, false) => Some(Seen::Deleted),
            (false, false) => None,
        }
    }

    /// The object of the event. A deleted one carries the revision of its deletion.
    pub(crate) fn object(&self, seen: Seen) -> Bytes {
        match (seen, &self.old, &self.new) {
            (Seen::Deleted, Some(old), None) => old.json_at(self.revision),
            // It goes on existing, but not for this watcher: upstream sends what it was.
            (Seen::Deleted, Some(old), Some(_)) => old.json_at(self.revision),
            (_, _, Some(new)) => new.json(),
            (_, Some(old), None) => old.json_at(self.revision),
            (_, None, None) => Bytes::from_static(b"{}"),
        }
    }

    /// The row that the event shows.
    pub(crate) fn row(&self, seen: Seen) -> Option<&Arc<Row>> {
        match seen {
            Seen::Deleted => self.old.as_ref(),
            Seen::Added | Seen::Modified => self.new.as_ref(),
        }
    }

    /// The whole line, encoded once for all watchers.
    pub(crate) fn line(&self, seen: Seen) -> Bytes {
        self.lines[seen as usize].get_or_init(|| frame(seen.name(), &self.object(seen))).clone()
    }

    /// The whole event in protobuf, encoded once for all watchers; empty if it cannot be said so.
    pub(crate) fn packed(&self, seen: Seen) -> Bytes {
        let pack = || protobuf::frame(seen.name(), &self.object(seen)).unwrap_or_default();
        self.packed[seen as usize].get_or_init(pack).clone()
    }

    fn bytes(&self) -> usize {
        let of = |row: &Option<Arc<Row>>| row.as_ref().map_or(0, |it| it.bytes.len());
        // The line that watchers share is about as long as the object.
        of(&self.old) + 2 * of(&self.new) + size_of::<Moment>()
    }
}

/// One event of a watch as it goes over the wire.
pub(crate) fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(kind.as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(object);
    line.put_slice(b"}\n");
    line.freeze()
}

/// The asked-for past is forgotten.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) oldest: u64,
}

pub(crate) struct History {
    rings: Mutex<Rings>,
}

struct Rings {
    of: HashMap<GroupResource, Ring>,
    /// All moments in order: which ring, how many bytes, when.
    order: VecDeque<(GroupResource, usize, Timestamp)>,
    bytes: usize,
    /// Every change after this revision is still there.
    floor: u64,
}

struct Ring {
    moments: VecDeque<Arc<Moment>>,
    latest: watch::Sender<u64>,
}

impl Rings {
    fn ring(&mut self, resource: &GroupResource) -> &mut Ring {
        self.of
            .entry(resource.clone())
            .or_insert_with(|| Ring { moments: VecDeque::new(), latest: watch::Sender::new(0) })
    }

    fn trim(&mut self, now: Timestamp) {
        while let Some((_, bytes, at)) = self.order.front() {
            let age = now.since(*at);
            let allowed = if self.bytes > BYTES_MAX { AGE_MIN } else { AGE };
            if age <= allowed && self.bytes <= BYTES_LIMIT {
                break;
            }
            self.bytes -= bytes;
            let (resource, ..) = self.order.pop_front().expect("it was there");
            if let Some(moment) = self.ring(&resource).moments.pop_front() {
                self.floor = self.floor.max(moment.revision);
            }
        }
    }
}

impl History {
    pub(crate) fn new(floor: u64) -> History {
        let rings = Rings { of: HashMap::new(), order: VecDeque::new(), bytes: 0, floor };
        History { rings: Mutex::new(rings) }
    }

    pub(crate) fn append(&self, changes: &[(u64, Touched)], now: Timestamp) {
        let mut rings = self.rings.lock().expect("no panic while held");
        for (revision, touched) in changes {
            let resource = touched.kind.resource();
            let moment = Arc::new(Moment::new(*revision, touched));
            let bytes = moment.bytes();
            rings.ring(&resource).moments.push_back(moment);
            rings.order.push_back((resource, bytes, now));
            rings.bytes += bytes;
        }
        rings.trim(now);
    }

    /// Wakes the watchers of what changed, once readers can see it.
    pub(crate) fn announce(&self, changes: &[(u64, Touched)]) {
        let mut rings = self.rings.lock().expect("no panic while held");
        for (revision, touched) in changes {
            rings.ring(&touched.kind.resource()).latest.send_replace(*revision);
        }
    }

    /// Changes of one kind after a revision, in order, at most `limit`.
    pub(crate) fn after(
        &self,
        kind: &KindRef,
        revision: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Moment>>, Forgotten> {
        let mut rings = self.rings.lock().expect("no panic while held");
        if revision < rings.floor {
            return Err(Forgotten { oldest: rings.floor });
        }
        let ring = rings.ring(&kind.resource());
        let from = ring.moments.partition_point(|it| it.revision <= revision);
        Ok(ring.moments.range(from..).take(limit).cloned().collect())
    }

    /// Resolves whenever a change of this kind was appended.
    pub(crate) fn follow(&self, kind: &KindRef) -> watch::Receiver<u64> {
        self.rings.lock().expect("no panic while held").ring(&kind.resource()).latest.subscribe()
    }

    /// Forgets everything up to a revision: what led there is not known.
    pub(crate) fn restart(&self, floor: u64) {
        let mut rings = self.rings.lock().expect("no panic while held");
        rings.order.clear();
        rings.bytes = 0;
        rings.floor = floor;
        for ring in rings.of.values_mut() {
            ring.moments.clear();
            ring.latest.send_replace(floor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::core::v1::ConfigMap;
    use serde_json::json;

    fn kind() -> &'static KindRef {
        api::kind_of::<ConfigMap>()
    }

    fn change(revision: u64, bytes: usize) -> (u64, Touched) {
        let json = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("m{revision}"), "namespace": "default"},
            "data": {"a": "x".repeat(bytes)},
        });
        let row = Row::new(kind(), Bytes::from(json.to_string()), revision).unwrap();
        let (key, new) = (row.key(), Some(Arc::new(row)));
        (revision, Touched { kind: kind().clone(), key, old: None, new })
    }

    fn revisions(history: &History, after: u64) -> Result<Vec<u64>, Forgotten> {
        let moments = history.after(kind(), after, usize::MAX)?;
        Ok(moments.iter().map(|it| it.revision).collect())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_000_000 + seconds)
    }

    #[test]
    fn five_minutes_are_kept_and_no_more() {
        let history = History::new(10);
        for (n, revision) in (11..=14).enumerate() {
            history.append(&[change(revision, 10)], at(n as i64 * 150));
        }
        assert_eq!(revisions(&history, 10), Err(Forgotten { oldest: 11 }));
        assert_eq!(revisions(&history, 11), Ok(vec![12, 13, 14]));
        assert_eq!(revisions(&history, 14), Ok(vec![]));
    }

    #[test]
    fn much_is_kept_for_75_seconds_only() {
        let history = History::new(0);
        for n in 0..100 {
            history.append(&[change(n + 1, 1 << 20)], at(n as i64));
        }
        // 200 MB within 100 s: the last 75 s are there all the same.
        assert_eq!(revisions(&history, 24).unwrap().len(), 76);
        assert_eq!(revisions(&history, 23), Err(Forgotten { oldest: 24 }));
    }

    #[test]
    fn one_kind_does_not_push_its_events_into_anothers() {
        let history = History::new(0);
        history.append(&[change(1, 10)], at(0));
        let pods = api::kind_of::<api::core::v1::Pod>();
        assert_eq!(history.after(pods, 0, 10).unwrap().len(), 0);
        history.restart(5);
        assert_eq!(revisions(&history, 4), Err(Forgotten { oldest: 5 }));
    }
}
