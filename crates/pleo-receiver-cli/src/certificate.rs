//! Checks the HTTPS certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};

/// Returns `true` if the first certificate in the file is that of a certificate authority
/// (`CA:TRUE`), which clients reject for a server. `openssl req -x509` makes such a certificate.
pub(crate) fn is_authority(path: &Path) -> bool {
    let verified = CertificateDer::from_pem_file(path)
        .ok()
        .and_then(|certificate| {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).ok()?;
            let provider = rustls::crypto::ring::default_provider();
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider));
            let name = ServerName::try_from("localhost").ok()?;
            let verifier = verifier.build().ok()?;
            Some(verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now()))
        });
    match verified {
        // rustls has no variant for this error.
        Some(Err(Error::InvalidCertificate(CertificateError::Other(error)))) => {
            error.to_string().contains("CaUsedAsEndEntity")
        }
        _ => false,
    }
}
