//! The authority as a signer of requests that the API has approved, and the key of service account tokens.

use super::{Authority, write_private};
use anyhow::{Context, Result};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::{fs, io, time::Duration};
use stdx::Timestamp;

/// A machine whose clock is a little behind believes a new certificate at once; upstream's five minutes.
const BACKDATED: Duration = Duration::from_secs(300);

const TOKEN_KEY: &str = "sa.key";

impl Authority {
    /// The key that signs service account tokens, PEM: made once.
    pub(crate) fn token_key(&self) -> Result<String> {
        let path = self.dir.join(TOKEN_KEY);
        match fs::read_to_string(&path) {
            Ok(key) => return Ok(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
        let key = KeyPair::generate().context("make the key of service account tokens")?;
        let key = key.serialize_pem();
        write_private(&path, &key)?;
        Ok(key)
    }

    /// What everyone may know of it: the authority's certificate and the public key of tokens, PEM.
    pub(crate) fn public(&self) -> Result<String> {
        let key = KeyPair::from_pem(&self.token_key()?);
        let key = key.context("read the key of service account tokens")?;
        Ok(format!("{}{}", self.certificate(), key.public_key_pem()))
    }
}

impl apiserver::Signer for Authority {
    fn sign(&self, request: &[u8], usages: &[String], life: Duration) -> Result<String, String> {
        let mut request = CertificateSigningRequestParams::from_der(&request.into())
            .map_err(|error| error.to_string())?;
        let now = self.now();
        let until = now.plus(life).min(self.validity().until);
        // Short lives are not mostly past ones.
        let backdated = BACKDATED.min(life / 8);
        restrict(&mut request.params, usages, now.minus(backdated), until);
        let signed = request.signed_by(&self.issuer).map_err(|error| error.to_string())?;
        Ok(signed.pem())
    }
}

/// What was asked for in a request gives way to what was approved.
fn restrict(params: &mut CertificateParams, usages: &[String], from: Timestamp, until: Timestamp) {
    let at = |it: Timestamp| {
        let seconds = u64::try_from(it.seconds()).unwrap_or_default();
        date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    (params.not_before, params.not_after) = (at(from), at(until));
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    let key = |it: &str| match it {
        "signing" | "digital signature" => Some(KeyUsagePurpose::DigitalSignature),
        "key encipherment" => Some(KeyUsagePurpose::KeyEncipherment),
        _ => None,
    };
    let extended = |it: &str| match it {
        "client auth" => Some(ExtendedKeyUsagePurpose::ClientAuth),
        "server auth" => Some(ExtendedKeyUsagePurpose::ServerAuth),
        _ => None,
    };
    params.key_usages = usages.iter().filter_map(|it| key(it)).collect();
    params.extended_key_usages = usages.iter().filter_map(|it| extended(it)).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use apiserver::Signer;
    use rcgen::DnType;

    #[test]
    fn a_signed_certificate_holds_for_what_was_approved_and_no_longer() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "jane");
        let request = params.serialize_request(&key).unwrap();
        let usages = ["client auth".to_owned()];
        let life = Duration::from_secs(600);
        let pem = authority.sign(request.der(), &usages, life).unwrap();
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = block.parse_x509().unwrap();
        let validity = certificate.validity();
        assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 675);
        let extended = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth && !extended.server_auth);
        assert!(!certificate.is_ca());
        assert_eq!(authority.token_key().unwrap(), authority.token_key().unwrap());
    }
}
