//! How many small puts a second the embedded store makes durable.
//!
//! `cargo run --release -p store --example bench -- [DIR] [SECONDS]`: 16 writers, each waiting
//! for its answer before it puts the next; values of 400 bytes; half new keys, half updates.
//! Prints one line for each number of writers.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use stdx::SystemClock;
use store::{Batch, Expect, Key, KeyRange, Store, backend};

const VALUE_BYTES: usize = 400;
const KEYS: u64 = 20_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let seconds = arguments.next().map_or(3, |text| text.parse().expect("SECONDS is a number"));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime starts");
    for writers in [1u64, 4, 16, 64] {
        let dir = parent.join(format!("bench-{}-{writers}", std::process::id()));
        runtime.block_on(run(&dir, writers, Duration::from_secs(seconds)));
        std::fs::remove_dir_all(&dir).expect("the bench's own directory goes");
    }
}

async fn run(dir: &std::path::Path, writers: u64, duration: Duration) {
    let store = backend::open("embedded", &backend::EtcdTls::default(), dir, Arc::new(SystemClock))
        .expect("an empty ledger");
    let before = store.figures();
    let (start, slowest) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, slowest): (Arc<dyn Store>, _) = (Arc::clone(&store), Arc::clone(&slowest));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for number in 0u64.. {
                    if start.elapsed() > duration {
                        break;
                    }
                    let name = (number * writers + writer).wrapping_mul(2_654_435_761) % KEYS;
                    let key = format!("/registry/configmaps/default/object-{name:06}");
                    let put = Batch::new().put(key, Expect::Whatever, vec![b'x'; VALUE_BYTES]);
                    let asked = Instant::now();
                    store.commit(put).await.expect("a put");
                    let took = asked.elapsed();
                    latencies.push(took);
                    slowest.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a writer"));
    }
    let elapsed = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let percentile = |p: usize| latencies[(latencies.len() - 1) * p / 100];
    let figures = store.figures();
    let (writes, syncs) = (figures.writes - before.writes, figures.syncs - before.syncs);
    println!(
        "{writers:>3} writers: {:>7.0} writes/s  {syncs:>6} syncs  {:>5.1} writes/sync  p50 {:?}  \
         p99 {:?}  max {} µs  file {:.1} MB  live {:.1} MB",
        writes as f64 / elapsed,
        writes as f64 / syncs as f64,
        percentile(50),
        percentile(99),
        slowest.load(Ordering::Relaxed),
        figures.file_bytes as f64 / 1e6,
        figures.live_bytes as f64 / 1e6,
    );
    let listed = Instant::now();
    let snapshot = store.snapshot().await.expect("a snapshot");
    let all = snapshot.range(&KeyRange::all(), usize::MAX, None).expect("a list");
    let took = listed.elapsed();
    let get = Instant::now();
    let mut found = 0;
    for entry in &all.entries {
        found += u64::from(snapshot.get(&Key::from(entry.key.as_str())).expect("a get").is_some());
    }
    println!(
        "             list of {}: {took:?}; get: {:.1} µs",
        all.entries.len(),
        get.elapsed().as_micros() as f64 / found as f64
    );
}
