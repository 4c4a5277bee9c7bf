//! Files that hold signing secrets.

use std::path::{Path, PathBuf};

use crate::config::schema::EndpointTable;
use crate::failure::Failure;
use crate::files::{self, Access};

/// The file for the signing secret of a subscription.
pub(crate) struct SecretFile {
    pub(crate) path: PathBuf,
    /// Whether systemd passes it to the receiver. The endpoint then has its reference already.
    pub(crate) is_credential: bool,
}

impl SecretFile {
    /// Chooses the file that is given, or else the endpoint's credential. By default, the file is in the
    /// folder of the configuration, named after the endpoint's path.
    pub(crate) fn choose(
        given: Option<&Path>,
        endpoint: Option<&EndpointTable>,
        config: &Path,
        path: &str,
    ) -> Self {
        let credential = endpoint.and_then(|endpoint| {
            let newest = endpoint.secret_refs().1.first();
            newest
                .filter(|secret| secret.credential_name().is_some())?
                .file()
        });
        match (given, credential) {
            (None, Some(path)) => Self {
                path,
                is_credential: true,
            },
            (given, _) => Self {
                path: given.map_or_else(|| default_path(config, path), Path::to_owned),
                is_credential: false,
            },
        }
    }
}

fn default_path(config: &Path, path: &str) -> PathBuf {
    let name: String = path
        .chars()
        .map(|letter| match letter {
            letter if letter.is_ascii_alphanumeric() => letter,
            _ => '-',
        })
        .collect();
    let name = match name.trim_matches('-') {
        "" => "pleo",
        name => name,
    };
    let directory = config.parent().unwrap_or_else(|| Path::new(""));
    directory.join(format!("{name}.secret"))
}

/// How to treat a file that holds another secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherSecret {
    /// Replaces the secret.
    Replace,
    /// Fails, and leaves the file unchanged.
    Refuse,
}

/// Writes a signing secret to a file that only its owner can read. Returns `true` if the file has
/// changed.
pub(crate) fn write(path: &Path, secret: &str, other: OtherSecret) -> Result<bool, Failure> {
    let text = read(path)?;
    let has_secret = text.lines().any(|line| line == secret);
    if has_secret && is_private(path) {
        return Ok(false);
    }
    if !has_secret && !text.is_empty() && other == OtherSecret::Refuse {
        return Err(in_use(path));
    }
    if !text.lines().all(|line| line.starts_with("whsec_")) {
        return Err(Failure::Usage(format!(
            "cannot write the signing secret to {}: the file holds something else; name another \
             file",
            path.display()
        )));
    }
    let new = if has_secret {
        text.clone()
    } else {
        format!("{secret}\n")
    };
    files::replace(path, &text, &new, Access::Owner)?;
    Ok(true)
}

/// Checks that a file does not exist or is empty.
pub(crate) fn check_unused(path: &Path) -> Result<(), Failure> {
    if read(path)?.is_empty() {
        Ok(())
    } else {
        Err(in_use(path))
    }
}

/// Returns `true` if a file does not exist or is empty.
pub(crate) fn is_missing(path: &Path) -> bool {
    read(path).is_ok_and(|text| text.is_empty())
}

/// Reports a file that holds the secret of another subscription.
pub(crate) fn in_use(path: &Path) -> Failure {
    Failure::Usage(format!(
        "{} holds another secret, which may be another endpoint's: name another file with \
         `--secret-file`, or as the first `secret` of the endpoint; if nothing uses the file, \
         delete it",
        path.display()
    ))
}

fn read(path: &Path) -> Result<String, Failure> {
    files::read_if_exists(path).map_err(|error| {
        let path = path.display();
        let fix = "run as a user who may read it, or name another file";
        Failure::file(&error, format!("cannot read {path}: {error}; {fix}"))
    })
}

#[cfg(unix)]
fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o077 == 0)
}

#[cfg(not(unix))]
fn is_private(_: &Path) -> bool {
    true
}
