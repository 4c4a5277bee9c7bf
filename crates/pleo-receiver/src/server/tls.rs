//! Reads TLS certificates and reloads them when they change.

use core::convert::Infallible;
use core::fmt;
use core::time::Duration;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use tokio::{task, time};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};

use crate::error::error_chain;

/// How often the files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A certificate and its private key, read from PEM files.
///
/// A server reloads them when a file changes. Open connections keep the old certificate.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    loaded: RwLock<Loaded>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// The content of the files.
struct Loaded {
    config: Arc<ServerConfig>,
    /// The stamps of the files when they were last read, even if they were unusable.
    stamps: Stamps,
}

/// Modification time and length of both files.
type Stamps = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Reads a certificate chain, the server's certificate first, and its private key (PKCS #8,
    /// PKCS #1 or SEC 1).
    ///
    /// # Errors
    /// A file cannot be read or has the wrong content, or the key doesn't match the certificate.
    pub fn from_pem_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        let files = Files {
            certificate: certificate.into(),
            key: key.into(),
        };
        let loaded = RwLock::new(files.load(files.stamps())?);
        Ok(Self {
            inner: Arc::new(Inner { files, loaded }),
        })
    }

    /// Reads the files again, for new connections.
    ///
    /// # Errors
    /// The same as [`Self::from_pem_files`]. Then the old certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        // Taken before the files are read, so that a later change is noticed.
        let stamps = self.inner.files.stamps();
        let new = self.inner.files.load(stamps);
        let loaded = self.inner.loaded.write();
        let mut loaded = loaded.unwrap_or_else(PoisonError::into_inner);
        loaded.stamps = stamps;
        *loaded = new?;
        Ok(())
    }

    /// Returns the configuration for a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let loaded = self.inner.loaded.read();
        Arc::clone(&loaded.unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Reloads the files whenever they change.
    pub(super) async fn watch(self) -> Infallible {
        loop {
            time::sleep(CHECK_INTERVAL).await;
            let tls = self.clone();
            // The task is never aborted and doesn't panic.
            let _ = task::spawn_blocking(move || tls.reload_if_changed()).await;
        }
    }

    fn reload_if_changed(&self) {
        let loaded = self.inner.loaded.read();
        let stamps = loaded.unwrap_or_else(PoisonError::into_inner).stamps;
        if self.inner.files.stamps() == stamps {
            return;
        }
        let certificate = self.inner.files.certificate.display();
        match self.reload() {
            Ok(()) => info!(%certificate, "TLS certificate reloaded"),
            Err(error) => {
                let error = error_chain(&error);
                warn!(%certificate, error, "TLS certificate not reloaded; the old one stays in use");
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.inner.files).finish()
    }
}

impl Files {
    fn stamps(&self) -> Stamps {
        [&self.certificate, &self.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    fn load(&self, stamps: Stamps) -> Result<Loaded, TlsError> {
        let certificates = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unusable(&self.certificate, error))?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unusable(&self.key, error))?;
        if certificates.is_empty() {
            let path = self.certificate.clone();
            return Err(TlsError::Empty { path });
        }
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(certificates, key)
            })
            .map_err(|error| TlsError::Refused {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                source: error.into(),
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        Ok(Loaded { config, stamps })
    }
}

fn unusable(path: &Path, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TlsError::Read { path, source },
        // Other errors quote the file, which may be the key.
        _ => TlsError::Empty { path },
    }
}

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file holds no certificate or no unencrypted key.
    #[error("{} holds no PEM certificate or unencrypted PEM key", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The key doesn't match the certificate, or one of them is unusable.
    #[error(
        "{} and {} cannot be used together",
        certificate.display(),
        key.display()
    )]
    Refused {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
}
