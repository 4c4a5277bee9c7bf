//! What there should be at Pleo, what there is, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pleo_api::{Client, EndpointAuth, Error, Sensitive, Status, Subscription, SubscriptionRequest};
use uuid::Uuid;

use super::plain;
use crate::failure::{Failure, chain};

/// The custom header that marks who made a subscription. Visible at Pleo, and sent along with each
/// delivery, where it means nothing.
pub(crate) const OWNER: &str = "pleo-receiver-owner";

/// What there should be. A subscription is known by its URL.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) url: String,
    pub(crate) event_types: Vec<String>,
    /// Headers that it must send; others that it has may stay.
    pub(crate) headers: BTreeMap<String, Sensitive>,
    pub(crate) auth: Option<EndpointAuth>,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    Keep {
        id: Uuid,
    },
    Create(Box<SubscriptionRequest>),
    Update {
        id: Uuid,
        request: Box<SubscriptionRequest>,
        /// The differences, in words.
        what: Vec<String>,
    },
}

impl Wanted {
    /// What makes it so, where Pleo has these. What is made is marked with the owner's name.
    pub(crate) fn change(&self, there: &[Subscription], owner: &str) -> Result<Change, Failure> {
        let with_url: Vec<_> = there
            .iter()
            .filter(|one| one.endpoint_url == self.url)
            .collect();
        let change = match with_url[..] {
            [] => Change::Create(Box::new(self.request(owner))),
            [one] => self.update(one),
            _ => {
                let ids: Vec<_> = with_url.iter().map(|one| one.id.to_string()).collect();
                return Err(Failure::Run(format!(
                    "Pleo has several subscriptions for {}: {}; end all but one with \
                     `pleo-receiver subscriptions delete ID`",
                    self.url,
                    ids.join(", ")
                )));
            }
        };
        // Before anything is done, not in the middle of it.
        if let Change::Create(request) | Change::Update { request, .. } = &change {
            let refused = |error| Failure::from(Error::Invalid(error));
            request.check().map_err(refused)?;
        }
        Ok(change)
    }

    fn request(&self, owner: &str) -> SubscriptionRequest {
        let mut request = SubscriptionRequest::new(&self.url, &self.event_types);
        request.custom_headers = self.headers.clone();
        request
            .custom_headers
            .insert(OWNER.to_owned(), owner.into());
        request.endpoint_auth = self.auth.clone();
        request
    }

    fn update(&self, one: &Subscription) -> Change {
        let mut request = SubscriptionRequest::from(one);
        let mut what = Vec::new();
        let set = |types: &[String]| types.iter().cloned().collect::<BTreeSet<_>>();
        if set(&one.event_types) != set(&self.event_types) {
            let (old, new) = (one.event_types.join(", "), self.event_types.join(", "));
            what.push(format!("event types: {old} → {new}"));
            request.event_types = self.event_types.clone();
        }
        if one.status != Status::Active {
            what.push(format!("status: {} → {}", one.status, Status::Active));
            request.status = Status::Active;
        }
        for (name, value) in &self.headers {
            let same = |(other, _): &(&String, &Sensitive)| other.eq_ignore_ascii_case(name);
            let old = one.custom_headers.iter().find(same);
            if old.is_some_and(|(_, old)| old == value) {
                continue;
            }
            what.push(format!("custom header {name}: another value"));
            let headers = &mut request.custom_headers;
            headers.retain(|other, _| !other.eq_ignore_ascii_case(name));
            headers.insert(name.clone(), value.clone());
        }
        if let Some(wanted) = &self.auth {
            if !shows(one.endpoint_auth.as_ref(), wanted) {
                what.push("Basic credentials: others".to_owned());
            }
            request.endpoint_auth = Some(wanted.clone());
        }
        if what.is_empty() {
            return Change::Keep { id: one.id };
        }
        Change::Update {
            id: one.id,
            request: Box::new(request),
            what,
        }
    }
}

impl Change {
    /// The change in words: a verb, and the rest.
    pub(crate) fn describe(&self, url: &str) -> (&'static str, String) {
        match self {
            Self::Keep { id } => ("keep", format!("{id} {url}")),
            Self::Create(request) => (
                "create",
                format!("{url} for {}", request.event_types.join(", ")),
            ),
            Self::Update { id, what, .. } => ("update", format!("{id} {url}: {}", what.join("; "))),
        }
    }

