//! How sets come up, pod by pod: redrawn in place on a terminal, a line for each change in a pipe.

use anyhow::Result;
use api::{
    Object,
    apps::{
        stateful_set::{first_ordinal, pod_name, replicas},
        v1::StatefulSet,
    },
    core::{
        persistent_volume_claim as claims,
        pod::{self, is_ready},
        v1::{PersistentVolumeClaim, Pod},
    },
};
use client::Client;
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    time::Instant,
};
use world::{ObjectKey, World};

/// What is said of one pod.
#[derive(Clone, PartialEq)]
struct Line {
    name: String,
    state: String,
    volumes: String,
    is_ready: bool,
}

/// Shows every pod of these sets until all are ready.
pub(crate) async fn show(client: &dyn Client, sets: &[ObjectKey], begun: Instant) -> Result<()> {
    let mut follower = client.follow();
    let mut screen = Screen { begun, shown: Vec::new(), ready_at: BTreeMap::new() };
    let done = follower.until(|world| {
        let lines: Vec<Line> = sets.iter().flat_map(|it| lines(world, it)).collect();
        screen.draw(&lines);
        lines.iter().all(|it| it.is_ready).then_some(lines.len())
    });
    if let Some(count) = done.await
        && count > 0
    {
        println!("{count}/{count} ready in {}", seconds(begun));
    }
    Ok(())
}

fn lines(world: &World, key: &ObjectKey) -> Vec<Line> {
    let Some(set) = world.get::<StatefulSet>(key) else { return Vec::new() };
    let first = first_ordinal(&set);
    let line = |ordinal: i32| {
        let name = pod_name(&set, ordinal);
        let pod = world.get::<Pod>(&ObjectKey::new(&key.namespace, &name));
        let (state, is_ready) = match &pod {
            None => ("waits for its turn".to_owned(), false),
            Some(pod) if is_ready(pod) && !pod.is_deleting() => ("Ready".to_owned(), true),
            Some(pod) => (state(pod), false),
        };
        let volumes = pod.map(|it| volumes(world, &it)).unwrap_or_default();
        Line { name, state, volumes, is_ready }
    };
    (first..first + replicas(&set)).map(line).collect()
}

/// What holds a pod up, in a few words.
fn state(it: &Pod) -> String {
    let waiting = it.status.iter().flat_map(|it| it.container_statuses.iter().flatten());
    let mut reasons = waiting.filter_map(|it| it.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let unscheduled = pod::condition(it, "PodScheduled").filter(|it| it.status == "False");
    match (unscheduled, reasons.next()) {
        (Some(condition), _) => condition.message.clone().unwrap_or_default(),
        (None, Some(reason)) => reason,
        (None, None) => pod::phase(it).to_owned(),
    }
}

/// `www-web-0 → pvc-5c1…  1Gi`
fn volumes(world: &World, it: &Pod) -> String {
    let one = |(_, name): (&str, String)| {
        let claim = world.get::<PersistentVolumeClaim>(&ObjectKey::new(it.namespace(), &name));
        let bound = claim.filter(|it| claims::phase(it) == "Bound");
        let Some(claim) = bound else { return format!("{name} → …") };
        let volume: String = claims::volume_name(&claim).chars().take(12).collect();
        let capacity = || claim.status.as_ref()?.capacity.as_ref()?.get("storage");
        format!("{name} → {volume}…  {}", capacity().map_or("", |it| &it.0))
    };
    pod::claims(it).into_iter().map(one).collect::<Vec<_>>().join(", ")
}

fn seconds(begun: Instant) -> String {
    format!("{:.1} s", begun.elapsed().as_secs_f64())
}

struct Screen {
    begun: Instant,
    shown: Vec<Line>,
    ready_at: BTreeMap<String, String>,
}

impl Screen {
    fn draw(&mut self, lines: &[Line]) {
        if lines == self.shown {
            return;
        }
        for line in lines.iter().filter(|it| it.is_ready) {
            self.ready_at.entry(line.name.clone()).or_insert_with(|| seconds(self.begun));
        }
        let mut out = std::io::stdout().lock();
        let text = |line: &Line| {
            let at = self.ready_at.get(&line.name).filter(|_| line.is_ready);
            let at = at.map(String::as_str).unwrap_or_default();
            let text = format!(" {:<8} {:<20} {}   {at}", line.name, line.state, line.volumes);
            text.trim_end().to_owned()
        };
        let mut page = String::new();
        if out.is_terminal() {
            if !self.shown.is_empty() {
                page.push_str(&format!("\x1b[{}A", self.shown.len()));
            }
            lines.iter().for_each(|it| page.push_str(&format!("\x1b[2K{}\n", text(it))));
        } else {
            let news = lines.iter().filter(|it| it.is_ready && !self.shown.contains(it));
            news.for_each(|it| page.push_str(&format!("{}\n", text(it))));
        }
        // A reader that is gone is no reason to stop the cluster.
        let _unread = out.write_all(page.as_bytes()).and_then(|()| out.flush());
        self.shown = lines.to_vec();
    }
}
