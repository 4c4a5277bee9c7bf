//! TLS and HTTP/2 clients.

#![allow(dead_code, reason = "the tests of two crates share this file")]

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use http_body_util::Full;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::http::{PATH, Request};

/// Generates a self-signed certificate for `localhost`. Returns it and its key in PEM, and in DER
/// for clients to trust.
pub(crate) fn certificate() -> (String, String, CertificateDer<'static>) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let trusted = certified.cert.der().clone();
    (
        certified.cert.pem(),
        certified.signing_key.serialize_pem(),
        trusted,
    )
}

/// Writes a new `cert.pem` and `key.pem` into a folder. Returns the certificate.
pub(crate) fn certify(folder: &Path) -> CertificateDer<'static> {
    let (certificate, key, trusted) = certificate();
    std::fs::write(folder.join("cert.pem"), certificate).unwrap();
    std::fs::write(folder.join("key.pem"), key).unwrap();
    trusted
}

/// Returns a connector that trusts only this certificate and offers these ALPN protocols.
pub(crate) fn connector(certificate: &CertificateDer<'static>, protocols: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
    config.alpn_protocols = protocols.collect();
    TlsConnector::from(Arc::new(config))
}

pub(crate) async fn connect(
    connector: &TlsConnector,
    address: SocketAddr,
) -> io::Result<TlsStream<TcpStream>> {
    connect_over(connector, TcpStream::connect(address).await?).await
}

/// Starts TLS on an open connection.
pub(crate) async fn connect_over(
    connector: &TlsConnector,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    // An HTTP/2 request is several small writes.
    stream.set_nodelay(true)?;
    let name = "localhost".try_into().unwrap();
    connector.connect(name, stream).await
}

/// Returns an HTTP/2 client for a TLS connection that negotiated `h2`.
pub(crate) async fn http2<B>(stream: TlsStream<TcpStream>) -> hyper::Result<SendRequest<B>>
where
    B: Body<Data = Bytes, Error: Error + Send + Sync> + Send + Unpin + 'static,
{
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Converts a delivery into an HTTP/2 request.
pub(crate) fn framed(request: &Request) -> hyper::Request<Full<Bytes>> {
    let url = format!("https://localhost{PATH}");
    let mut framed = hyper::Request::post(url);
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "host") {
        framed = framed.header(name, value);
    }
    framed.body(Full::from(request.body.clone())).unwrap()
}
