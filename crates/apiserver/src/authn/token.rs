//! Service account tokens: signed here, believed here for as long as what they are bound to is there.
//!
//! Upstream: `pkg/serviceaccount/{claims,legacy,jwt,openidmetadata}.go`.

use crate::{
    access::Access,
    error::Error,
    user::{AUTHENTICATED, CREDENTIAL, User, account_groups, account_name},
    view::View,
};
use api::{
    Kind,
    core::v1::{Node, Pod, Secret, ServiceAccount},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};
use stdx::Timestamp;
use world::ObjectKey;

/// Who issued tokens that lie in Secrets.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// What is gone for longer than this is gone for its tokens, too; a server's clock may be off.
const LEEWAY_S: i64 = 60;

/// Checked signatures that are remembered: checking one costs a tenth of a millisecond. When there are
/// more, all are forgotten.
const REMEMBERED: usize = 4096;

/// Longer than any token that is issued here.
const BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub(crate) aud: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) iat: Option<i64>,
    pub(crate) iss: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jti: Option<String>,
    #[serde(rename = "kubernetes.io", default, skip_serializing_if = "Option::is_none")]
    pub(crate) bound: Option<Bound>,
    #[serde(flatten)]
    pub(crate) legacy: Legacy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nbf: Option<i64>,
    pub(crate) sub: String,
}

/// What a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
    pub(crate) serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
}

/// The claims of a token in a Secret: without an end, gone with the Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Legacy {
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<String>,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(from)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

/// The keys of this cluster's tokens.
pub(crate) struct Tokens {
    keys: Vec<Key>,
    issuer: String,
    url: String,
    /// By digest: tokens whose signature was checked.
    checked: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

struct Key {
    pair: EcdsaKeyPair,
    id: String,
}

/// What precedes the point of a P-256 key in its DER form (SubjectPublicKeyInfo).
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl Key {
    fn new(pkcs8: &[u8]) -> Result<Key, Error> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|error| Error::TokenKey(error.to_string()))?;
        let der = [&SPKI, pair.public_key().as_ref()].concat();
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, &der));
        Ok(Key { pair, id })
    }
}

