//! The node's server: logs, exec, attach and health, over mutual TLS.

pub(crate) mod log;

use crate::kubelet::Shared;
use std::{io, sync::Arc};
use tokio::net::TcpListener;

#[derive(Debug, thiserror::Error)]
#[error("listen on {address}")]
pub struct ServerError {
    address: String,
    #[source]
    source: io::Error,
}

pub(crate) struct Server {
    listener: TcpListener,
    port: u16,
    tls: Arc<rustls::ServerConfig>,
}

pub(crate) struct Context {
    shared: Arc<Shared>,
}

impl Context {
    pub(crate) fn new(shared: Arc<Shared>) -> Context {
        Context { shared }
    }
}

impl Server {
    pub(crate) async fn bind(
        host: &str,
        port: u16,
        tls: Arc<rustls::ServerConfig>,
    ) -> Result<Server, ServerError> {
        let failed = |source| ServerError { address: format!("{host}:{port}"), source };
        let listener = TcpListener::bind((host, port)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Server { listener, port, tls })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) async fn run(&self, context: Context) {
        std::future::pending().await
    }
}
