//! How long the answer to a list of 2,000 objects takes to arrive whole.

use crate::{Options, figures::Times, instance::Place, measure::writes};
use anyhow::Result;
use std::time::Instant;

const OBJECTS: usize = 2000;
const LISTS: usize = 50;

pub(crate) async fn measure(options: &Options) -> Result<()> {
    let place = Place::new(options, false)?;
    let instance = place.up(None).await?;
    writes::fill(&instance.access, options.clients, OBJECTS).await?;
    let mut connection = instance.access.connect().await?;
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..LISTS {
        let asked = Instant::now();
        let path = "/api/v1/namespaces/default/configmaps?labelSelector=app%3Dbench";
        bytes = connection.read(path).await?.len();
        times.push(asked.elapsed());
    }
    let times = Times::new(times);
    println!("  {OBJECTS} ConfigMaps, {bytes} bytes, {LISTS} times by one client: {times}");
    place.down(instance).await
}
