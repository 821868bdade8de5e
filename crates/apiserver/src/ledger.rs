//! Reading the ledger: one watch over everything, from which the world, the history of events and
//! the feed of this process grow, revision by revision.

use crate::{
    admission::{resource_quota, service_address},
    commit::{Draft, Effect},
    encryption::Encryption,
    error::Error,
    history::History,
    stored,
    view::View,
};
use api::{AnyObject, KindRef};
use bytes::Bytes;
use client::Feed;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use stdx::{Backoff, Clock};
use store::{Key, KeyRange, ReadError, Record, Recorded, Revision, Store};
use tokio::sync::watch;
use world::{ObjectKey, Row, Touched};

/// Everything of the API lies below this.
const REGISTRY: &str = "/registry/";

/// How long a request waits for a revision that this process has not seen yet, as upstream's do.
const SOON: Duration = Duration::from_secs(3);

/// How many ticks a follower may lag before it has to look at everything again.
const BACKLOG: usize = 1024;

/// Kinds by where they lie in the store.
pub(crate) struct Places {
    kinds: HashMap<String, KindRef>,
    encryption: Encryption,
    /// What could not be read and why, once something could not.
    unread: Mutex<Option<String>>,
}

impl Places {
    pub(crate) fn new(kinds: &[KindRef], encryption: Encryption) -> Places {
        let kinds = kinds
            .iter()
            .filter(|it| !it.is_face())
            .map(|it| (it.storage.clone(), it.clone()))
            .collect();
        Places { kinds, encryption, unread: Mutex::default() }
    }

    /// The kind and the object that a key names; `None` for what is no object of a known kind.
    fn of(&self, key: &Key) -> Option<(&KindRef, ObjectKey)> {
        let text = key.as_str();
        let below = text.strip_prefix(REGISTRY)?;
        // One segment (`pods`), or two (`services/specs`, `<group>/<custom plural>`).
        let mut ends = below.match_indices('/').map(|(at, _)| REGISTRY.len() + at);
        let found =
            ends.by_ref().take(2).find_map(|end| Some((self.kinds.get(&text[..end])?, end)));
        let (kind, end) = found?;
        let key = match (kind.is_namespaced(), &text[end + 1..]) {
            (true, rest) => {
                let (namespace, name) = rest.split_once('/')?;
                ObjectKey::new(namespace, name)
            }
            (false, name) => ObjectKey::cluster(name),
        };
        Some((kind, key))
    }

    /// A row of bytes that this process did not just write.
    fn row(&self, kind: &KindRef, key: &Key, value: &Bytes, revision: u64) -> Result<Row, String> {
        let plain = self.encryption.open(kind, key.as_str(), value)?;
        let of = |why| format!("{key}: {why}");
        let json = stored::json(kind, plain).map_err(of)?;
        Row::new(kind, json, revision).map_err(|error| of(error.to_string()))
    }
}

/// Objects of commits under way, by the address of their bytes: what was encoded here need not be
/// decoded again when the ledger tells of it.
#[derive(Default)]
struct Handed(Mutex<HashMap<usize, AnyObject>>);

/// Takes back, when dropped, what nobody took.
pub(crate) struct HandedOver<'a> {
    handed: &'a Handed,
    addresses: Vec<usize>,
}

impl Drop for HandedOver<'_> {
    fn drop(&mut self) {
        if let Ok(mut handed) = self.handed.0.lock() {
            self.addresses.iter().for_each(|it| drop(handed.remove(it)));
        }
    }
}

impl Handed {
    fn take(&self, bytes: &Bytes) -> Option<AnyObject> {
        self.0.lock().ok()?.remove(&(bytes.as_ptr() as usize))
    }
}

pub(crate) struct Ledger {
    places: Places,
    handed: Handed,
    view: watch::Sender<Arc<View>>,
    ended: watch::Sender<bool>,
    pub(crate) history: History,
    pub(crate) feed: Feed,
    clock: Arc<dyn Clock>,
}

/// Says, however the following ends, that it has.
struct Ended<'a>(&'a Ledger);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}

