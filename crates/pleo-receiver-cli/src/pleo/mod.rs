//! Pleo's API and the subscriptions that the configuration declares: shared by `setup`,
//! `subscriptions`, `doctor` and `catch-up`.

pub(crate) mod client;
pub(crate) mod declared;
pub(crate) mod plan;
pub(crate) mod secret_file;

/// With nothing in it that could steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.escape_debug()
        .to_string()
        .replace("\\\"", "\"")
        .replace("\\'", "'")
}
