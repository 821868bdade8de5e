//! What an idle server holds: proportional set size, so that shared pages count by their share.

use crate::{Options, figures, instance::Place};
use anyhow::Result;
use std::time::Duration;

/// Long enough for what a start touches once to be given back.
const SETTLE: Duration = Duration::from_secs(30);

pub(crate) async fn measure(options: &Options) -> Result<()> {
    let place = Place::new(options, true)?;
    let instance = place.up(None).await?;
    stdx::sleep(SETTLE).await;
    let (all, anonymous) = figures::memory_mb(instance.pid())?;
    println!("  {all:.1} MB, of which {anonymous:.1} MB are no file's (PSS, smaps_rollup)");
    place.down(instance).await
}
