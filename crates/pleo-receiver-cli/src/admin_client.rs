//! Asks the admin listener of the running receiver, as its configuration describes it.

use pleo_http::reqwest::header::AUTHORIZATION;

use crate::admin::Credentials;
use crate::config::admin::AdminSettings;
use crate::failure::Failure;
use crate::http_client::{self, Answer, parse_url, send};
use crate::listen::reachable;

/// Returns the URL of the admin listener, for clients on this machine. The error says why there is none.
pub(crate) fn base_url(admin: &AdminSettings) -> Result<String, &'static str> {
    let address = admin.address.ok_or(
        "no `admin` address in the configuration; the flags of a running receiver are unknown",
    )?;
    if address.port() == 0 {
        return Err("the receiver chooses its port at the start; give `admin` a fixed port");
    }
    Ok(format!("http://{}", reachable(address)))
}

/// Asks for a page of the admin listener.
pub(crate) async fn get(
    url: &str,
    admin: &AdminSettings,
) -> Result<Result<Answer, pleo_http::reqwest::Error>, Failure> {
    let target = parse_url(url).map_err(Failure::Run)?;
    let client = http_client::build(&target)?;
    let mut request = client.get(target.url().clone());
    let credentials = admin.access.credentials.as_ref();
    if let Some(value) = credentials.and_then(Credentials::header) {
        request = request.header(AUTHORIZATION, value);
    }
    Ok(send(request).await)
}
