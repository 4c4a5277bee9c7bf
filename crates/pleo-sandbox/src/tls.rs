//! Certificates, and a TLS proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::error::Error;

/// A certificate authority for tests and development.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Generates a new key and certificate.
    ///
    /// # Errors
    /// [`Error::Tls`] if they cannot be generated.
    pub fn new() -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("Sandbox authority {}", Uuid::new_v4());
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().map_err(failed)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(failed)?;
        Ok(Self { issuer })
    }

    /// Returns the authority's own certificate in PEM, for clients to trust.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate for these names. Returns it and its key in PEM.
    ///
    /// # Errors
    /// [`Error::Tls`] if a name is not one of a host.
    pub fn certify(&self, names: &[&str]) -> Result<(String, String), Error> {
        let (certificate, key) = self.issue(names)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Returns an acceptor with a certificate for these names.
    pub(crate) fn acceptor(&self, names: &[&str]) -> Result<TlsAcceptor, Error> {
        let (certificate, key) = self.issue(names)?;
        let chain = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der());
        let key = key.map_err(|error| Error::Tls(error.into()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(failed)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn issue(&self, names: &[&str]) -> Result<(rcgen::Certificate, KeyPair), Error> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().map_err(failed)?;
        let params = CertificateParams::new(names).map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok((certificate, key))
    }
}

impl core::fmt::Debug for Authority {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Authority(..)")
    }
}

/// A TLS proxy in front of a receiver: terminates TLS and forwards the bytes. Stops on drop.
#[derive(Debug)]
pub struct TlsProxy {
    address: SocketAddr,
    listener: AbortHandle,
}

impl TlsProxy {
    /// Starts a proxy with a certificate for `name`, on a free loopback port. Asks `target` for each
    /// connection where to forward it, and closes the connection at `None`.
    ///
    /// # Errors
    /// [`Error::Listen`] if it cannot listen, [`Error::Tls`] if `name` is not the name of a host.
    pub async fn start(
        authority: &Authority,
        name: &str,
        target: impl Fn() -> Option<SocketAddr> + Send + 'static,
    ) -> Result<Self, Error> {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let cannot_listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
        let bound = listener.local_addr().map_err(cannot_listen)?;
        let acceptor = authority.acceptor(&[name])?;
        let listener = tokio::spawn(async move {
            // Dropped with this task, which ends the connections.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let (acceptor, target) = (acceptor.clone(), target());
                connections.spawn(async move {
                    let mut client = acceptor.accept(stream).await.ok()?;
                    let mut server = TcpStream::connect(target?).await.ok()?;
                    copy_bidirectional(&mut client, &mut server).await.ok()
                });
            }
        });
        Ok(Self {
            address: bound,
            listener: listener.abort_handle(),
        })
    }

    /// Returns the port that the proxy listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Tls(error.into())
}
