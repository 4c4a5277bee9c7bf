//! Reads TLS certificates and reloads them when they change.

use core::convert::Infallible;
use core::fmt;
use core::time::Duration;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use tokio::{task, time};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::expiry::{self, ExpiryWarnings};
use crate::error::error_chain;
use crate::receiver::Receiver;
use crate::telemetry;

/// How often the files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The delay until files that could not be used are read again, and its maximum after several failures.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// A certificate and its private key, read from PEM files.
///
/// A server reloads them when a file changes. If it cannot use them, it reads them again a little
/// later: a key may become readable after its certificate. Open connections keep the old certificate.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    /// The stamps of the files before they were first read.
    stamps: Stamps,
    loaded: Arc<RwLock<Loaded>>,
}

/// Modification time and length of both files.
type Stamps = [Option<(SystemTime, u64)>; 2];

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// A certificate in use.
#[derive(Clone)]
struct Loaded {
    config: Arc<ServerConfig>,
    expires_at: Option<Timestamp>,
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
            loaded: Arc::new(RwLock::new(files.load()?)),
            files: Arc::new(files),
        })
    }

    /// Reads the files again, for new connections.
    ///
    /// # Errors
    /// The same as [`Self::from_pem_files`]. Then the old certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = self.files.load()?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// Returns the file of the certificate.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.files.certificate
    }

    /// Returns the time at which the server's certificate expires (`notAfter`, RFC 5280 section
    /// 4.1.2.5); `None` if it cannot be parsed. It changes when the certificate is reloaded.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.loaded().expires_at
    }

    /// Returns the configuration for a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.loaded().config
    }

    /// Reloads the files whenever they change, and exports and warns of the expiry.
    pub(super) async fn watch(self, receiver: Receiver) -> Infallible {
        let mut watch = Watch {
            stamps: self.stamps,
            failed: None,
        };
        let mut warnings = ExpiryWarnings::default();
        loop {
            if let Some(expires_at) = self.expires_at() {
                let metrics = &receiver.telemetry().metrics;
                metrics.certificate_expiry(self.certificate(), expires_at);
                warnings.log(self.certificate(), expires_at, Timestamp::now());
            }
            time::sleep(CHECK_INTERVAL).await;
            let tls = self.clone();
            let check = move || {
                watch.check(&tls);
                watch
            };
            // The task is never aborted and doesn't panic.
            watch = task::spawn_blocking(check).await.unwrap_or(Watch {
                stamps: self.stamps,
                failed: None,
            });
        }
    }

    fn loaded(&self) -> Loaded {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.clone()
    }
}

/// The files as they were last read.
struct Watch {
    stamps: Stamps,
    failed: Option<Failed>,
}

/// A failed reload.
struct Failed {
    error: String,
    at: Instant,
    /// The time until the files are read again.
    delay: Duration,
}

impl Watch {
    /// Reloads the files if they have changed, or if it is time to try again after a failure.
    fn check(&mut self, tls: &Tls) {
        // Taken before the files are read, so that a later change is noticed.
        let stamps = tls.files.stamps();
        let changed = stamps != self.stamps;
        self.stamps = stamps;
        let failed = self.failed.take();
        let delay = match &failed {
            _ if changed => RETRY_DELAY,
            Some(failed) if failed.at.elapsed() >= failed.delay => {
                (failed.delay * 2).min(MAX_RETRY_DELAY)
            }
            _ => {
                self.failed = failed;
                return;
            }
        };
        let certificate = tls.certificate().display();
        match tls.reload() {
            Ok(()) => telemetry::certificate_reloaded(certificate),
            Err(error) => {
                // Logged once, and not at each try.
                let text = error_chain(&error);
                if changed || failed.is_none_or(|failed| failed.error != text) {
                    telemetry::certificate_not_reloaded(certificate, &error);
                }
                self.failed = Some(Failed {
                    error: text,
                    at: Instant::now(),
                    delay,
                });
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

    fn load(&self) -> Result<Loaded, TlsError> {
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
        let expires_at = certificates.first().and_then(expiry::expires_at);
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
        Ok(Loaded {
            config: Arc::new(config),
            expires_at,
        })
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
