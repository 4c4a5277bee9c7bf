//! Clients that speak TLS, and HTTP/2 over it.

#![allow(dead_code, reason = "not every test uses everything")]
#![allow(unreachable_pub, reason = "a module of each test")]

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

/// A certificate for `localhost` and its key, in PEM and as a client trusts it.
pub fn certificate() -> (String, String, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let trusted = made.cert.der().clone();
    (made.cert.pem(), made.signing_key.serialize_pem(), trusted)
}

/// Writes `cert.pem` and `key.pem` into a folder.
pub fn certify(folder: &Path) -> CertificateDer<'static> {
    let (certificate, key, trusted) = certificate();
    std::fs::write(folder.join("cert.pem"), certificate).unwrap();
    std::fs::write(folder.join("key.pem"), key).unwrap();
    trusted
}

/// Who connects trusts this certificate only, and speaks these versions of HTTP.
pub fn connector(certificate: &CertificateDer<'static>, protocols: &[&str]) -> TlsConnector {
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

pub async fn connect(
    connector: &TlsConnector,
    address: SocketAddr,
) -> io::Result<TlsStream<TcpStream>> {
    over(connector, TcpStream::connect(address).await?).await
}

/// The same over a connection that is there already.
pub async fn over(connector: &TlsConnector, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    // A request is several frames.
    stream.set_nodelay(true)?;
    let name = "localhost".try_into().unwrap();
    connector.connect(name, stream).await
}

/// A client of HTTP/2 on a connection that chose it.
pub async fn http2<B>(stream: TlsStream<TcpStream>) -> SendRequest<B>
where
    B: Body<Data = Bytes, Error: Error + Send + Sync> + Send + Unpin + 'static,
{
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

/// The same delivery, as HTTP/2 has it.
pub fn framed(request: &Request) -> hyper::Request<Full<Bytes>> {
    let url = format!("https://localhost{PATH}");
    let mut framed = hyper::Request::post(url);
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "host") {
        framed = framed.header(name, value);
    }
    framed.body(Full::from(request.body.clone())).unwrap()
}
