//! The settings of traces: the standard `OTEL_*` variables, each checked at the start.

use core::str::FromStr;
use core::time::Duration;
use std::env::{self, VarError};
use std::path::Path;

use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use pleo_http::Target;

use crate::failure::Failure;
use crate::files;
use crate::http_client::parse_url;

/// The largest queue. Its memory is allocated at the start.
const MAX_QUEUE: u64 = 1 << 20;

const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// Where and how spans are exported. The SDK itself reads `OTEL_RESOURCE_ATTRIBUTES`,
/// `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` and `OTEL_EXPORTER_OTLP_HEADERS`, and would ignore
/// wrong values; here they are only checked.
pub(super) struct Settings {
    pub(super) target: Target,
    /// Additional certificate authorities, as PEM.
    pub(super) certificate: Option<Vec<u8>>,
    pub(super) timeout: Duration,
    pub(super) service_name: Option<String>,
    /// The maximum number of spans in the queue.
    pub(super) queue: usize,
    /// The maximum number of spans of a request.
    pub(super) batch: usize,
    /// The time between two exports.
    pub(super) delay: Duration,
}

impl Settings {
    /// Reads the variables. Returns `None` if traces are off.
    pub(super) fn from_env() -> Result<Option<Self>, Failure> {
        if !is_on()? {
            return Ok(None);
        }
        check_protocol()?;
        check_sampler()?;
        check_attributes()?;
        check_headers()?;
        let timeout = signal("TIMEOUT")?.map(|(name, value)| integer(&name, &value, 1, u64::MAX));
        let timeout = timeout.transpose()?.unwrap_or(10_000);
        let export_timeout = number("OTEL_BSP_EXPORT_TIMEOUT", 30_000, 1, u64::MAX)?;
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1, MAX_QUEUE)?;
        let batch = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", queue.min(512), 1, queue)?;
        let delay = number("OTEL_BSP_SCHEDULE_DELAY", 5000, 1, u64::MAX)?;
        Ok(Some(Self {
            target: target()?,
            certificate: certificate()?,
            timeout: Duration::from_millis(timeout.min(export_timeout)),
            service_name: variable("OTEL_SERVICE_NAME")?,
            queue: usize::try_from(queue).unwrap_or(usize::MAX),
            batch: usize::try_from(batch).unwrap_or(usize::MAX),
            delay: Duration::from_millis(delay),
        }))
    }
}

fn is_on() -> Result<bool, Failure> {
    const DISABLED: &str = "OTEL_SDK_DISABLED";
    match variable(DISABLED)?.map(|value| value.to_ascii_lowercase()) {
        None => {}
        Some(value) if value == "false" => {}
        Some(value) if value == "true" => return Ok(false),
        Some(_) => return Err(wrong(DISABLED, "give `true` or `false`")),
    }
    const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
    match variable(EXPORTER)?.as_deref() {
        None => Ok(signal("ENDPOINT")?.is_some()),
        Some("otlp") => Ok(true),
        Some("none") => Ok(false),
        Some(_) => Err(wrong(EXPORTER, "no such exporter; give `otlp` or `none`")),
    }
}

/// Refuses what this program cannot do, rather than do something else.
fn check_protocol() -> Result<(), Failure> {
    if let Some((name, value)) = signal("PROTOCOL")?
        && value != "http/protobuf"
    {
        let why = "only `http/protobuf` is supported; give it and the collector's HTTP port (usually \
                   4318), or turn traces off by `OTEL_TRACES_EXPORTER=none`";
        return Err(wrong(&name, why));
    }
    if let Some((name, value)) = signal("COMPRESSION")?
        && value != "none"
    {
        return Err(wrong(&name, "compression is not supported; give `none`"));
    }
    for end in ["CLIENT_CERTIFICATE", "CLIENT_KEY"] {
        if let Some((name, _)) = signal(end)? {
            return Err(wrong(
                &name,
                "client certificates are not supported; unset it",
            ));
        }
    }
    Ok(())
}

