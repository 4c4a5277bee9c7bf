//! The handler: a command or a URL.

use core::hash::{Hash, Hasher};
use core::time::Duration;
use std::env;
use std::hash::DefaultHasher;
use std::path::Path;

use pleo_receiver::{DispatchOptions, Exec, Forward};

use super::location::Location;
use super::schema::ConfigFile;
use super::values::{ForwardFormat, Words};
use crate::args::Serve;
use crate::failure::{Failure, chain};
use crate::secret_ref::signing_secrets;

/// The handler of messages.
pub(crate) enum Target {
    Forward(Box<Forward>),
    Exec {
        exec: Exec,
        /// The program, if it does not exist or cannot be executed.
        missing: Option<String>,
    },
}

impl Target {
    /// Builds the handler of the flags and environment variables alone.
    pub(crate) fn from_args(args: &Serve) -> Result<Option<Self>, Failure> {
        let (file, timeout) = (ConfigFile::default(), DispatchOptions::default().timeout);
        target(
            args,
            &file,
            timeout,
            Location(None),
            &mut DefaultHasher::new(),
        )
    }

    /// Returns the key that configures the handler.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::Exec { .. } => "exec",
        }
    }

    /// Returns the program of `exec`, if it does not exist or cannot be executed.
    pub(crate) fn missing_program(&self) -> Option<&str> {
        match self {
            Self::Forward(_) => None,
            Self::Exec { missing, .. } => missing.as_deref(),
        }
    }
}

/// Builds the handler, and feeds its settings to `hash`.
pub(super) fn target(
    args: &Serve,
    file: &ConfigFile,
    timeout: Duration,
    location: Location<'_>,
    hash: &mut impl Hasher,
) -> Result<Option<Target>, Failure> {
    // `--exec` or `--forward` beats both keys of the file.
    let (forward, exec) = if args.forward.is_some() || args.exec.is_some() {
        let words = args.exec.as_deref().map(Words::parse).transpose();
        let words = words.map_err(|why| Failure::usage("`--exec` (PLEO_EXEC)", &why))?;
        (args.forward.as_ref(), words)
    } else {
        (file.forward.as_ref(), file.exec.clone())
    };
    match (forward, exec) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Failure::usage(
            &location.flag("forward"),
            "not beside `exec`: choose one",
        )),
        (None, Some(words)) => {
            let names = &file.exec_env;
            if let Some(wrong) = names.iter().find(|name| !is_env_name(name)) {
                let why = format!("`{wrong}` is not the name of an environment variable");
                return Err(Failure::usage(&location.key("exec_env"), &why));
            }
            (&words, names).hash(hash);
            let missing = (!is_executable(&words.program)).then(|| words.program.clone());
            let exec = Exec::new(words.program).args(words.args);
            let exec = exec.inherit_env(names);
            Ok(Some(Target::Exec { exec, missing }))
        }
        (Some(url), None) => {
            let url_location = location.flag("forward");
            let url = url.resolve();
            let url = url.map_err(|why| Failure::usage(&url_location, &why))?;
            url.hash(hash);
            let mut forward = Forward::new(&url)
                .map_err(|error| Failure::usage(&url_location, &chain(&error)))?
                .with_timeout(timeout.min(Duration::from_secs(30)));
            let secret = args.forward_secret.as_ref();
            if let Some(secret) = secret.or(file.forward_secret.as_ref()) {
                let usage = |why: &str| Failure::usage(&location.flag("forward-secret"), why);
                secret.resolve().map_err(|why| usage(&why))?.hash(hash);
                let secrets = signing_secrets(core::slice::from_ref(secret));
                let secrets = secrets.map_err(|why| usage(&why))?;
                let [secret] =
                    <[_; 1]>::try_from(secrets).map_err(|_| usage("several secrets: give one"))?;
                forward = forward.signed_with(secret);
            }
            let source = file.forward_source.as_deref();
            (file.forward_format, source).hash(hash);
            match (file.forward_format, source) {
                (ForwardFormat::CloudEvents, source) => {
                    let named = forward.with_cloud_events(source.unwrap_or_default());
                    forward = named.map_err(|error| {
                        Failure::usage(&location.key("forward_source"), &chain(&error))
                    })?;
                }
                (ForwardFormat::Webhook, None) => {}
                (ForwardFormat::Webhook, Some(_)) => {
                    let why = "only for `forward_format = \"cloudevents\"`: set it too";
                    return Err(Failure::usage(&location.key("forward_source"), why));
                }
            }
            Ok(Some(Target::Forward(Box::new(forward))))
        }
    }
}

/// Returns what to do about a program that does not exist or cannot be executed.
pub(crate) fn missing_program_fix(program: &str) -> String {
    match (program.contains('/'), Path::new(program).is_file()) {
        (true, true) => format!("not executable: chmod +x {program}"),
        (false, true) => format!("not in PATH: write ./{program} for the file in this folder"),
        (_, false) => "not found".to_owned(),
    }
}

/// Returns `true` if the text can be the name of an environment variable.
fn is_env_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// Returns `true` if a program can be started: by its path, or by its name in `PATH`.
fn is_executable(program: &str) -> bool {
    if program.contains('/') {
        return is_executable_file(Path::new(program));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| is_executable_file(&folder.join(program)))
}

#[cfg(unix)]
fn is_executable_file(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let file = path.metadata().ok().filter(std::fs::Metadata::is_file);
    file.is_some_and(|file| file.permissions().mode() & 0o111 != 0)
}

/// Returns `true`: other systems try several file extensions.
#[cfg(not(unix))]
const fn is_executable_file(_: &Path) -> bool {
    true
}
