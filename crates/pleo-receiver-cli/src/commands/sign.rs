//! `pleo-receiver sign`: prints the signature headers of a body.

use pleo_receiver::verify::unix_now;

use crate::args::Sign;
use crate::failure::Failure;
use crate::message::{new_id, signature_headers};
use crate::secret_ref::secrets_of_flag;
use crate::{input, output};

pub(crate) fn run(args: Sign) -> Result<(), Failure> {
    let secrets = secrets_of_flag(&args.signing.secret)?;
    let body = input::read(None)?;
    let id = args.signing.id.unwrap_or_else(new_id);
    let timestamp = args.signing.timestamp.unwrap_or_else(unix_now);
    for (name, value) in signature_headers(&secrets, &id, timestamp, &body)? {
        output::line(format_args!("{name}: {value}"))?;
    }
    Ok(())
}