impl Ledger {
    /// Builds the world from a snapshot, and the watch that goes on from there.
    pub(crate) async fn open(
        store: &dyn Store,
        kinds: &[KindRef],
        clock: Arc<dyn Clock>,
        encryption: Encryption,
    ) -> Result<(Ledger, Box<dyn store::Watch>), Error> {
        let places = Places::new(kinds, encryption);
        let view = load(store, &places).await.map_err(Error::Ledger)?;
        // A world without what it cannot read would be taken for one where that never was.
        if let Some(why) = places.unread.lock().expect("no panic while held").take() {
            return Err(Error::Unread(why));
        }
        // Of everything: a revision of something else is one that readers may wait for, too.
        let watch = store.watch(KeyRange::all(), Revision(view.revision));
        let watch = watch.map_err(Error::Ledger)?;
        let ledger = Ledger {
            places,
            handed: Handed::default(),
            history: History::new(view.revision),
            feed: client::feed(BACKLOG, view.world.clone()),
            view: watch::Sender::new(Arc::new(view)),
            ended: watch::Sender::new(false),
            clock,
        };
        Ok((ledger, watch))
    }

    /// Holds the objects of a commit ready for the moment in which the ledger tells of it. The bytes
    /// are held by the drafts meanwhile, so an address names no other bytes.
    pub(crate) fn hand_over(&self, drafts: &[Draft]) -> HandedOver<'_> {
        let mut handed = self.handed.0.lock().expect("no panic while held");
        let put = |draft: &Draft| match &draft.effect {
            Effect::Put(bytes, object) => {
                let address = bytes.as_ptr() as usize;
                handed.insert(address, object.clone());
                Some(address)
            }
            Effect::Remove | Effect::Keep { .. } => None,
        };
        let addresses = drafts.iter().filter_map(put).collect();
        HandedOver { handed: &self.handed, addresses }
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Waits until this process has seen a revision.
    pub(crate) async fn reached(&self, revision: u64) -> Arc<View> {
        if self.view.borrow().revision < revision {
            let (mut view, mut ended) = (self.view.subscribe(), self.ended.subscribe());
            tokio::select! {
                reached = view.wait_for(|it| it.revision >= revision) => {
                    if let Ok(view) = reached {
                        return view.clone();
                    }
                }
                // Nothing more will come: what there is has to do.
                _ = ended.wait_for(|it| *it) => {}
            }
        }
        self.view()
    }

    /// The same, for as long as somebody who waits for an answer may be kept waiting; `None` after that.
    pub(crate) async fn reached_soon(&self, revision: u64) -> Option<Arc<View>> {
        stdx::timeout(SOON, self.reached(revision)).await
    }