    /// Does it, and gives the subscription.
    pub(crate) async fn apply(&self, client: &Client) -> Result<Uuid, Failure> {
        Ok(match self {
            Self::Keep { id } => *id,
            Self::Create(request) => {
                let lost = |error| match error {
                    Error::Connection { .. } | Error::Timeout { .. } => Failure::Run(format!(
                        "{}; Pleo may have made the subscription all the same: do this again, \
                         which finds it then",
                        chain(&error)
                    )),
                    error => error.into(),
                };
                client.create(request).await.map_err(lost)?.id
            }
            Self::Update { id, request, .. } => client.update(*id, request).await?.id,
        })
    }
}

/// Whether credentials are those that are wanted, as far as they are shown: an API may keep a password
/// to itself.
fn shows(there: Option<&EndpointAuth>, wanted: &EndpointAuth) -> bool {
    let (Some(there), Some(wanted_pair)) = (there, &wanted.credentials) else {
        return there == Some(wanted);
    };
    let same = |there: &Option<Sensitive>, wanted| there.is_none() || there == wanted;
    let pair = there.credentials.as_ref();
    there.kind == wanted.kind
        && pair.is_none_or(|pair| {
            same(&pair.username, &wanted_pair.username)
                && same(&pair.password, &wanted_pair.password)
        })
}

/// What this owner made.
pub(crate) fn owned<'s>(
    there: &'s [Subscription],
    owner: Option<&'s str>,
) -> impl Iterator<Item = &'s Subscription> {
    there.iter().filter(move |one| {
        let mut headers = one.custom_headers.iter();
        let mark = headers.find(|(name, _)| name.eq_ignore_ascii_case(OWNER));
        mark.is_some_and(|(_, mark)| Some(mark.expose()) == owner)
    })
}

/// Refuses a configuration that names none of what its owner made: it is probably a copy of the one
/// that it was made for, and would end what that one needs.
pub(crate) fn check_copy<'s>(
    owned: impl IntoIterator<Item = &'s Subscription>,
    wanted: &BTreeSet<&str>,
    config: &Path,
) -> Result<(), Failure> {
    let mut owned = owned.into_iter().peekable();
    let Some(one) = owned.peek().copied() else {
        return Ok(());
    };
    if wanted.is_empty() || owned.any(|one| wanted.contains(one.endpoint_url.as_str())) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{}: it names none of the subscriptions at Pleo that carry its `[subscriptions]` name, such \
         as {} {}, as if it were a copy. In a copy, delete the table `[subscriptions]`; else do \
         `pleo-receiver subscriptions update ID --url NEW`, or `subscriptions delete ID`, first",
        config.display(),
        one.id,
        plain(&one.endpoint_url)
    )))
}

