//! Volumes and claims of a class without a provisioner: how fast they are bound to each other.

use crate::{
    Options,
    client::{Access, Lines},
    figures::Times,
    instance::{Instance, Place},
};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const VOLUMES: &str = "/api/v1/persistentvolumes";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";

/// Claims that are not bound after this long never will be.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn measure(options: &Options) -> Result<()> {
    let place = Place::new(options, false)?;
    let instance = place.up(None).await?;
    at_once(options, &instance, "all", Order::Together).await?;
    at_once(options, &instance, "claims", Order::VolumesFirst).await?;
    offered(options, &instance, 60).await?;
    offered(options, &instance, 1000).await?;
    println!("  (bound: a watch from before the first create says status.phase Bound)");
    place.down(instance).await
}

#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// Half of the clients make volumes, half make claims.
    Together,
    /// The clock starts with the first claim, when every volume is there.
    VolumesFirst,
}

async fn at_once(
    options: &Options,
    instance: &Instance,
    class: &'static str,
    order: Order,
) -> Result<()> {
    let count = options.objects;
    let mut connection = instance.access.connect().await?;
    let bound = Bound::watch(&instance.access, class, count).await?;
    if order == Order::VolumesFirst {
        create(&instance.access, options.clients, VOLUMES, class, count).await?;
    }
    let before = instance.counters(&mut connection).await?;
    let begun = Instant::now();
    let created = match order {
        Order::VolumesFirst => {
            create(&instance.access, options.clients, CLAIMS, class, count).await?
        }
        Order::Together => {
            let half = options.clients.div_ceil(2);
            let volumes = create(&instance.access, half, VOLUMES, class, count);
            let claims = create(&instance.access, half, CLAIMS, class, count);
            let (volumes, claims) = tokio::join!(volumes, claims);
            volumes?;
            claims?
        }
    };
    let last = begun.elapsed();
    let bound = bound.await??;
    let took = bound.values().max().context("nothing was bound")?.duration_since(begun);
    let after = instance.counters(&mut connection).await?;
    let what = match order {
        Order::Together => "volumes and claims created together",
        Order::VolumesFirst => "claims created, volumes there before",
    };
    println!(
        "  {count} {what} by {} clients in {:.2} s, all bound after {:.2} s: {:.0} binds/s; create to bound {}; {}",
        options.clients,
        last.as_secs_f64(),
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64(),
        latency(&created, &bound),
        after.since(&before)
    );
    Ok(())
}

/// Claims at a given rate, whatever becomes of those before.
async fn offered(options: &Options, instance: &Instance, rate: u32) -> Result<()> {
    let class = if rate < 1000 { "slow" } else { "fast" };
    let count = (rate as usize * 3).min(options.objects.max(100));
    create(&instance.access, options.clients, VOLUMES, class, count).await?;
    let bound = Bound::watch(&instance.access, class, count).await?;
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..options.clients {
        let mut connection = instance.access.connect().await?;
        let step = options.clients;
        clients.spawn(async move {
            let mut asked = Vec::new();
            for n in (client..count).step_by(step) {
                let due = begun + Duration::from_secs(1) / rate * n as u32;
                stdx::sleep(due.saturating_duration_since(Instant::now())).await;
                // Late requests count from when they were due.
                asked.push((name(class, n), due));
                connection.create(CLAIMS, body(CLAIMS, class, n)).await?;
            }
            Ok::<_, anyhow::Error>(asked)
        });
    }
    let mut asked = HashMap::new();
    while let Some(done) = clients.join_next().await {
        asked.extend(done??);
    }
    let bound = bound.await??;
    println!("  {count} claims offered at {rate}/s: due to bound {}", latency(&asked, &bound));
    Ok(())
}

/// Creates objects with several clients; says when each was asked for.
async fn create(
    access: &Access,
    clients: usize,
    path: &'static str,
    class: &'static str,
    count: usize,
) -> Result<HashMap<String, Instant>> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(access.connect().await?);
    }
    let mut tasks = JoinSet::new();
    for (client, mut connection) in connections.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut asked = Vec::new();
            for n in (client..count).step_by(clients) {
                asked.push((name(class, n), Instant::now()));
                connection.create(path, body(path, class, n)).await?;
            }
            Ok::<_, anyhow::Error>(asked)
        });
    }
    let mut asked = HashMap::new();
    while let Some(done) = tasks.join_next().await {
        asked.extend(done??);
    }
    Ok(asked)
}

fn latency(asked: &HashMap<String, Instant>, bound: &HashMap<String, Instant>) -> Times {
    let times =
        asked.iter().filter_map(|(name, at)| Some(bound.get(name)?.saturating_duration_since(*at)));
    Times::new(times.collect())
}

struct Bound;

impl Bound {
    /// When each of `count` claims of a class became Bound.
    async fn watch(
        access: &Access,
        class: &'static str,
        count: usize,
    ) -> Result<tokio::task::JoinHandle<Result<HashMap<String, Instant>>>> {
        let path = format!("{CLAIMS}?watch=1&resourceVersion=0&labelSelector=class%3D{class}");
        let mut lines = Lines::watch(access, &path).await?;
        Ok(tokio::spawn(async move {
            let mut bound = HashMap::new();
            while bound.len() < count {
                let line = stdx::timeout(PATIENCE, lines.next()).await;
                let Some(line) = line else {
                    bail!("{} of {count} claims were bound, then none", bound.len());
                };
                let (line, now) = (line?, Instant::now());
                // Reading every event as JSON would cost more than making it.
                let is_bound = line.windows(15).any(|it| it == br#""phase":"Bound""#);
                if is_bound {
                    let event: Value = serde_json::from_slice(&line)?;
                    let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
                    bound.entry(name.to_owned()).or_insert(now);
                }
            }
            Ok(bound)
        }))
    }
}

fn name(class: &str, n: usize) -> String {
    format!("{class}-{n}")
}

fn body(path: &str, class: &str, n: usize) -> String {
    let meta = format!(r#""metadata":{{"name":"{class}-{n}","labels":{{"class":"{class}"}}}}"#);
    let common = format!(r#""storageClassName":"{class}","accessModes":["ReadWriteOnce"]"#);
    if path == VOLUMES {
        format!(
            r#"{{"apiVersion":"v1","kind":"PersistentVolume",{meta},"spec":{{{common},"capacity":{{"storage":"1Gi"}},"persistentVolumeReclaimPolicy":"Retain","hostPath":{{"path":"/nowhere/{class}-{n}"}}}}}}"#
        )
    } else {
        format!(
            r#"{{"apiVersion":"v1","kind":"PersistentVolumeClaim",{meta},"spec":{{{common},"resources":{{"requests":{{"storage":"1Gi"}}}}}}}}"#
        )
    }
}