impl Tokens {
    pub(crate) fn new(access: &Access) -> Result<Tokens, Error> {
        let wrong = |error: &dyn std::fmt::Display| Error::TokenKey(error.to_string());
        let mut keys = Vec::new();
        for pem in &access.token_keys {
            let der =
                PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|it| wrong(&it))?;
            keys.push(Key::new(der.secret_pkcs8_der())?);
        }
        if keys.is_empty() {
            let random = SystemRandom::new();
            let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
            keys.push(Key::new(made.map_err(|it| wrong(&it))?.as_ref())?);
        }
        let (issuer, url) = (access.issuer.clone(), access.url.clone());
        Ok(Tokens { keys, issuer, url, checked: Mutex::default() })
    }

    /// Whom tokens are for unless they say otherwise: this server.
    pub(crate) fn audiences(&self) -> Vec<String> {
        vec![self.issuer.clone()]
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token for a Secret to hold.
    pub(crate) fn legacy(
        &self,
        secret: &Secret,
        account: &ServiceAccount,
    ) -> Result<String, Error> {
        let name = |it: &Option<String>| it.clone().unwrap_or_default();
        let namespace = name(&account.metadata.namespace);
        let account_named = name(&account.metadata.name);
        self.sign(&Claims {
            iss: LEGACY_ISSUER.to_owned(),
            sub: account_name(&namespace, &account_named),
            legacy: Legacy {
                namespace: Some(namespace),
                secret: secret.metadata.name.clone(),
                account: Some(account_named),
                uid: account.metadata.uid.clone(),
            },
            ..Claims::default()
        })
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, Error> {
        let wrong = |why: String| Error::TokenKey(why);
        let key = &self.keys[0];
        let header = json!({"alg": "ES256", "kid": key.id}).to_string();
        let claims = serde_json::to_vec(claims).map_err(|it| wrong(it.to_string()))?;
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = key.pair.sign(&SystemRandom::new(), text.as_bytes());
        let signature = signature.map_err(|it| wrong(it.to_string()))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token says, if one of our keys signed it. Whether it still holds is another question.
    pub(crate) fn verify(&self, token: &str) -> Result<Arc<Claims>, String> {
        if token.len() > BYTES_MAX {
            return Err("the token is too long".to_owned());
        }
        let mut name = [0u8; 32];
        name.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(claims) = self.checked.lock().expect("no panic while held").get(&name) {
            return Ok(claims.clone());
        }
        let claims = Arc::new(self.check(token)?);
        let mut checked = self.checked.lock().expect("no panic while held");
        if checked.len() >= REMEMBERED {
            checked.clear();
        }
        checked.insert(name, claims.clone());
        Ok(claims)
    }

    fn check(&self, token: &str) -> Result<Claims, String> {
        let no_token = || "it is no token of this form".to_owned();
        let (text, signature) = token.rsplit_once('.').ok_or_else(no_token)?;
        let (header, claims) = text.split_once('.').ok_or_else(no_token)?;
        let decode = |it: &str| URL_SAFE_NO_PAD.decode(it).map_err(|_| no_token());
        let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| no_token())?;
        if header["alg"] != "ES256" {
            return Err("the token is signed in a way that is not used here".to_owned());
        }
        let id = header["kid"].as_str().unwrap_or_default();
        let signature = decode(signature)?;
        let signed = self.keys.iter().filter(|it| id.is_empty() || it.id == id).any(|it| {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, it.pair.public_key());
            key.verify(text.as_bytes(), &signature).is_ok()
        });
        if !signed {
            return Err("the token was not signed here".to_owned());
        }
        let mut claims: Claims =
            serde_json::from_slice(&decode(claims)?).map_err(|_| no_token())?;
        if claims.iss == LEGACY_ISSUER {
            claims.aud = self.audiences();
        } else if claims.iss != self.issuer || claims.bound.is_none() {
            return Err("the token was not issued by this cluster".to_owned());
        }
        Ok(claims)
    }

    /// The public keys, as `/openid/v1/jwks` tells them.
    pub(crate) fn jwks(&self) -> Value {
        let key = |it: &Key| {
            let point = it.pair.public_key().as_ref();
            // An uncompressed point: a mark, then both coordinates.
            let (x, y) = point[1..].split_at(32);
            json!({
                "use": "sig", "kty": "EC", "kid": it.id, "crv": "P-256", "alg": "ES256",
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            })
        };
        json!({"keys": self.keys.iter().map(key).collect::<Vec<_>>()})
    }

    /// `/.well-known/openid-configuration`
    pub(crate) fn discovery(&self) -> Value {
        json!({
            "issuer": self.issuer, "jwks_uri": format!("{}/openid/v1/jwks", self.url),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

/// Who the claims are about, if everything that they name is still there.
pub(crate) fn user(
    view: &View,
    token: &str,
    claims: &Claims,
    now: Timestamp,
) -> Result<User, String> {
    let Some(bound) = &claims.bound else { return legacy_user(view, token, &claims.legacy, now) };
    let at = now.seconds();
    if claims.exp.is_none_or(|it| at > it.saturating_add(LEEWAY_S)) {
        return Err("service account token has expired".to_owned());
    }
    if claims.nbf.is_some_and(|it| at < it - LEEWAY_S) {
        return Err("service account token is not valid yet".to_owned());
    }
    let (namespace, account) = (&*bound.namespace, &bound.serviceaccount);
    if claims.sub != account_name(namespace, &account.name) {
        return Err("the token's subject is not its account".to_owned());
    }
    lives::<ServiceAccount>(view, namespace, account, now)?;
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: &str| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
    };
    if let Some(secret) = &bound.secret {
        lives::<Secret>(view, namespace, secret, now)?;
    }
    if let Some(pod) = &bound.pod {
        lives::<Pod>(view, namespace, pod, now)?;
        add("pod-name", &pod.name);
        add("pod-uid", &pod.uid);
    }
    if let Some(node) = &bound.node {
        // Of a pod's token it only says where the pod is.
        if bound.pod.is_none() {
            lives::<Node>(view, "", node, now)?;
        }
        add("node-name", &node.name);
        if !node.uid.is_empty() {
            add("node-uid", &node.uid);
        }
    }
    if let Some(id) = &claims.jti {
        extra.insert(CREDENTIAL.to_owned(), vec![format!("JTI={id}")]);
    }
    Ok(account_user(namespace, &account.name, &account.uid, extra))
}

fn account_user(
    namespace: &str,
    name: &str,
    uid: &str,
    extra: BTreeMap<String, Vec<String>>,
) -> User {
    let mut groups = account_groups(namespace);
    groups.push(AUTHENTICATED.to_owned());
    let (name, uid) = (account_name(namespace, name), uid.to_owned());
    User { name, uid, groups, extra, inside: false }
}

/// Whether an object is the one that is meant, and not gone.
fn lives<T: Kind>(
    view: &View,
    namespace: &str,
    reference: &Reference,
    now: Timestamp,
) -> Result<(), String> {
    let key = ObjectKey::new(namespace, &reference.name);
    let what = || format!("{} {key}", T::KIND);
    let row = view.world.row_of::<T>(&key);
    let row = row.ok_or_else(|| format!("the token is bound to {}, which is gone", what()))?;
    if row.meta.uid != reference.uid {
        return Err(format!("the token is bound to another {}", what()));
    }
    match row.meta.deletion {
        Some(at) if at.seconds() < now.seconds() - LEEWAY_S => {
            Err(format!("the token is bound to {}, which is deleted", what()))
        }
        Some(_) | None => Ok(()),
    }
}

fn legacy_user(view: &View, token: &str, claims: &Legacy, now: Timestamp) -> Result<User, String> {
    let text = |it: &Option<String>| it.clone().filter(|it| !it.is_empty());
    let parts = (text(&claims.namespace), text(&claims.secret), text(&claims.account));
    let (Some(namespace), Some(secret), Some(account)) = parts else {
        return Err("the token does not say whose it is".to_owned());
    };
    let kept = view.world.get::<Secret>(&ObjectKey::new(&namespace, &secret));
    let data = kept.as_ref().and_then(|it| it.data.as_ref()?.get("token"));
    let same = data.is_some_and(|it| super::same(&it.0, token.as_bytes()));
    if !same {
        return Err(format!("the token is not that of Secret {namespace}/{secret}"));
    }
    let uid = text(&claims.uid).unwrap_or_default();
    let reference = Reference { name: account.clone(), uid: uid.clone() };
    lives::<ServiceAccount>(view, &namespace, &reference, now)?;
    Ok(account_user(&namespace, &account, &uid, BTreeMap::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(&Access::default()).unwrap()
    }

    fn claims(tokens: &Tokens) -> Claims {
        Claims {
            aud: tokens.audiences(),
            exp: Some(1000),
            iss: tokens.issuer().to_owned(),
            bound: Some(Bound { namespace: "a".to_owned(), ..Bound::default() }),
            sub: "system:serviceaccount:a:b".to_owned(),
            ..Claims::default()
        }
    }

    #[test]
    fn only_what_was_signed_here_is_believed() {
        let (own, other) = (tokens(), tokens());
        let token = own.sign(&claims(&own)).unwrap();
        assert_eq!(*own.verify(&token).unwrap(), claims(&own));
        assert!(other.verify(&token).is_err(), "another cluster's");
        let (text, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = text.split_once('.').unwrap();
        let forged = Claims { sub: "system:serviceaccount:a:admin".to_owned(), ..claims(&own) };
        let forged = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&forged).unwrap());
        assert!(own.verify(&format!("{header}.{forged}.{signature}")).is_err(), "changed");
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert!(own.verify(&format!("{none}.{forged}.")).is_err(), "unsigned");
        for text in ["", ".", "..", "a.b.c", &"x".repeat(BYTES_MAX + 1)] {
            assert!(own.verify(text).is_err());
        }
    }

    #[test]
    fn the_published_key_has_the_name_that_tokens_carry() {
        let own = tokens();
        let token = own.sign(&claims(&own)).unwrap();
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header["kid"], own.jwks()["keys"][0]["kid"]);
        assert_eq!(own.discovery()["issuer"], own.issuer());
    }
}
