//! The client: TLS, timeouts and what it never does.

use core::time::Duration;
use std::sync::Arc;

use reqwest::{Client, redirect, retry};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::Error;

/// The timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept. Shorter than most servers' limits, so that a request rarely
/// meets a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Builds a client that trusts the machine's root certificates, or those in `SSL_CERT_FILE`, and the
/// additional ones: each item holds one or more in PEM.
///
/// A connection attempt times out after 5 seconds. Requests have no timeout unless they set one.
///
/// # Errors
/// [`Error::Roots`] if the additional certificates cannot be parsed; [`Error::NoRoots`] if there are
/// none at all; [`Error::Client`] if the client cannot be set up.
pub fn client(user_agent: &str, additional_roots: &[Vec<u8>]) -> Result<Client, Error> {
    with_roots(user_agent, root_certificates(additional_roots)?)
}

/// Builds a client that trusts these root certificates.
pub(crate) fn with_roots(user_agent: &str, roots: RootCertStore) -> Result<Client, Error> {
    // Named explicitly: another crate of the program may enable a second provider, and then there is
    // no default.
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Client(error.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .user_agent(user_agent)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .build()
        .map_err(|error| Error::Client(error.into()))
}

/// Returns the root certificates of this machine and the additional ones.
pub(crate) fn root_certificates(additional: &[Vec<u8>]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    for pem in additional {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| Error::Roots(Some(error.into())))?;
            let added = roots.add(certificate);
            added.map_err(|error| Error::Roots(Some(error.into())))?;
        }
        if roots.len() == before {
            return Err(Error::Roots(None));
        }
    }
    if roots.is_empty() {
        let error = native.errors.into_iter().next();
        return Err(Error::NoRoots(error.map(Into::into)));
    }
    Ok(roots)
}