fn check_sampler() -> Result<(), Failure> {
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(sampler) = variable(SAMPLER)? else {
        return Ok(());
    };
    if !SAMPLERS.contains(&&*sampler) {
        let why = format!("no such sampler; give one of {}", SAMPLERS.join(", "));
        return Err(wrong(SAMPLER, &why));
    }
    if sampler.ends_with("traceidratio") {
        let ratio = variable(RATIO)?.and_then(|ratio| f64::from_str(&ratio).ok());
        if !ratio.is_some_and(|ratio| (0.0..=1.0).contains(&ratio)) {
            let why = format!("`{sampler}` needs a ratio; give a number from 0 to 1");
            return Err(wrong(RATIO, &why));
        }
    }
    Ok(())
}

fn check_attributes() -> Result<(), Failure> {
    const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let attributes = variable(NAME)?.unwrap_or_default();
    let is_pair = |pair: &str| {
        pair.split_once('=')
            .is_some_and(|(key, _)| !key.trim().is_empty())
    };
    if attributes.split_terminator(',').all(is_pair) {
        Ok(())
    } else {
        Err(wrong(
            NAME,
            "not a list of attributes; give `key=value,key=value`",
        ))
    }
}

/// Checks the headers without showing them, since they hold secrets.
fn check_headers() -> Result<(), Failure> {
    let Some((name, headers)) = signal("HEADERS")? else {
        return Ok(());
    };
    let is_header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        HeaderName::from_str(name.trim()).ok()?;
        HeaderValue::from_str(&value)
            .ok()
            .filter(|value| !value.is_empty())
    };
    if headers
        .split_terminator(',')
        .all(|pair| is_header(pair).is_some())
    {
        Ok(())
    } else {
        let why = "not a list of headers; give `name=value,name=value` with percent-encoded values";
        Err(wrong(&name, why))
    }
}

/// Returns the URL to which spans are posted.
fn target() -> Result<Target, Failure> {
    const OF_TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const OF_ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let (name, url) = match variable(OF_TRACES)? {
        Some(url) => (OF_TRACES, url),
        None => {
            let base = variable(OF_ALL)?;
            let base = base.as_deref().unwrap_or("http://localhost:4318");
            (OF_ALL, format!("{}/v1/traces", base.trim_end_matches('/')))
        }
    };
    parse_url(&url).map_err(|why| wrong(name, &why))
}

fn certificate() -> Result<Option<Vec<u8>>, Failure> {
    let Some((name, path)) = signal("CERTIFICATE")? else {
        return Ok(None);
    };
    let pem = files::read_text(Path::new(&path));
    let pem = pem.map_err(|error| {
        let why = format!("cannot read `{path}`: {error}; create it, or correct the path");
        wrong(&name, &why)
    })?;
    Ok(Some(pem.into_bytes()))
}

/// Returns a variable of the exporter: the one for traces, else the one for all signals.
fn signal(end: &str) -> Result<Option<(String, String)>, Failure> {
    for start in ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"] {
        let name = format!("{start}{end}");
        if let Some(value) = variable(&name)? {
            return Ok(Some((name, value)));
        }
    }
    Ok(None)
}

fn number(name: &str, default: u64, min: u64, max: u64) -> Result<u64, Failure> {
    match variable(name)? {
        Some(value) => integer(name, &value, min, max),
        None => Ok(default),
    }
}

fn integer(name: &str, value: &str, min: u64, max: u64) -> Result<u64, Failure> {
    let number = value.trim().parse().ok();
    let number = number.filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| match max {
        u64::MAX => wrong(
            name,
            &format!("give milliseconds, an integer of at least {min}"),
        ),
        _ => wrong(name, &format!("give an integer from {min} to {max}")),
    })
}

/// Returns the value of a variable. An empty one counts as not set, as the specification says.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(wrong(name, "not UTF-8; correct or unset it")),
    }
}

fn wrong(name: &str, why: &str) -> Failure {
    Failure::usage(&format!("environment variable {name}"), why)
}
