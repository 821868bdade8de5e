//! One object, as new as was asked.

use super::version;
use crate::{admit::existing, answer::Answer, ask::Ask, show};
use api::Failure;
use http::StatusCode;

pub(crate) async fn get(ask: &Ask) -> Result<Answer, Failure> {
    let asked = version::parse(ask.query.one("resourceVersion"))?;
    let view = ask.server.fresh(asked).await?;
    let row = existing(&view, &ask.target.kind, &ask.key())?;
    show::row(ask, StatusCode::OK, row)
}
