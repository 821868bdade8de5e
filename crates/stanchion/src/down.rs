//! `stanchion down` and `reset`: nothing of an instance runs, is mounted or attached afterwards.

use crate::{
    config::{DataDir, Flags as UpFlags, Settings},
    hands::Node,
    node::{self, Memory, Offline},
    pki::Authority,
    up::Plane,
};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use client::Client;
use std::{
    io::{BufRead, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use stdx::Shutdown;
use store::backend::Hold;
use world::World;

#[derive(Args)]
#[group(skip)]
pub(crate) struct ResetFlags {
    #[command(flatten)]
    data: DataDir,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(data: &DataDir) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("start")?;
    let done = runtime.block_on(stop(data));
    runtime.shutdown_background();
    done
}

pub(crate) fn reset(flags: &ResetFlags) -> Result<()> {
    let data_dir = flags.data.existing()?;
    if !flags.yes && !confirmed(&data_dir)? {
        bail!("erase {}: not confirmed", data_dir.display());
    }
    let recalled = UpFlags::recall(&flags.data)?;
    let kubelet_dir = recalled.settle()?.kubelet_dir;
    run(&flags.data)?;
    for dir in [&kubelet_dir, &data_dir] {
        if let Some(mounted) = mounts_below(dir)?.first() {
            bail!("erase {}: {} is mounted", dir.display(), mounted.display());
        }
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("erase {}", dir.display()));
            }
            _ => {}
        }
    }
    println!("erased {}", data_dir.display());
    if recalled.store.is_shared() {
        println!("kept the objects in {}", recalled.store.store);
    }
    Ok(())
}

/// Opens ledger and node as `up` does (which fails while an `up` holds them), but without network and
/// server, and lets the node take down what it finds instead of running it.
async fn stop(data: &DataDir) -> Result<()> {
    let flags = UpFlags::recall(data)?;
    let settings = flags.settle()?;
    let (_shutdown, signal) = Shutdown::new();
    let kept = settings.data_dir.display();
    let memory = Memory::read(&settings.data_dir)?.unwrap_or_default();
    let way = match memory.server {
        // The server may be far away, or gone: what runs here ends all the same.
        Some(_) => {
            let told = |process| println!("asked process {process}, which is this node, to end");
            let lock = node::take_over(&settings.data_dir, told).await?;
            let known = node::pods_of(&settings.data_dir)?;
            Way { known, _lock: Some(lock), ..Way::default() }
        }
        None => {
            crate::restore::finish(&settings.data_dir)?;
            let way = Way::open(&flags, &settings).await?;
            if !had_node(&settings)? {
                println!("no pods ran here; the data is kept in {kept}");
                return Ok(());
            }
            way
        }
    };
    if let Some(why) = &way.blind {
        eprintln!("pods end without their preStop hooks, since nobody tells them: {why:#}");
    }
    let client = match &way.plane {
        Some(plane) => plane.clients(&settings.node_name).kubelet,
        None => Arc::new(Offline::new(way.known.clone())) as Arc<dyn Client>,
    };
    let node = Node::open(&flags.node, &settings, None, client, signal).await?;
    let volumes = mounts_below(&settings.kubelet_dir)?.len();
    let drained = node.kubelet.drain_all().await;
    let drained = drained.map_err(|failures| anyhow!("stop the pods: {}", failures.join("; ")))?;
    let mut pods = 0;
    for it in drained.iter().filter(|it| !it.had_ended) {
        pods += 1;
        match it.is_known {
            true => println!("stopped pod {}", it.pod),
            false => println!("stopped pod {}, of which nothing is known: no hook ran", it.pod),
        }
    }
    node.runtime.stop_all().await.context("stop the pods")?;
    let left = mounts_below(&settings.kubelet_dir)?;
    for point in &left {
        let name = point.display().to_string();
        volumes::mount::unmount(&name, point).await.with_context(|| format!("unmount {name}"))?;
    }
    let bridge = network::bridge_name(&settings.instance);
    network::remove_all(&settings.instance, &bridge).await.context("remove the interfaces")?;
    println!("stopped {pods} pods, unmounted {volumes} mounts; the data is kept in {kept}");
    Ok(())
}

/// To the objects, if somebody has them, and what keeps other processes away meanwhile.
#[derive(Default)]
struct Way {
    plane: Option<Plane>,
    /// What is known of pods without it.
    known: World,
    /// Why not, where they should be there.
    blind: Option<anyhow::Error>,
    _lock: Option<node::Lock>,
    _hold: Option<Hold>,
}

impl Way {
    async fn open(flags: &UpFlags, settings: &Settings) -> Result<Way> {
        let authority = Arc::new(Authority::open(&settings.data_dir)?);
        match Plane::open(flags, settings, &authority).await {
            Ok(plane) => Ok(Way { plane: Some(plane), ..Way::default() }),
            // An etcd may be away for good. Where it is a running server that stands in the way, it is named.
            Err(error) if flags.store.is_shared() => {
                let hold = Hold::take(&settings.data_dir.join("state"))?;
                Ok(Way { blind: Some(error), _hold: Some(hold), ..Way::default() })
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a node ever lived here: an API server alone has nothing to take down, and gets none for it.
fn had_node(settings: &Settings) -> Result<bool> {
    let runtime = settings.data_dir.join("runtime");
    let runtime =
        runtime.try_exists().with_context(|| format!("look for {}", runtime.display()))?;
    Ok(runtime || !mounts_below(&settings.kubelet_dir)?.is_empty())
}

/// The deepest first: a bind goes before what it shows.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mounts = volumes::mount::mounts_below(dir).context("read the mounts")?;
    let mut points: Vec<PathBuf> = mounts.into_iter().map(|it| it.point).collect();
    points.sort_by_key(|it| std::cmp::Reverse(it.components().count()));
    Ok(points)
}

fn confirmed(data_dir: &Path) -> Result<bool> {
    print!("Erase {} with all its volumes? Type yes: ", data_dir.display());
    std::io::stdout().flush().context("ask")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("read the answer")?;
    Ok(line.trim() == "yes")
}
