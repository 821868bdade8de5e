//! How long `up` takes: on a fresh directory, with every key to be made, and on one that it knows.

use crate::{Options, figures::median, instance::Place};
use anyhow::Result;

pub(crate) async fn measure(options: &Options) -> Result<()> {
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let place = Place::new(options, true)?;
        let instance = place.up(None).await?;
        first.push((instance.said_ms, instance.ready.as_secs_f64() * 1e3));
        place.stop(instance).await?;
        let instance = place.up(None).await?;
        later.push((instance.said_ms, instance.ready.as_secs_f64() * 1e3));
        place.down(instance).await?;
    }
    for (name, times) in [("first run", first), ("later runs", later)] {
        let (said, answered): (Vec<_>, Vec<_>) = times.into_iter().unzip();
        println!(
            "  {name}: ready line says {:.0} ms; /readyz answered over a new TLS connection after {:.0} ms",
            median(said),
            median(answered)
        );
    }
    println!("  (median of {}; the second is from before the process was started)", options.rounds);
    Ok(())
}
