//! TLS: the certificate that is shown, and its renewal.

use core::convert::Infallible;
use core::fmt;
use core::time::Duration;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use tokio::{task, time};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tracing::{info, warn};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// A certificate and its key, in PEM files. They are read again when they change, or when told to;
/// what has begun goes on with the certificate that it began with.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    read: RwLock<Read>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What the files held.
struct Read {
    config: Arc<ServerConfig>,
    /// Of the files when they were last looked at, whether or not they were any good.
    stamps: Stamps,
}

/// What tells that one of the two files has changed.
type Stamps = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Reads a certificate, followed by those that it is signed with, and its key (PKCS #8, PKCS #1 or
    /// SEC 1).
    ///
    /// # Errors
    /// A file can't be read or doesn't hold what it should, or the key is another certificate's.
    pub fn from_pem_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        let files = Files {
            certificate: certificate.into(),
            key: key.into(),
        };
        let read = RwLock::new(files.read(files.stamps())?);
        Ok(Self {
            inner: Arc::new(Inner { files, read }),
        })
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// Those of [`Self::from_pem_files`]; then the certificate stays that was read before.
    pub fn reload(&self) -> Result<(), TlsError> {
        // Before they are read, so that no change after it is missed.
        let stamps = self.inner.files.stamps();
        let read = self.inner.files.read(stamps);
        let mut now = self
            .inner
            .read
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        now.stamps = stamps;
        *now = read?;
        Ok(())
    }

    /// What a new connection begins with.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let read = self.inner.read.read();
        Arc::clone(&read.unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Reads the files again whenever they change.
    pub(super) async fn watch(self) -> Infallible {
        loop {
            time::sleep(INTERVAL).await;
            let tls = self.clone();
            // It is never aborted, and doesn't panic.
            let _ = task::spawn_blocking(move || tls.reload_if_changed()).await;
        }
    }

    fn reload_if_changed(&self) {
        let known = self.inner.read.read();
        let known = known.unwrap_or_else(PoisonError::into_inner).stamps;
        if self.inner.files.stamps() == known {
            return;
        }
        let certificate = self.inner.files.certificate.display();
        match self.reload() {
            Ok(()) => info!(%certificate, "read the TLS certificate again"),
            Err(error) => warn!(%error, "the old TLS certificate stays"),
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

    fn read(&self, stamps: Stamps) -> Result<Read, TlsError> {
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
            .map_err(|source| TlsError::Refused {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                source,
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        Ok(Read { config, stamps })
    }
}

fn unusable(path: &Path, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TlsError::Read { path, source },
        // Others quote the file, which may be the key.
        _ => TlsError::Empty { path },
    }
}

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no PEM, or of something else.
    #[error(
        "{} holds no PEM of a certificate or an unencrypted key, as it should",
        path.display()
    )]
    Empty {
        /// Which one.
        path: PathBuf,
    },
    /// The two don't go together.
    #[error(
        "{} and {} cannot be used together: {source}",
        certificate.display(),
        key.display()
    )]
    Refused {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}
