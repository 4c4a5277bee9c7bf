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
    files: Arc<Files>,
    /// The stamps of the files before they were first read.
    stamps: Stamps,
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

/// Modification time and length of both files.
type Stamps = [Option<(SystemTime, u64)>; 2];

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

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
        Ok(Self {
            // Taken before the files are read, so that a later change is noticed.
            stamps: files.stamps(),
            config: Arc::new(RwLock::new(files.load()?)),
            files: Arc::new(files),
        })
    }

    /// Reads the files again, for new connections.
    ///
    /// # Errors
    /// The same as [`Self::from_pem_files`]. Then the old certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = self.files.load()?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Returns the configuration for a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reloads the files whenever they change.
    pub(super) async fn watch(self) -> Infallible {
        let mut loaded = self.stamps;
        loop {
            time::sleep(CHECK_INTERVAL).await;
            let tls = self.clone();
            let check = move || {
                // Taken before the files are read, so that a later change is noticed.
                let stamps = tls.files.stamps();
                if loaded != stamps {
                    tls.reload_and_log();
                }
                stamps
            };
            // The task is never aborted and doesn't panic.
            loaded = task::spawn_blocking(check).await.unwrap_or(loaded);
        }
    }

    fn reload_and_log(&self) {
        let certificate = self.files.certificate.display();
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
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}

impl Files {
    fn stamps(&self) -> Stamps {
        [&self.certificate, &self.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        for path in [&self.certificate, &self.key] {
            check_regular(path).map_err(|error| unusable(path, pem::Error::Io(error)))?;
        }
        let certificates = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unusable(&self.certificate, error))?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unusable(&self.key, error))?;
        if certificates.is_empty() {
            let path = self.certificate.clone();
            return Err(TlsError::Empty { path });
        }
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                let builder = builder.with_no_client_auth();
                builder.with_single_cert(certificates, key)
            })
            .map_err(|error| TlsError::Refused {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                source: error.into(),
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Refuses pipes and devices: reading them may block for ever.
fn check_regular(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() || metadata.is_dir() {
        return Ok(());
    }
    Err(io::Error::other(
        "it is a pipe or a device, not a regular file",
    ))
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
