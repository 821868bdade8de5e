//! The promises on the embedded store, in a real directory.

use std::sync::Arc;
use stdx::SystemClock;
use store::{backend, conformance};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_keeps_every_promise() {
    let directories = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    conformance::run(|| {
        count.set(count.get() + 1);
        let dir = directories.path().join(count.get().to_string());
        backend::open("embedded", &dir, Arc::new(SystemClock)).unwrap()
    })
    .await;
}
