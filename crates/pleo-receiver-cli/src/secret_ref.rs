//! Text that may be secret: never shown, and best not given as it is.

use core::convert::Infallible;
use core::fmt;
use core::str::FromStr;
use std::path::Path;
use std::{env, fs};

use pleo_receiver::verify::{Secret, SecretError};
use serde::{Deserialize, Deserializer, de};

/// A text from a flag, a variable or a file that may be a secret, or say where one is: `env:NAME` or
/// `file:PATH`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretRef(String);

impl SecretRef {
    /// The text itself, fetched from where it says it is. A line break at the end of a file is not
    /// part of it.
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
        let Some(path) = self.0.strip_prefix("file:") else {
            return Ok(self.0.clone());
        };
        match fs::read_to_string(path) {
            Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => Err(format!("cannot read the file {path}: {error}")),
        }
    }

    /// The variable that it refers to.
    pub(crate) fn env_name(&self) -> Option<&str> {
        self.0.strip_prefix("env:")
    }

    /// The file that it refers to.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.0.strip_prefix("file:").map(Path::new)
    }

    /// Whether it is the text itself, not where to find it.
    pub(crate) fn is_plain(&self) -> bool {
        !self.0.starts_with("env:") && !self.0.starts_with("file:")
    }

    /// Where the text itself is, as `env:NAME` or `file:PATH`.
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
        // Not as a `String` at once: its error would show a value of another type.
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            _ => Err(de::Error::custom("it must be a text, in quotes")),
        }
    }
}

/// Resolves and parses signing secrets. A file or variable may hold several, one a line.
pub(crate) fn signing_secrets(refs: &[SecretRef]) -> Result<Vec<Secret>, String> {
    let mut secrets = Vec::new();
    for one in refs {
        for line in one.resolve()?.split('\n') {
            let secret = line.trim_end_matches('\r').parse();
            secrets.push(secret.map_err(|error: SecretError| error.to_string())?);
        }
    }
    Ok(secrets)
}

/// Returns `true` if two signing secrets make the same signature.
pub(crate) fn is_same(one: &Secret, other: &Secret) -> bool {
    let sign = |secret: &Secret| secret.sign("msg_", 0, b"").map(|made| made.to_string());
    sign(one).ok() == sign(other).ok()
}
