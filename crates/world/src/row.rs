//! One object as the world holds it: stored bytes, decoded metadata, and the typed object on demand.
//!
//! Typed objects cost many times their bytes, so a row only lends one: a bounded ring keeps the
//! latest ones alive, a row remembers where its own is as long as somebody holds it.

use api::{
    AnyObject, Erased, KindRef, Object,
    codec::{self, DecodeError, Managed},
    meta::Meta,
};
use bytes::{Bytes, BytesMut};
use std::{
    any::Any,
    borrow::Cow,
    collections::VecDeque,
    fmt,
    ops::Deref,
    sync::{Arc, LazyLock, Mutex, OnceLock, Weak},
};

pub struct Row {
    pub kind: KindRef,
    /// The revision of the commit that wrote it: its resourceVersion.
    pub revision: u64,
    pub meta: Meta,
    /// As stored: without resourceVersion.
    pub bytes: Bytes,
    splice_at: usize,
    managed: Option<Box<Managed>>,
    object: Mutex<Option<Weak<dyn Erased>>>,
    index_keys: OnceLock<Box<[IndexKey]>>,
}

/// Where a table files a row: (index, value).
pub(crate) type IndexKey = (&'static str, Arc<str>);

/// The index of owners: every owner's uid → what it owns. Controllers ask for their own only.
pub(crate) const OWNER: &str = "owner";

/// Typed objects kept alive besides those that somebody holds. Pods are the largest at 6–40 KB, so
/// this bounds the ring to some 20 MB at the very most, and to 2 MB with claims and volumes.
const RING: usize = 512;

static RECENT: LazyLock<Mutex<VecDeque<Arc<dyn Erased>>>> = LazyLock::new(Default::default);

impl Row {
    /// Reads the metadata of stored bytes.
    pub fn new(kind: &KindRef, bytes: Bytes, revision: u64) -> Result<Row, DecodeError> {
        let head = codec::head(&bytes)?;
        Ok(Row {
            kind: kind.clone(),
            revision,
            meta: head.meta,
            bytes,
            splice_at: head.splice_at,
            managed: head.managed.map(Box::new),
            object: Mutex::default(),
            index_keys: OnceLock::new(),
        })
    }

    /// A row whose object is at hand already, so that nobody needs to decode it again. `object` is
    /// what `bytes` say, without managedFields.
    pub fn with_object(
        kind: &KindRef,
        bytes: Bytes,
        revision: u64,
        mut object: AnyObject,
    ) -> Result<Row, DecodeError> {
        let row = Row::new(kind, bytes, revision)?;
        object.metadata_mut().resource_version = Some(revision.to_string());
        let object: Arc<dyn Erased> = Arc::from(object);
        *row.object.lock().expect("no panic while held") = Some(Arc::downgrade(&object));
        keep_alive(object);
        Ok(row)
    }

    /// The object as clients see it.
    pub fn json(&self) -> Bytes {
        codec::spliced(&self.bytes, self.splice_at, self.revision)
    }

    /// The object as clients see it, at another revision: that of its deletion.
    pub fn json_at(&self, revision: u64) -> Bytes {
        codec::spliced(&self.bytes, self.splice_at, revision)
    }

    /// Appends the object as clients see it.
    pub fn json_into(&self, out: &mut BytesMut) {
        codec::splice_into(out, &self.bytes, self.splice_at, self.revision);
    }

    /// The bytes without managedFields.
    pub fn plain(&self) -> Cow<'_, [u8]> {
        codec::plain(&self.bytes, self.managed.as_deref())
    }

    /// The object as clients see it, without managedFields.
    pub fn json_plain(&self) -> Bytes {
        // The list lies behind the beginning of the metadata, so that place stays where it is.
        codec::spliced(&self.plain(), self.splice_at, self.revision)
    }

    /// The list of managedFields as JSON, if the object has one.
    pub fn managed(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes[self.managed.as_ref()?.list.clone()]).ok()
    }

    /// The decoded object without managedFields, its resourceVersion filled in.
    pub fn object(&self) -> Result<Arc<dyn Erased>, DecodeError> {
        let mut slot = self.object.lock().expect("no panic while held");
        if let Some(object) = slot.as_ref().and_then(Weak::upgrade) {
            return Ok(object);
        }
        let (mut object, _) = self.kind.rules.decode(&self.plain())?;
        object.metadata_mut().resource_version = Some(self.revision.to_string());
        let object: Arc<dyn Erased> = Arc::from(object);
        *slot = Some(Arc::downgrade(&object));
        keep_alive(object.clone());
        Ok(object)
    }

    pub fn typed<T: Object>(&self) -> Option<Typed<T>> {
        let object = self.object().ok()?.into_any_arc().downcast::<T>().ok()?;
        Some(Typed(object))
    }

    /// A copy to change.
    pub fn copy(&self) -> Result<AnyObject, DecodeError> {
        Ok(self.object()?.clone_box())
    }

    /// Worked out once: a row is filed when it comes and unfiled when the next one replaces it, and
    /// its typed object has mostly been forgotten by then.
    pub(crate) fn index_keys(&self) -> &[IndexKey] {
        self.index_keys.get_or_init(|| {
            let owners = self.meta.owners.iter().map(|it| (OWNER, Arc::from(it.uid.as_str())));
            let object = self.object();
            let own = object.as_ref().map(|it| self.kind.rules.index_keys(&**it));
            let own = own.unwrap_or_default().into_iter();
            owners.chain(own.map(|(index, value)| (index, Arc::from(value)))).collect()
        })
    }

    pub fn key(&self) -> crate::ObjectKey {
        crate::ObjectKey::new(&self.meta.namespace, &self.meta.name)
    }
}

fn keep_alive(object: Arc<dyn Erased>) {
    let mut recent = RECENT.lock().expect("no panic while held");
    recent.push_back(object);
    let oldest = if recent.len() > RING { recent.pop_front() } else { None };
    drop(recent);
    // Outside the lock: freeing a large object takes a while.
    drop(oldest);
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} at {}", self.kind, self.key(), self.revision)
    }
}

/// A decoded object, shared with the world.
pub struct Typed<T>(Arc<T>);

impl<T> Deref for Typed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Typed<T> {
        Typed(self.0.clone())
    }
}

impl<T: Clone> Typed<T> {
    /// A copy to change.
    pub fn to_owned(&self) -> T {
        (*self.0).clone()
    }
}

impl<T: fmt::Debug> fmt::Debug for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Any> From<T> for Typed<T> {
    fn from(object: T) -> Typed<T> {
        Typed(Arc::new(object))
    }
}
