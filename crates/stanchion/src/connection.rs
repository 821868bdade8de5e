//! One HTTPS connection to a running server, as a kubeconfig of our own names it: for commands that ask
//! a question and end.

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

/// A server that does not answer within this time is not there.
const WAIT: Duration = Duration::from_secs(30);

/// More than any answer to such a command.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

pub(crate) struct Connection {
    config: Arc<ClientConfig>,
    address: String,
}

impl Connection {
    pub(crate) fn open(kubeconfig: &Path) -> Result<Connection> {
        let attempt = || format!("read {}", kubeconfig.display());
        let text = std::fs::read_to_string(kubeconfig).with_context(attempt)?;
        let value: Value = serde_saphyr::from_str(&text).with_context(attempt)?;
        let (cluster, user) = (&value["clusters"][0]["cluster"], &value["users"][0]["user"]);
        let pem = |it: &Value| -> Result<Vec<u8>> {
            let text = it.as_str().ok_or_else(|| anyhow!("a certificate or key is missing"))?;
            STANDARD.decode(text).context("read a certificate or key")
        };
        let mut roots = RootCertStore::empty();
        let authority = pem(&cluster["certificate-authority-data"]).with_context(attempt)?;
        for certificate in crate::pki::certificates(&String::from_utf8_lossy(&authority))? {
            roots.add(certificate).with_context(attempt)?;
        }
        let chain = pem(&user["client-certificate-data"]).with_context(attempt)?;
        let chain = crate::pki::certificates(&String::from_utf8_lossy(&chain))?;
        let key = pem(&user["client-key-data"]).with_context(attempt)?;
        let key = PrivateKeyDer::from_pem_slice(&key).with_context(attempt)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|it| it.with_root_certificates(roots).with_client_auth_cert(chain, key))
            .context("set up TLS")?;
        let address = cluster["server"].as_str().and_then(|it| it.strip_prefix("https://"));
        let address = address.ok_or_else(|| anyhow!("no https server is named"));
        Ok(Connection {
            config: Arc::new(config),
            address: address.with_context(attempt)?.to_owned(),
        })
    }

    /// Sends one request and reads its answer; a refusal is an error in the server's own words.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let address = &self.address;
        let attempt = || format!("ask the server at {address}");
        let host = address.rsplit_once(':').map_or(address.as_str(), |it| it.0);
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).with_context(attempt)?;
        let tcp = TcpStream::connect(address).with_context(attempt)?;
        tcp.set_read_timeout(Some(WAIT)).with_context(attempt)?;
        tcp.set_write_timeout(Some(WAIT)).with_context(attempt)?;
        let tls = ClientConnection::new(self.config.clone(), name).with_context(attempt)?;
        let mut stream = StreamOwned::new(tls, tcp);
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).with_context(attempt)?;
        stream.write_all(body.as_bytes()).with_context(attempt)?;
        stream.flush().with_context(attempt)?;
        let mut answer = Vec::new();
        match stream.take(BYTES_MAX).read_to_end(&mut answer) {
            // Servers may close the connection without the last word of TLS; the length is checked below.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            read => drop(read.with_context(attempt)?),
        }
        let (code, body) = parse(&answer).with_context(attempt)?;
        let value: Value = serde_json::from_slice(body).with_context(attempt)?;
        if !(200..300).contains(&code) {
            bail!("{}", value["message"].as_str().unwrap_or("the server refused"));
        }
        Ok(value)
    }
}

/// Status and body of a whole answer.
fn parse(answer: &[u8]) -> Result<(u16, &[u8])> {
    let incomplete = || anyhow!("the answer is not complete");
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").ok_or_else(incomplete)?;
    let head = std::str::from_utf8(&answer[..end]).context("read the answer")?;
    let body = &answer[end + 4..];
    let code = head.split(' ').nth(1).and_then(|it| it.parse().ok()).ok_or_else(incomplete)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length != Some(body.len()) {
        return Err(incomplete());
    }
    Ok((code, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_answer_is_none() {
        let whole = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(whole).unwrap(), (201, &b"{}"[..]));
        assert!(parse(&whole[..whole.len() - 1]).is_err());
        assert!(parse(b"HTTP/1.1 200 OK").is_err());
    }
}
