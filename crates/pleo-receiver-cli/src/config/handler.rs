//! Who gets the messages.

use core::hash::{Hash, Hasher};
use core::time::Duration;

use pleo_receiver::{Exec, Forward};

use super::values::{Secrets, Words};
use super::{File, usage};
use crate::args::Serve;
use crate::failure::{Failure, chain};
use crate::secret_ref::SecretRef;

/// Who gets the messages.
pub(crate) enum Target {
    Forward(Box<Forward>),
    Exec(Exec),
}

/// Who gets the messages. Whatever it is made of goes into `hash`.
pub(super) fn target(
    args: &Serve,
    file: &File,
    timeout: Duration,
    at: impl Fn(&str) -> String,
    hash: &mut impl Hasher,
) -> Result<Option<Target>, Failure> {
    // What is said nearer hides both of what is said farther away.
    let (forward, exec) = if args.forward.is_some() || args.exec.is_some() {
        let words = args.exec.as_deref().map(Words::parse).transpose();
        let words = words.map_err(|why| usage("`--exec` (PLEO_EXEC)", &why))?;
        (args.forward.as_ref(), words)
    } else {
        (file.forward.as_ref(), file.exec.clone())
    };
    match (forward, exec) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(usage(&at("forward"), "not beside `exec`: choose one")),
        (None, Some(words)) => {
            let hidden: Vec<_> = file
                .env_names()
                .chain(args.secret.iter().filter_map(SecretRef::env_name))
                .collect();
            (&words, &hidden).hash(hash);
            let exec = Exec::new(words.program).args(words.args);
            Ok(Some(Target::Exec(exec.without_env(hidden))))
        }
        (Some(url), None) => {
            let url = url.resolve().map_err(|why| usage(&at("forward"), &why))?;
            url.hash(hash);
            let mut forward = Forward::new(&url)
                .map_err(|error| usage(&at("forward"), &chain(&error)))?
                .with_timeout(timeout.min(Duration::from_secs(30)));
            if let Some(secret) = args
                .forward_secret
                .as_ref()
                .or(file.forward_secret.as_ref())
            {
                let place = at("forward-secret");
                secret
                    .resolve()
                    .map_err(|why| usage(&place, &why))?
                    .hash(hash);
                let [secret] = <[_; 1]>::try_from(Secrets(vec![secret.clone()]).parse(&place)?)
                    .map_err(|_| usage(&place, "several secrets: give one"))?;
                forward = forward.signed_with(secret);
            }
            Ok(Some(Target::Forward(Box::new(forward))))
        }
    }
}
