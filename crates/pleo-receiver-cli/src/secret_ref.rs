//! References to secrets: `env:NAME`, `file:PATH`, `credential:NAME`, or the secret itself. `Debug`
//! hides them.

use core::convert::Infallible;
use core::fmt;
use core::str::FromStr;
use std::env;
use std::io;
use std::path::{Path, PathBuf};

use pleo_receiver::verify::{Secret, SecretError};
use serde::{Deserialize, Deserializer, de};

use crate::failure::Failure;
use crate::files;

/// The error of a command without a signing secret.
pub(crate) const NO_SECRET: &str = "no signing secret: set PLEO_WEBHOOK_SECRET to the `whsec_…` of \
                                    the subscription, or give `--secret file:PATH`";

/// The variable with the folder of the credentials that systemd passes (`systemd.exec(5)`).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A secret, or a reference to one: `env:NAME`, `file:PATH`, or `credential:NAME` for a credential
/// of the systemd unit.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretRef(String);

impl SecretRef {
    /// Returns the secret. Reads the variable or the file, and removes line breaks at the end of a file.
    pub(crate) fn resolve(&self) -> Result<String, String> {
        if let Some(name) = self.env_name() {
            return env::var(name).map_err(|error| match error {
                env::VarError::NotPresent => {
                    format!("the environment variable {name} is not set: set it")
                }
                env::VarError::NotUnicode(_) => {
                    format!("the environment variable {name} is not UTF-8")
                }
            });
        }
        if let Some(name) = self.credential_name() {
            return credential(name);
        }
        let Some(path) = self.0.strip_prefix("file:") else {
            return Ok(self.0.clone());
        };
        read(Path::new(path)).map_err(|error| {
            format!("cannot read the file {path}: {error}; create it, or correct the path")
        })
    }

    /// Returns the name of the environment variable.
    fn env_name(&self) -> Option<&str> {
        self.0.strip_prefix("env:")
    }

    /// Returns the path of the file. A credential has one only where its folder is known.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match self.credential_name() {
            Some(name) => credential_file(name).ok(),
            None => self.0.strip_prefix("file:").map(PathBuf::from),
        }
    }

    /// Returns the name of the credential of the systemd unit.
    pub(crate) fn credential_name(&self) -> Option<&str> {
        self.0.strip_prefix("credential:")
    }

    /// Returns `true` if it is the secret itself, not a reference.
    pub(crate) fn is_plain(&self) -> bool {
        !["env:", "file:", "credential:"]
            .iter()
            .any(|prefix| self.0.starts_with(prefix))
    }

    /// Returns the reference, if it is one.
    pub(crate) fn reference(&self) -> Option<&str> {
        (!self.is_plain()).then_some(&self.0)
    }
}

impl FromStr for SecretRef {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretRef(..)")
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The error of `String::deserialize` would show the value, which may be secret.
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            _ => Err(de::Error::custom("it must be a string, in quotes")),
        }
    }
}

/// Reads a credential of the systemd unit.
fn credential(name: &str) -> Result<String, String> {
    match read(&credential_file(name)?) {
        Ok(text) if text.is_empty() => Err(format!(
            "the credential {name} is empty: create the file that `LoadCredential={name}:…` of the \
             systemd unit names, and restart the unit"
        )),
        Ok(text) => Ok(text),
        Err(error) => Err(format!(
            "cannot read the credential {name}: {error}; add `LoadCredential={name}:…` to the systemd \
             unit, and restart it"
        )),
    }
}

/// Returns the file of a credential.
fn credential_file(name: &str) -> Result<PathBuf, String> {
    let folder = env::var_os(CREDENTIALS).ok_or_else(|| {
        format!(
            "there is no credential {name}, since systemd passes none to this process: add \
             `LoadCredential={name}:PATH` to the unit, give it to `systemd-run`, or use `file:PATH`"
        )
    })?;
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err("a credential is a name, not a path; use `file:PATH`".to_owned());
    }
    Ok(Path::new(&folder).join(name))
}

/// Reads a secret without the line breaks at the end of its file.
fn read(path: &Path) -> io::Result<String> {
    let text = files::read_text(path)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Resolves and parses the signing secrets of `--secret`.
pub(crate) fn secrets_of_flag(refs: &[SecretRef]) -> Result<Vec<Secret>, Failure> {
    if refs.is_empty() {
        return Err(Failure::usage("`--secret`", NO_SECRET));
    }
    signing_secrets(refs).map_err(|why| Failure::usage("`--secret` (PLEO_WEBHOOK_SECRET)", &why))
}

/// Resolves and parses signing secrets. A file or variable may hold several, one a line.
pub(crate) fn signing_secrets(refs: &[SecretRef]) -> Result<Vec<Secret>, String> {
    let mut secrets = Vec::new();
    for secret in refs {
        for line in secret.resolve()?.split('\n') {
            let secret = line.trim_end_matches('\r').parse();
            secrets.push(secret.map_err(|error: SecretError| error.to_string())?);
        }
    }
    Ok(secrets)
}

/// Returns `true` if two signing secrets make the same signature.
pub(crate) fn is_same(left: &Secret, right: &Secret) -> bool {
    let sign = |secret: &Secret| {
        let signature = secret.sign("msg_", 0, b"");
        signature.map(|signature| signature.to_string()).ok()
    };
    sign(left) == sign(right)
}
