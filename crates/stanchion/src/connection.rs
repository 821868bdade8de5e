//! One HTTPS connection to a running server, as a kubeconfig of our own names it: for commands that ask
//! a question and end.

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
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

/// What a kubeconfig of one cluster and one user says.
pub(crate) struct Credentials {
    /// `10.0.0.1:6443`
    pub(crate) authority: String,
    /// The certificate of the cluster's authority, PEM.
    pub(crate) ca: String,
    pub(crate) token: Option<String>,
    /// Chain and key, PEM.
    certificate: Option<(String, String)>,
}

impl Credentials {
    pub(crate) fn read(kubeconfig: &Path) -> Result<Credentials> {
        let attempt = || format!("read {}", kubeconfig.display());
        let text = std::fs::read_to_string(kubeconfig).with_context(attempt)?;
        // What is wrong is told without the text around it: keys are near.
        let options = serde_saphyr::options! { with_snippet: false };
        let value: Value =
            serde_saphyr::from_str_with_options(&text, options).with_context(attempt)?;
        let (cluster, user) = (&value["clusters"][0]["cluster"], &value["users"][0]["user"]);
        let pem = |it: &Value| -> Result<Option<String>> {
            let Some(text) = it.as_str() else { return Ok(None) };
            let bytes = STANDARD.decode(text).context("read a certificate or key")?;
            Ok(Some(String::from_utf8(bytes).context("read a certificate or key")?))
        };
        let ca = pem(&cluster["certificate-authority-data"]).with_context(attempt)?;
        let ca = ca.ok_or_else(|| anyhow!("no authority is in it")).with_context(attempt)?;
        let chain = pem(&user["client-certificate-data"]).with_context(attempt)?;
        let key = pem(&user["client-key-data"]).with_context(attempt)?;
        let authority = cluster["server"].as_str().and_then(|it| it.strip_prefix("https://"));
        let authority = authority.ok_or_else(|| anyhow!("no https server is named"));
        Ok(Credentials {
            authority: authority.with_context(attempt)?.trim_end_matches('/').to_owned(),
            ca,
            token: user["token"].as_str().map(str::to_owned),
            certificate: chain.zip(key),
        })
    }

    /// The user's certificate and key, if it has one.
    pub(crate) fn identity(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        let Some((chain, key)) = &self.certificate else { return Ok(None) };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("read a key")?;
        Ok(Some((crate::pki::certificates(chain)?, key)))
    }
}

pub(crate) struct Connection {
    config: Arc<ClientConfig>,
    address: String,
    ca: String,
}

impl Connection {
    pub(crate) fn open(kubeconfig: &Path) -> Result<Connection> {
        let attempt = || format!("read {}", kubeconfig.display());
        let credentials = Credentials::read(kubeconfig)?;
        let mut roots = RootCertStore::empty();
        for certificate in crate::pki::certificates(&credentials.ca)? {
            roots.add(certificate).with_context(attempt)?;
        }
        let identity = credentials.identity().with_context(attempt)?;
        let (chain, key) = identity
            .ok_or_else(|| anyhow!("a certificate or key is missing"))
            .with_context(attempt)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|it| it.with_root_certificates(roots).with_client_auth_cert(chain, key))
            .context("set up TLS")?;
        let (address, ca) = (credentials.authority, credentials.ca);
        Ok(Connection { config: Arc::new(config), address, ca })
    }

    /// The authority by which the server is known, PEM.
    pub(crate) fn ca(&self) -> &str {
        &self.ca
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
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
