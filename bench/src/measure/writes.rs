//! Creates, gets, patches and deletes of ConfigMaps by clients that each wait for their answer.

use crate::{
    Options,
    client::{Access, Connection, JSON, MERGE_PATCH},
    figures::Times,
    instance::{Instance, Place},
};
use anyhow::Result;
use bytes::Bytes;
use http::Method;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(crate) async fn measure(options: &Options) -> Result<()> {
    let place = Place::new(options, false)?;
    let instance = place.up(None).await?;
    let made = verb(options, &instance, "create", None).await?;
    verb(options, &instance, "get", Some(&made)).await?;
    verb(options, &instance, "patch", Some(&made)).await?;
    verb(options, &instance, "delete", Some(&made)).await?;
    println!(
        "  ({} HTTP/1.1 keep-alive TLS clients for {} s each; the clients share the cores)",
        options.clients, options.seconds
    );
    place.down(instance).await
}

/// One verb by all clients; says how many requests each of them made.
async fn verb(
    options: &Options,
    instance: &Instance,
    verb: &'static str,
    made: Option<&[usize]>,
) -> Result<Vec<usize>> {
    let mut connection = instance.access.connect().await?;
    let before = instance.counters(&mut connection).await?;
    let mut clients = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..options.clients {
        connections.push(instance.access.connect().await?);
    }
    let begun = Instant::now();
    let end = begun + Duration::from_secs(options.seconds);
    for (client, mut connection) in connections.into_iter().enumerate() {
        let objects = made.map(|it| it[client]);
        clients.spawn(async move {
            let mut times = Vec::new();
            let mut n = 0;
            while Instant::now() < end && (verb != "delete" || objects.is_none_or(|it| n < it)) {
                let asked = Instant::now();
                let object = objects.map_or(n, |it| n % it.max(1));
                request(&mut connection, verb, client, object, n).await?;
                times.push(asked.elapsed());
                n += 1;
            }
            Ok::<_, anyhow::Error>((client, times))
        });
    }
    let mut counts = vec![0; options.clients];
    let mut all = Vec::new();
    while let Some(done) = clients.join_next().await {
        let (client, times) = done??;
        counts[client] = times.len();
        all.extend(times);
    }
    let took = begun.elapsed();
    let after = instance.counters(&mut connection).await?;
    let rate = all.len() as f64 / took.as_secs_f64();
    println!("  {verb:6} {rate:6.0}/s, {}; {}", Times::new(all), after.since(&before));
    Ok(counts)
}

async fn request(
    connection: &mut Connection,
    verb: &str,
    client: usize,
    object: usize,
    n: usize,
) -> Result<Bytes> {
    let one = || format!("{CONFIG_MAPS}/bench-{client}-{object}");
    match verb {
        "create" => connection.create(CONFIG_MAPS, config_map(client, object)).await,
        "get" => connection.read(&one()).await,
        "patch" => {
            let patch = format!(r#"{{"data":{{"turn":"{n}"}}}}"#);
            connection.ask(Method::PATCH, &one(), MERGE_PATCH, patch).await
        }
        _ => connection.ask(Method::DELETE, &one(), JSON, Bytes::new()).await,
    }
}

fn config_map(client: usize, object: usize) -> String {
    let text = "x".repeat(200);
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"bench-{client}-{object}","labels":{{"app":"bench"}}}},"data":{{"text":"{text}"}}}}"#
    )
}

/// Makes `count` ConfigMaps with several clients at once.
pub(crate) async fn fill(access: &Access, clients: usize, count: usize) -> Result<()> {
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let mut connection = access.connect().await?;
        tasks.spawn(async move {
            for object in (client..count).step_by(clients) {
                connection.create(CONFIG_MAPS, config_map(client, object)).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
