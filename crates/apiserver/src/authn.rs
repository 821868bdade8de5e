//! Who asks: the subject of a verified client certificate, or the bearer of a token. Nobody else is
//! let in, but for questions about health.
//!
//! Upstream: `apiserver/pkg/authentication/request/{union,x509,bearertoken}`.

mod bootstrap_token;
pub(crate) mod impersonate;
pub(crate) mod token;

use crate::{
    server::Server,
    user::{AUTHENTICATED, CREDENTIAL, User},
    view::View,
};
use http::{HeaderMap, header};
use rustls::pki_types::CertificateDer;
use std::{collections::BTreeMap, sync::Arc};

/// The certificate was verified by the handshake; here it is only read.
pub(crate) fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let groups = subject.iter_organization().filter_map(|it| it.as_str().ok());
    let mut groups: Vec<String> = groups.map(str::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let extra = BTreeMap::from([(CREDENTIAL.to_owned(), vec![format!("X509SHA256={hex}")])]);
    Some(User { name, groups, extra, ..User::default() })
}

/// What a request says about its author.
pub(crate) enum Caller {
    Known(Arc<User>),
    /// It shows nothing.
    Nobody,
    /// It shows something that does not hold.
    Wrong,
}

impl Server {
    /// `certificate`: the user whom the connection's own certificate names.
    pub(crate) fn caller(
        &self,
        view: &View,
        certificate: Option<Arc<User>>,
        headers: &HeaderMap,
    ) -> Caller {
        if let Some(user) = certificate {
            return Caller::Known(user);
        }
        let Some(token) = bearer(headers) else { return Caller::Nobody };
        match self.bearer(view, token, &self.tokens.audiences()) {
            Ok(bearer) => Caller::Known(Arc::new(bearer.user)),
            Err(why) => {
                tracing::warn!("unable to authenticate the request: {why}");
                Caller::Wrong
            }
        }
    }

    /// The bearer of a token, if it is meant for one of the audiences. The error is for the log: whoever
    /// shows a wrong token learns nothing.
    pub(crate) fn bearer(
        &self,
        view: &View,
        token: &str,
        audiences: &[String],
    ) -> Result<Bearer, String> {
        match bootstrap_token::parse(token) {
            Some(parts) if audiences.iter().any(|it| self.tokens.audiences().contains(it)) => {
                let user = bootstrap_token::user(view, parts, self.now())?;
                Ok(Bearer { user, audiences: self.tokens.audiences() })
            }
            Some(_) => Err("bootstrap tokens are for the API server only".to_owned()),
            None => {
                let claims = self.tokens.verify(token)?;
                let meant: Vec<String> =
                    audiences.iter().filter(|it| claims.aud.contains(it)).cloned().collect();
                if meant.is_empty() {
                    return Err("the token is for other audiences".to_owned());
                }
                let user = token::user(view, token, &claims, self.now())?;
                Ok(Bearer { user, audiences: meant })
            }
        }
    }
}

pub(crate) struct Bearer {
    pub(crate) user: User,
    /// Those of the audiences asked about that the token is meant for.
    pub(crate) audiences: Vec<String>,
}

/// Compares secrets by their digests: how long that takes tells nothing about them.
fn same(one: &[u8], other: &[u8]) -> bool {
    let digest = |it| ring::digest::digest(&ring::digest::SHA256, it);
    digest(one).as_ref() == digest(other).as_ref()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
