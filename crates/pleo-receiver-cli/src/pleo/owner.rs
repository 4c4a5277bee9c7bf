//! Marks the subscriptions at Pleo that a configuration owns.

use std::collections::BTreeSet;
use std::path::Path;

use pleo_api::Subscription;
use uuid::Uuid;

use crate::escape::escape;
use crate::failure::Failure;

/// The custom header that holds the name of the owner. Pleo sends it with each delivery; the
/// receiver ignores it.
pub(crate) const OWNER_HEADER: &str = "pleo-receiver-owner";

/// The start of the names of sessions of `dev`.
const DEV: &str = "dev-";

/// Returns a new, unique name.
pub(crate) fn new_name() -> String {
    let (id, _) = Uuid::new_v4().as_u64_pair();
    format!("receiver-{id:016x}")
}

/// Returns a new, unique name for a session of `dev`.
pub(crate) fn dev_name() -> String {
    format!("{DEV}{}", new_name())
}

/// Returns `true` if a session of `dev` has created a subscription.
pub(crate) fn is_of_dev(subscription: &Subscription) -> bool {
    owner(subscription).is_some_and(|owner| owner.starts_with(DEV))
}

/// Returns the subscriptions that carry this name.
pub(crate) fn owned_by<'s>(
    owner: Option<&'s str>,
    subscriptions: &'s [Subscription],
) -> impl Iterator<Item = &'s Subscription> {
    let subscriptions = subscriptions.iter();
    subscriptions.filter(move |subscription| is_owned(subscription, owner))
}

/// Returns `true` if a subscription carries this name.
pub(crate) fn is_owned(subscription: &Subscription, owner: Option<&str>) -> bool {
    self::owner(subscription).is_some_and(|mark| Some(mark) == owner)
}

fn owner(subscription: &Subscription) -> Option<&str> {
    let mut headers = subscription.custom_headers.iter();
    let mark = headers.find(|(name, _)| name.eq_ignore_ascii_case(OWNER_HEADER));
    mark.map(|(_, mark)| mark.expose())
}

/// Refuses a configuration that declares none of the subscriptions it owns. It is probably a copy,
/// and `sync` would delete the subscriptions of the original.
pub(crate) fn check_not_copied<'s>(
    config: &Path,
    declared_urls: &BTreeSet<&str>,
    owned: impl IntoIterator<Item = &'s Subscription>,
) -> Result<(), Failure> {
    let mut owned = owned.into_iter().peekable();
    let Some(first) = owned.peek().copied() else {
        return Ok(());
    };
    let is_declared = |owned: &Subscription| declared_urls.contains(owned.endpoint_url.as_str());
    if declared_urls.is_empty() || owned.any(is_declared) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{}: the file looks like a copy, since it declares none of the subscriptions at Pleo that \
         carry its `[subscriptions]` name, such as {} {}; if it is a copy, delete the table \
         `[subscriptions]` in it; otherwise, first run `pleo-receiver subscriptions update ID \
         --url NEW` or `pleo-receiver subscriptions delete ID`",
        config.display(),
        first.id,
        escape(&first.endpoint_url)
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subscription(url: &str, headers: serde_json::Value) -> Subscription {
        serde_json::from_value(json!({
            "id": Uuid::new_v4(),
            "endpointUrl": url,
            "eventTypes": ["a"],
            "status": "ACTIVE",
            "customHeaders": headers,
            "createdAt": "2026-11-24T08:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn finds_subscriptions_by_owner_header() {
        let subscriptions = [
            subscription("https://a/", json!({ OWNER_HEADER: "me" })),
            subscription("https://b/", json!({ "Pleo-Receiver-Owner": "me" })),
            subscription("https://c/", json!({ OWNER_HEADER: "another" })),
            subscription("https://d/", json!({})),
        ];
        let urls = |owner| -> Vec<_> {
            let owned = owned_by(owner, &subscriptions);
            owned.map(|owned| owned.endpoint_url.as_str()).collect()
        };
        assert_eq!(urls(Some("me")), ["https://a/", "https://b/"]);
        assert_eq!(urls(Some("nobody")), [""; 0]);
        assert_eq!(urls(None), [""; 0]);
    }

    #[test]
    fn refuses_file_that_declares_none_of_its_subscriptions() {
        let owned = ["https://a/", "https://b/"]
            .map(|url| subscription(url, json!({ OWNER_HEADER: "me" })));
        for (declared, is_copy) in [
            (&["https://a/", "https://new/"][..], false),
            (&["https://staging/"], true),
            (&[], false),
        ] {
            let urls = declared.iter().copied().collect();
            let checked = check_not_copied(Path::new("pleo.toml"), &urls, &owned);
            assert_eq!(checked.is_err(), is_copy, "{declared:?}");
        }
        let urls = BTreeSet::from(["https://a/"]);
        assert!(check_not_copied(Path::new("pleo.toml"), &urls, []).is_ok());
    }
}
