//! One question to a gRPC server: are you, or is this service of yours, serving? Upstream: `pkg/probe/grpc/grpc.go`.

use super::joined;
use crate::plan::human;
use rpc::health::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use std::time::Duration;
use stdx::Backoff;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

/// A server that does not listen yet is tried again within the check's time, as upstream's client does.
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_MOST: Duration = Duration::from_millis(500);

pub(super) async fn ask(
    host: &str,
    port: u16,
    service: &str,
    timeout: Duration,
) -> Result<(), String> {
    let address = joined(host, port);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|it| it.user_agent("kube-probe/1.36"))
        .map_err(|error| format!("error: failed to connect service at {address:?}: {error}"))?;
    let begun = tokio::time::Instant::now();
    let Some(channel) = stdx::timeout(timeout, connected(&endpoint)).await else {
        let within = human(timeout);
        return Err(format!(
            "timeout: failed to connect service {address:?} within {within}: context deadline exceeded"
        ));
    };
    let request = HealthCheckRequest { service: service.to_owned() };
    let mut client = HealthClient::new(channel);
    let left = timeout.saturating_sub(begun.elapsed());
    let Some(answer) = stdx::timeout(left, client.check(request)).await else {
        return Err(format!("timeout: health rpc did not complete within {}", human(timeout)));
    };
    match answer {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            other => Err(format!("service unhealthy (responded with {:?})", other.as_str_name())),
        },
        Err(status) if status.code() == Code::Unimplemented => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        )),
        Err(status) => {
            let code = format!("{:?}", status.code());
            let why = format!("rpc error: code = {code} desc = {}", status.message());
            Err(format!("error: health rpc probe failed: {why}"))
        }
    }
}

async fn connected(endpoint: &Endpoint) -> Channel {
    let mut backoff = Backoff::new(AGAIN_FIRST, AGAIN_MOST);
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(_not_yet) => stdx::sleep(backoff.failed()).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc::health::{
        HealthCheckResponse,
        health_server::{Health, HealthServer},
    };
    use tonic::{Request, Response, Status, transport::Server};

    struct Named;

    #[tonic::async_trait]
    impl Health for Named {
        async fn check(
            &self,
            request: Request<HealthCheckRequest>,
        ) -> Result<Response<HealthCheckResponse>, Status> {
            let status = match request.into_inner().service.as_str() {
                "" => ServingStatus::Serving,
                "tired" => ServingStatus::NotServing,
                other => return Err(Status::not_found(format!("no {other}"))),
            };
            Ok(Response::new(HealthCheckResponse { status: status.into() }))
        }
    }

    #[tokio::test]
    async fn asks_for_the_server_or_for_one_of_its_services() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = Server::builder().add_service(HealthServer::new(Named));
        let _task = tokio::spawn(server.serve_with_incoming(incoming));
        let ask =
            |service: &'static str| super::ask("127.0.0.1", port, service, Duration::from_secs(30));
        assert_eq!(ask("").await, Ok(()));
        let tired = "service unhealthy (responded with \"NOT_SERVING\")".to_owned();
        assert_eq!(ask("tired").await, Err(tired));
        let unknown = "error: health rpc probe failed: rpc error: code = NotFound desc = no other";
        assert_eq!(ask("other").await, Err(unknown.to_owned()));
    }

    #[tokio::test]
    async fn nobody_who_listens_is_a_failure_within_the_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let asked = ask("127.0.0.1", port, "", Duration::from_secs(1)).await.unwrap_err();
        let expected = format!("timeout: failed to connect service \"127.0.0.1:{port}\" within 1s");
        assert!(asked.starts_with(&expected), "{asked}");
    }
}
