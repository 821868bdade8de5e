//! From `up --apply` of three pods in order, each with its claim, until the last one is Ready.

use crate::{Options, figures::median, instance::Place};
use anyhow::{Context, Result};

pub(crate) async fn measure(options: &Options) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..options.rounds {
        let place = Place::new(options, true)?;
        let mut instance = place.up(Some(&options.manifests)).await?;
        let all = loop {
            let line = instance.line().await?;
            // `3/3 ready in 0.9 s`
            if let Some((_, rest)) = line.split_once(" ready in ") {
                let seconds = rest.split(' ').next().and_then(|it| it.parse::<f64>().ok());
                break (seconds.context(line)?, instance.begun.elapsed().as_secs_f64());
            }
        };
        times.push(all);
        place.down(instance).await?;
    }
    let (said, process): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    println!(
        "  {}: all Ready {:.2} s after apply, {:.2} s after the process was started on a fresh directory (median of {})",
        options.manifests.display(),
        median(said),
        median(process),
        options.rounds
    );
    Ok(())
}
