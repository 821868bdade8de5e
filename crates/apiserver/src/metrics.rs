//! A few counters in the text form that Prometheus reads, under upstream's names.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

/// Verbs, resources and codes are few; whatever comes beyond this is counted under one name.
const SERIES_MAX: usize = 4096;

#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    in_flight: AtomicI64,
}

/// One request under way.
pub(crate) struct UnderWay<'a>(&'a Metrics);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        UnderWay(self)
    }

    pub(crate) fn count(&self, verb: &str, resource: &str, code: u16) {
        let mut requests = self.requests.lock().expect("no panic while held");
        let key = (verb.to_owned(), resource.to_owned(), code);
        let key = match requests.len() >= SERIES_MAX && !requests.contains_key(&key) {
            true => ("other".to_owned(), String::new(), 0),
            false => key,
        };
        *requests.entry(key).or_default() += 1;
    }

    pub(crate) fn text(&self, store: &store::Figures) -> String {
        let mut text = String::from("# TYPE apiserver_request_total counter\n");
        for ((verb, resource, code), count) in
            self.requests.lock().expect("no panic while held").iter()
        {
            let _written = writeln!(
                text,
                "apiserver_request_total{{code=\"{code}\",resource=\"{resource}\",verb=\"{verb}\"}} {count}"
            );
        }
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let _written = write!(
            text,
            "# TYPE apiserver_current_inflight_requests gauge\n\
             apiserver_current_inflight_requests {in_flight}\n\
             # TYPE apiserver_storage_size_bytes gauge\n\
             apiserver_storage_size_bytes {}\n\
             # TYPE apiserver_storage_objects gauge\n\
             apiserver_storage_objects {}\n\
             # TYPE stanchion_store_commits_total counter\n\
             stanchion_store_commits_total {}\n\
             # TYPE stanchion_store_writes_total counter\n\
             stanchion_store_writes_total {}\n\
             # TYPE stanchion_store_syncs_total counter\n\
             stanchion_store_syncs_total {}\n",
            store.file_bytes, store.live_keys, store.commits, store.writes, store.syncs
        );
        text
    }
}