/// A name that no other configuration has.
pub(crate) fn new_owner() -> String {
    let (id, _) = Uuid::new_v4().as_u64_pair();
    format!("receiver-{id:016x}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "https://receiver.example.com/webhooks/pleo";

    fn there(url: &str, types: &[&str], status: &str, headers: serde_json::Value) -> Subscription {
        serde_json::from_value(json!({
            "id": Uuid::new_v4(),
            "endpointUrl": url,
            "eventTypes": types,
            "status": status,
            "customHeaders": headers,
            "createdAt": "2026-11-24T08:00:00Z",
        }))
        .unwrap()
    }

    fn wanted() -> Wanted {
        Wanted {
            url: URL.to_owned(),
            event_types: vec!["a".to_owned(), "b".to_owned()],
            headers: BTreeMap::from([("x-tenant".to_owned(), "acme".into())]),
            auth: Some(EndpointAuth::basic("user", "hunter2")),
        }
    }

    #[test]
    fn what_is_missing_is_made_and_then_kept() {
        let wanted = wanted();
        let Change::Create(request) = wanted.change(&[], "me").unwrap() else {
            panic!("not made")
        };
        assert_eq!(request.custom_headers[OWNER].expose(), "me");
        let mut made = there(URL, &["b", "a"], "ACTIVE", json!({}));
        made.custom_headers = request.custom_headers.clone();
        made.endpoint_auth = request.endpoint_auth.clone();
        let kept = wanted
            .change(core::slice::from_ref(&made), "another")
            .unwrap();
        assert_eq!(kept, Change::Keep { id: made.id }, "in whatever order");
    }

    #[test]
    fn only_what_differs_is_changed_and_nothing_secret_is_said() {
        let old = there(
            URL,
            &["a"],
            "INACTIVE",
            json!({ "X-Tenant": "old", "x-other": "stays" }),
        );
        let Change::Update { id, request, what } =
            wanted().change(std::slice::from_ref(&old), "me").unwrap()
        else {
            panic!("not changed")
        };
        assert_eq!(id, old.id);
        let differences = [
            "event types: a → a, b",
            "status: INACTIVE → ACTIVE",
            "custom header x-tenant: another value",
            "Basic credentials: others",
        ];
        assert_eq!(what, differences);
        let headers: Vec<_> = request
            .custom_headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect();
        let expected = [("x-other", "stays"), ("x-tenant", "acme")];
        assert_eq!(headers, expected, "and no mark on what somebody else made");
    }

    #[test]
    fn a_password_that_pleo_keeps_to_itself_is_no_difference() {
        let mut one = there(URL, &["a", "b"], "ACTIVE", json!({ "x-tenant": "acme" }));
        let mut change_with = |auth: serde_json::Value| {
            one.endpoint_auth = serde_json::from_value(auth).unwrap();
            wanted().change(core::slice::from_ref(&one), "me").unwrap()
        };
        for (auth, kept) in [
            (
                json!({ "type": "BASIC", "credentials": { "username": "user", "password": "hunter2" } }),
                true,
            ),
            (
                json!({ "type": "BASIC", "credentials": { "username": "user" } }),
                true,
            ),
            (json!({ "type": "BASIC" }), true),
            (
                json!({ "type": "BASIC", "credentials": { "username": "other" } }),
                false,
            ),
            (
                json!({ "type": "BASIC", "credentials": { "username": "user", "password": "x" } }),
                false,
            ),
            (json!({ "type": "NONE" }), false),
            (json!(null), false),
        ] {
            let change = change_with(auth.clone());
            assert_eq!(matches!(change, Change::Keep { .. }), kept, "{auth}");
        }
        one.endpoint_auth = serde_json::from_value(json!({ "type": "BASIC" })).unwrap();
        one.event_types = vec!["a".to_owned()];
        let change = wanted().change(core::slice::from_ref(&one), "me").unwrap();
        let Change::Update { request, what, .. } = change else {
            panic!("not changed")
        };
        assert_eq!(what.len(), 1);
        assert_eq!(
            request.endpoint_auth,
            wanted().auth,
            "or it would be sent without one"
        );
    }

    #[test]
    fn two_with_the_same_url_are_not_guessed_between() {
        let two = [(); 2].map(|()| there(URL, &["a"], "ACTIVE", json!({})));
        let Err(Failure::Run(why)) = wanted().change(&two, "me") else {
            panic!("guessed")
        };
        assert!(why.contains(&two[1].id.to_string()), "{why}");
    }

    #[test]
    fn what_an_owner_made_is_known_by_its_mark() {
        let there = [
            there("https://a/", &["a"], "ACTIVE", json!({ OWNER: "me" })),
            there(
                "https://b/",
                &["a"],
                "ACTIVE",
                json!({ "Pleo-Receiver-Owner": "me" }),
            ),
            there("https://c/", &["a"], "ACTIVE", json!({ OWNER: "another" })),
            there("https://d/", &["a"], "ACTIVE", json!({})),
        ];
        let urls = |owner| -> Vec<_> {
            let owned = owned(&there, owner);
            owned.map(|one| one.endpoint_url.as_str()).collect()
        };
        assert_eq!(urls(Some("me")), ["https://a/", "https://b/"]);
        assert_eq!(urls(Some("nobody")), [""; 0]);
        assert_eq!(urls(None), [""; 0]);
    }

    #[test]
    fn a_configuration_that_names_nothing_of_its_owner_is_taken_for_a_copy() {
        let there = ["https://a/", "https://b/"]
            .map(|url| there(url, &["a"], "ACTIVE", json!({ OWNER: "me" })));
        for (wanted, is_copy) in [
            (&["https://a/", "https://new/"][..], false),
            (&["https://staging/"], true),
            (&[], false),
        ] {
            let urls = wanted.iter().copied().collect();
            let checked = check_copy(&there, &urls, Path::new("pleo.toml"));
            assert_eq!(checked.is_err(), is_copy, "{wanted:?}");
        }
        let urls = BTreeSet::from(["https://a/"]);
        assert!(check_copy([], &urls, Path::new("pleo.toml")).is_ok());
    }
}