    /// Whether the ledger is not followed any more: the store is closed, or something broke.
    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Follows the ledger for as long as the store is open.
    pub(crate) async fn follow(&self, store: &dyn Store, mut watch: Box<dyn store::Watch>) {
        let _ended = Ended(self);
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(5));
        loop {
            match watch.next().await {
                Ok(records) => {
                    self.take(&records);
                    backoff.succeeded();
                    continue;
                }
                Err(ReadError::Store(store::StoreError::Closed)) => return,
                Err(error) => {
                    tracing::warn!("following the ledger: {}", stdx::one_line(&error));
                }
            }
            stdx::sleep(backoff.failed()).await;
            let after = Revision(self.view.borrow().revision);
            watch = match store.watch(KeyRange::all(), after) {
                Ok(watch) => watch,
                Err(ReadError::Compacted { .. } | ReadError::Future { .. }) => {
                    match self.reload(store).await {
                        Ok(watch) => watch,
                        Err(error) => {
                            tracing::error!("reloading the world: {}", stdx::one_line(&error));
                            continue;
                        }
                    }
                }
                Err(ReadError::Store(error)) => {
                    tracing::error!("watching the ledger: {}", stdx::one_line(&error));
                    return;
                }
            };
        }
    }

    /// Starts over from a snapshot: watchers have to list again, loops look at everything.
    async fn reload(&self, store: &dyn Store) -> Result<Box<dyn store::Watch>, ReadError> {
        let view = load(store, &self.places).await?;
        let watch = store.watch(KeyRange::all(), Revision(view.revision))?;
        self.history.restart(view.revision);
        // Everything that there is counts as new, so that everyone looks at it, and what was there and is not any more
        // as gone.
        let touched = |row: &Arc<Row>, old: Option<Arc<Row>>, new: Option<Arc<Row>>| Touched {
            kind: row.kind.clone(),
            key: row.key(),
            old,
            new,
        };
        let before = self.view();
        let there = view.world.tables().flat_map(|it| it.rows(None));
        let there = there.map(|it| touched(it, None, Some(it.clone())));
        let is_gone = |it: &&Arc<Row>| view.world.row(&it.kind.resource(), &it.key()).is_none();
        let gone = before.world.tables().flat_map(|it| it.rows(None)).filter(is_gone);
        let gone = gone.map(|it| touched(it, Some(it.clone()), None));
        let touched = there.chain(gone).collect();
        self.feed.publish(view.world.clone(), touched);
        self.view.send_replace(Arc::new(view));
        Ok(watch)
    }

    /// Takes whole revisions in: history first, then the world, then the wake-ups, so that whoever
    /// is woken sees all of it.
    fn take(&self, records: &[Record]) {
        let Some(last) = records.last() else { return };
        let mut view = View::clone(&self.view.borrow());
        let mut changes = Vec::with_capacity(records.len());
        for record in records {
            if let Some(touched) = absorb(&mut view, &self.places, record, &self.handed) {
                changes.push((record.revision.0, touched));
            }
        }
        view.revision = view.revision.max(last.revision.0);
        view.world.revision = view.revision;
        self.history.append(&changes, self.clock.now());
        let of_world = changes.iter().filter(|(_, it)| !crate::view::is_event(&it.kind));
        let touched: Arc<[Touched]> = of_world.map(|(_, it)| it.clone()).collect();
        if !touched.is_empty() {
            self.feed.publish(view.world.clone(), touched);
        }
        self.view.send_replace(Arc::new(view));
        self.history.announce(&changes);
    }
}

fn absorb(view: &mut View, places: &Places, record: &Record, handed: &Handed) -> Option<Touched> {
    if record.key.as_str().starts_with(service_address::PORTS) {
        match record.change {
            Recorded::Put { .. } => view.reserved.insert(record.key.clone()),
            Recorded::Delete => view.reserved.remove(&record.key),
        };
        return None;
    }
    let revision = record.revision.0;
    if record.key.as_str().starts_with(resource_quota::EPOCHS) {
        match record.change {
            Recorded::Put { .. } => view.epochs.insert(record.key.clone(), revision),
            Recorded::Delete => view.epochs.remove(&record.key),
        };
        return None;
    }
    let (kind, key) = places.of(&record.key)?;
    match &record.change {
        Recorded::Put { value, .. } => {
            let row = match handed.take(value) {
                Some(object) => Row::with_object(kind, value.clone(), revision, object)
                    .map_err(|error| format!("{}: {error}", record.key)),
                None => places.row(kind, &record.key, value, revision),
            };
            match row {
                Ok(row) => Some(view.put(Arc::new(row))),
                // Whoever writes over what was there before is refused, since it is not at that revision any more.
                Err(why) => {
                    tracing::error!("reading the ledger at {revision}: {why}");
                    places.unread.lock().expect("no panic while held").get_or_insert(why);
                    None
                }
            }
        }
        Recorded::Delete => {
            let touched = view.remove(kind, &key, revision);
            touched.old.is_some().then_some(touched)
        }
    }
}

/// Entries read at once: bounds what is held besides the world while it is built.
const PAGE: usize = 1000;

async fn load(store: &dyn Store, places: &Places) -> Result<View, ReadError> {
    let snapshot = store.snapshot().await?;
    let mut view = View::new();
    let mut after: Option<Key> = None;
    let nothing = Handed::default();
    loop {
        let page = snapshot.range(&KeyRange::prefix(REGISTRY), PAGE, after.as_ref())?;
        for entry in &page.entries {
            let change = Recorded::Put { value: entry.value.clone(), created: entry.created };
            let record = Record { revision: entry.modified, key: entry.key.clone(), change };
            absorb(&mut view, places, &record, &nothing);
        }
        match (page.more, page.entries.last()) {
            (true, Some(last)) => after = Some(last.key.clone()),
            _ => break,
        }
    }
    view.revision = snapshot.revision().0;
    view.world.revision = view.revision;
    Ok(view)
}
