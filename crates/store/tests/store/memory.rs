//! The backend in memory keeps what every backend promises.

use std::sync::Arc;
use stdx::SystemClock;
use store::{backend::Memory, conformance};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_every_promise() {
    conformance::run(|| Arc::new(Memory::new(Arc::new(SystemClock)))).await;
}
