//! One repository of one registry: manifests and blobs, with the token or the password that it asks for.

use super::{
    Auth, PullError, Registries, Registry, Result, api_host,
    challenge::{self, Challenge},
    connection::{Ask, document, host_of, is_private, refusal},
    settings::is_loopback,
};
use crate::image::{Digest, Reference};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use std::sync::Mutex;

/// Both families, an index of platforms and a single manifest of each.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A repository at one of the places that have it: the registry itself, or a mirror.
pub(super) struct Repository<'a> {
    registries: &'a Registries,
    registry: Registry,
    /// `https://registry-1.docker.io`
    base: String,
    /// `library/nginx`
    path: String,
    /// `?ns=docker.io`, which tells a mirror whose image is meant.
    query: String,
    auth: Auth,
    /// What convinced the registry last.
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Repository<'a> {
    /// Where the image may be, in the order in which it is asked for. Mirrors are not shown any secret.
    pub(super) fn places(
        registries: &'a Registries,
        reference: &Reference,
        auth: &Auth,
    ) -> Vec<Repository<'a>> {
        let registry = registries.0.settings.get(reference.host()).cloned().unwrap_or_default();
        let place = |base: String, query: String, auth: Auth| Repository {
            registries,
            registry: registry.clone(),
            base,
            path: reference.path().to_owned(),
            query,
            auth,
            authorization: Mutex::default(),
        };
        let mirrors = registry.mirrors.iter().map(|mirror| {
            let query = format!("?ns={}", reference.host());
            place(mirror.trim_end_matches('/').to_owned(), query, Auth::default())
        });
        let host = api_host(reference);
        let plain = registry.plain_http || (is_loopback(host) && !host.ends_with(":443"));
        let base = format!("{}://{host}", if plain { "http" } else { "https" });
        let itself = place(base, String::new(), auth.clone());
        mirrors.chain([itself]).collect()
    }

    /// A manifest or an index, by tag or by digest, and its digest. Checked if a digest was asked for.
    pub(super) async fn manifest(&self, wanted: &str) -> Result<(Digest, Bytes)> {
        let mut ask = Ask::get(self.url("manifests", wanted)?);
        ask.headers.insert(header::ACCEPT, HeaderValue::from_static(MANIFEST_TYPES));
        let response = self.ask(ask).await?;
        let media_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let stated = response.headers().get("docker-content-digest").cloned();
        let bytes = document(&self.host(), response).await?;
        let media_type = media_type.as_ref().and_then(|it| it.to_str().ok()).unwrap_or_default();
        if media_type.starts_with("application/vnd.docker.distribution.manifest.v1") {
            return Err(PullError::Unfit(
                "its manifest is of schema 1, which registries and runtimes have given up"
                    .to_owned(),
            ));
        }
        let digest = Digest::of(&bytes);
        let stated = stated.as_ref().and_then(|it| it.to_str().ok()).map(str::to_owned);
        let asked = Some(wanted.to_owned()).filter(|it| it.starts_with("sha256:"));
        for stated in [stated, asked].into_iter().flatten().filter(|it| it.starts_with("sha256:")) {
            if stated != digest.to_string() {
                return Err(PullError::Unfit(format!(
                    "the manifest should have digest {stated}, but has {digest}"
                )));
            }
        }
        Ok((digest, bytes))
    }

    /// A small blob as a whole, checked.
    pub(super) async fn small_blob(&self, digest: &Digest) -> Result<Bytes> {
        let response = self.blob(digest, 0).await?;
        let bytes = document(&self.host(), response).await?;
        let found = Digest::of(&bytes);
        if found == *digest {
            return Ok(bytes);
        }
        Err(PullError::Unfit(format!("a blob should have digest {digest}, but has {found}")))
    }

    /// A blob from its byte `from` on: 206, or 200 with all of it where the registry knows no ranges.
    pub(super) async fn blob(&self, digest: &Digest, from: u64) -> Result<Response<Incoming>> {
        let mut ask = Ask::get(self.url("blobs", &digest.to_string())?);
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-"));
            ask.headers.insert(header::RANGE, range.expect("digits are fine in a header"));
        }
        self.ask(ask).await
    }

    pub(super) fn host(&self) -> String {
        self.base.split_once("://").map_or(&*self.base, |(_, host)| host).to_owned()
    }

    fn url(&self, kind: &str, name: &str) -> Result<Uri> {
        let url = format!("{}/v2/{}/{kind}/{name}{}", self.base, self.path, self.query);
        url.parse().map_err(|error| PullError::Unfit(format!("{url} is no URL: {error}")))
    }

    /// Asks, and once more with what the registry demands.
    async fn ask(&self, ask: Ask) -> Result<Response<Incoming>> {
        let known = self.authorization.lock().unwrap_or_else(|it| it.into_inner()).clone();
        let response = self.ask_as(&ask, known).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.judge(response).await;
        }
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge =
            challenges.iter().filter_map(|it| it.to_str().ok()).find_map(challenge::parse);
        let Some(challenge) = challenge else { return self.judge(response).await };
        let authorization = match challenge {
            Challenge::Basic => self.basic(&self.base.parse().unwrap_or_default())?,
            Challenge::Bearer { realm, service, scope } => {
                self.token(&realm, service, scope).await?
            }
        };
        let Some(mut authorization) = authorization else {
            return Err(PullError::Denied(format!(
                "{} asks for a user and a password, and none is known for it",
                self.host()
            )));
        };
        authorization.set_sensitive(true);
        *self.authorization.lock().unwrap_or_else(|it| it.into_inner()) =
            Some(authorization.clone());
        let response = self.ask_as(&ask, Some(authorization)).await?;
        self.judge(response).await
    }

    async fn ask_as(
        &self,
        ask: &Ask,
        authorization: Option<HeaderValue>,
    ) -> Result<Response<Incoming>> {
        let mut headers = ask.headers.clone();
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let ask = Ask {
            method: ask.method.clone(),
            url: ask.url.clone(),
            headers,
            body: ask.body.clone(),
        };
        self.registries.send(&self.registry, ask).await
    }

    async fn judge(&self, response: Response<Incoming>) -> Result<Response<Incoming>> {
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(&self.host(), response).await)
    }

    /// The password, if there is one; never in the clear over a network, unless the registry is set to that.
    fn basic(&self, to: &Uri) -> Result<Option<HeaderValue>> {
        if self.auth.username.is_empty() && self.auth.password.is_empty() {
            return Ok(None);
        }
        if !is_private(to) && !self.registry.plain_http {
            return Err(PullError::Denied(format!(
                "{} wants the password without TLS",
                host_of(to)
            )));
        }
        let pair = format!("{}:{}", self.auth.username, self.auth.password);
        let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
        Ok(HeaderValue::from_str(&value).ok())
    }

    /// A bearer token of the service that the registry trusts.
    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<Option<HeaderValue>> {
        let bearer = |token: &str| HeaderValue::from_str(&format!("Bearer {token}")).ok();
        if !self.auth.registry_token.is_empty() {
            return Ok(bearer(&self.auth.registry_token));
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.path));
        let mut fields = vec![("scope", scope)];
        fields.extend(service.map(|it| ("service", it)));
        let refreshes = !self.auth.identity_token.is_empty();
        if refreshes {
            fields.push(("grant_type", "refresh_token".to_owned()));
            fields.push(("client_id", "stanchion".to_owned()));
            fields.push(("refresh_token", self.auth.identity_token.clone()));
        }
        let form: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let form = form.join("&");
        let joint = if realm.contains('?') { '&' } else { '?' };
        let url = if refreshes { realm.to_owned() } else { format!("{realm}{joint}{form}") };
        let url: Uri =
            url.parse().ok().filter(|url: &Uri| url.authority().is_some()).ok_or_else(|| {
                PullError::Unfit(format!("the token service {realm:?} is no URL"))
            })?;
        let host = host_of(&url);
        if refreshes && !is_private(&url) {
            return Err(PullError::Denied(format!("{host} wants the token without TLS")));
        }
        let mut ask = Ask::get(url);
        if refreshes {
            ask.method = Method::POST;
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            ask.headers.insert(header::CONTENT_TYPE, kind);
            ask.body = form.into();
        } else if let Some(mut basic) = self.basic(&ask.url)? {
            basic.set_sensitive(true);
            ask.headers.insert(header::AUTHORIZATION, basic);
        }
        let response = self.registries.send(&self.registry, ask).await?;
        if !response.status().is_success() {
            return Err(match refusal(&host, response).await {
                // The token service does not know us: no word about the image.
                PullError::NotFound(said) => {
                    PullError::Denied(format!("{host} gives no token{said}"))
                }
                other => other,
            });
        }
        #[derive(serde::Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let token: Token = serde_json::from_slice(&document(&host, response).await?)
            .map_err(|error| PullError::Unfit(format!("the token of {host}: {error}")))?;
        let token = token.token.or(token.access_token).unwrap_or_default();
        bearer(&token)
            .filter(|_| !token.is_empty())
            .map(Some)
            .ok_or_else(|| PullError::Denied(format!("{host} gives no token")))
    }
}

/// A value of a query or a form.
fn escaped(value: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            byte => write!(text, "%{byte:02X}").expect("writing to a String"),
        }
    }
    text
}
