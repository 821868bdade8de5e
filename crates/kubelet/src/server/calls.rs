//! Volume calls of the server's loops, for this node: a call in, its outcome or failure out.

use super::{
    Context,
    answer::{Answer, json, text},
};
use client::calls;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

/// More than any call.
const BYTES_MAX: usize = 1024 * 1024;

pub(super) async fn answer(context: &Context, request: Request<Incoming>) -> Answer {
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    }
    let bytes = match Limited::new(request.into_body(), BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("read the call: {error}")),
    };
    let call = match calls::read_call(&bytes) {
        Ok(call) => call,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    // On a task of its own: who asked may go away, what was begun is ended all the same.
    let shared = context.shared.clone();
    let done = tokio::spawn(async move { shared.call(&call).await });
    match done.await {
        Ok(result) => json(&calls::result(&result)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
