//! `pleo-receiver health`: asks the running receiver whether it is alive, for container runtimes.

use pleo_http::reqwest::StatusCode;

use crate::admin_client::{base_url, get};
use crate::args::Health;
use crate::config::load::admin_settings;
use crate::failure::Failure;
use crate::http_client::cause;
use crate::output;

pub(crate) async fn run(args: Health) -> Result<(), Failure> {
    let admin = admin_settings(args.config.as_deref())?;
    if admin.address.is_none() {
        let why = "missing: set it in pleo.toml, or set PLEO_ADMIN, to the address of the receiver's \
                   admin listener, such as 127.0.0.1:9187";
        return Err(Failure::usage("`admin`", why));
    }
    let base = base_url(&admin).map_err(|why| Failure::usage("`admin`", why))?;
    let path = if args.ready { "readyz" } else { "livez" };
    let url = format!("{base}/{path}");
    let answer = get(&url, &admin).await?.map_err(|error| {
        let why = cause(&error);
        Failure::Run(format!("no answer from {url}: {why}; start the receiver"))
    })?;
    let text = String::from_utf8_lossy(&answer.body);
    match answer.status {
        StatusCode::OK => Ok(output::line(text.trim_end())?),
        status => Err(Failure::Run(format!(
            "{url} answers {status}: {}",
            text.trim_end()
        ))),
    }
}
