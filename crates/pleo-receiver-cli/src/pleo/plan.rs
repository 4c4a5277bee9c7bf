//! Plans the changes that make Pleo's subscriptions match the configuration.

use std::collections::{BTreeMap, BTreeSet};

use pleo_api::{Client, EndpointAuth, Error, Sensitive, Status, Subscription, SubscriptionRequest};
use uuid::Uuid;

use super::owner::OWNER_HEADER;
use crate::failure::Failure;

/// A subscription that Pleo should have. Its URL identifies it.
#[derive(Debug)]
pub(crate) struct Desired {
    pub(crate) url: String,
    pub(crate) event_types: Vec<String>,
    /// Custom headers that the subscription must have. It may have others.
    pub(crate) headers: BTreeMap<String, Sensitive>,
    pub(crate) auth: Option<EndpointAuth>,
}

/// A change to a subscription.
#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    Keep {
        id: Uuid,
    },
    Create(Box<SubscriptionRequest>),
    Update {
        id: Uuid,
        request: Box<SubscriptionRequest>,
        /// The differences in words, without secrets.
        differences: Vec<String>,
    },
}

impl Desired {
    /// Plans the change from the existing subscriptions to this one. A new subscription is marked
    /// with the name of its owner.
    pub(crate) fn plan(&self, existing: &[Subscription], owner: &str) -> Result<Change, Failure> {
        let with_url = (existing.iter()).filter(|existing| existing.endpoint_url == self.url);
        Ok(match with_url.collect::<Vec<_>>()[..] {
            [] => Change::Create(Box::new(self.create(owner))),
            [existing] => self.update(existing),
            ref several => {
                let ids: Vec<_> = several
                    .iter()
                    .map(|existing| existing.id.to_string())
                    .collect();
                return Err(Failure::Run(format!(
                    "Pleo has several subscriptions for {}: {}; delete all but one with \
                     `pleo-receiver subscriptions delete ID`",
                    self.url,
                    ids.join(", ")
                )));
            }
        })
    }

    fn create(&self, owner: &str) -> SubscriptionRequest {
        let mut request = SubscriptionRequest::new(&self.url, &self.event_types);
        request.custom_headers = self.headers.clone();
        let headers = &mut request.custom_headers;
        headers.insert(OWNER_HEADER.to_owned(), owner.into());
        request.endpoint_auth = self.auth.clone();
        request
    }

    fn update(&self, existing: &Subscription) -> Change {
        let mut request = SubscriptionRequest::from(existing);
        let mut differences = Vec::new();
        let set = |types: &[String]| types.iter().cloned().collect::<BTreeSet<_>>();
        if set(&existing.event_types) != set(&self.event_types) {
            let (old, new) = (existing.event_types.join(", "), self.event_types.join(", "));
            differences.push(format!("event types: {old} → {new}"));
            request.event_types = self.event_types.clone();
        }
        if existing.status != Status::Active {
            differences.push(format!("status: {} → {}", existing.status, Status::Active));
            request.status = Status::Active;
        }
        for (name, value) in &self.headers {
            let has_name = |(other, _): &(&String, &Sensitive)| other.eq_ignore_ascii_case(name);
            let old = existing.custom_headers.iter().find(has_name);
            if old.is_some_and(|(_, old)| old == value) {
                continue;
            }
            differences.push(format!("custom header {name}: new value"));
            let headers = &mut request.custom_headers;
            headers.retain(|other, _| !other.eq_ignore_ascii_case(name));
            headers.insert(name.clone(), value.clone());
        }
        if let Some(auth) = &self.auth {
            if !matches_shown(existing.endpoint_auth.as_ref(), auth) {
                differences.push("Basic credentials: new value".to_owned());
            }
            // Pleo may not show the password, and an update without it would remove it.
            request.endpoint_auth = Some(with_unknown_fields(auth, existing));
        }
        if differences.is_empty() {
            return Change::Keep { id: existing.id };
        }
        Change::Update {
            id: existing.id,
            request: Box::new(request),
            differences,
        }
    }
}

impl Change {
    /// Checks that Pleo can deliver what the change asks for.
    pub(crate) fn check(&self, client: &Client) -> Result<(), Failure> {
        if let Self::Create(request) | Self::Update { request, .. } = self {
            let checked = client.subscriptions().check(request);
            checked.map_err(Error::InvalidRequest)?;
        }
        Ok(())
    }

    /// Returns `keep`, `create` or `update`.
    pub(crate) const fn verb(&self) -> &'static str {
        match self {
            Self::Keep { .. } => "keep",
            Self::Create(_) => "create",
            Self::Update { .. } => "update",
        }
    }

    /// Returns the subscription that changes.
    pub(crate) fn subject(&self, url: &str) -> String {
        match self {
            Self::Keep { id } | Self::Update { id, .. } => format!("{id} {url}"),
            Self::Create(request) => format!("{url} for {}", request.event_types.join(", ")),
        }
    }

    /// Returns the differences of an update.
    pub(crate) fn differences(&self) -> &[String] {
        match self {
            Self::Update { differences, .. } => differences,
            Self::Keep { .. } | Self::Create(_) => &[],
        }
    }
}

/// Returns these credentials with the fields of the existing ones that this version doesn't know.
fn with_unknown_fields(auth: &EndpointAuth, existing: &Subscription) -> EndpointAuth {
    let mut auth = auth.clone();
    let existing = existing.endpoint_auth.as_ref();
    if let Some(existing) = existing.filter(|existing| existing.kind == auth.kind) {
        auth.extra = existing.extra.clone();
        if let (Some(new), Some(old)) = (&mut auth.credentials, &existing.credentials) {
            new.extra = old.extra.clone();
        }
    }
    auth
}

/// Compares the parts of the credentials that Pleo shows. Pleo may hide the password.
fn matches_shown(shown: Option<&EndpointAuth>, desired: &EndpointAuth) -> bool {
    let (Some(shown), Some(desired_pair)) = (shown, &desired.credentials) else {
        return shown == Some(desired);
    };
    let same = |shown: &Option<Sensitive>, desired| shown.is_none() || shown == desired;
    shown.kind == desired.kind
        && shown.credentials.as_ref().is_none_or(|pair| {
            same(&pair.username, &desired_pair.username)
                && same(&pair.password, &desired_pair.password)
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "https://receiver.example.com/webhooks/pleo";

    fn subscription(
        url: &str,
        types: &[&str],
        status: &str,
        headers: serde_json::Value,
    ) -> Subscription {
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

    fn desired() -> Desired {
        Desired {
            url: URL.to_owned(),
            event_types: vec!["a".to_owned(), "b".to_owned()],
            headers: BTreeMap::from([("x-tenant".to_owned(), "acme".into())]),
            auth: Some(EndpointAuth::basic("user", "hunter2")),
        }
    }

    #[test]
    fn creates_missing_subscription_then_keeps_it() {
        let desired = desired();
        let Change::Create(request) = desired.plan(&[], "me").unwrap() else {
            panic!("not created")
        };
        assert_eq!(request.custom_headers[OWNER_HEADER].expose(), "me");
        let mut created = subscription(URL, &["b", "a"], "ACTIVE", json!({}));
        created.custom_headers = request.custom_headers.clone();
        created.endpoint_auth = request.endpoint_auth.clone();
        let kept = desired
            .plan(core::slice::from_ref(&created), "another")
            .unwrap();
        assert_eq!(
            kept,
            Change::Keep { id: created.id },
            "the order of event types does not matter"
        );
    }

    #[test]
    fn updates_only_differences_and_hides_secrets() {
        let old = subscription(
            URL,
            &["a"],
            "INACTIVE",
            json!({ "X-Tenant": "old", "x-other": "stays" }),
        );
        let Change::Update {
            id,
            request,
            differences,
        } = desired().plan(std::slice::from_ref(&old), "me").unwrap()
        else {
            panic!("not updated")
        };
        assert_eq!(id, old.id);
        let expected = [
            "event types: a → a, b",
            "status: INACTIVE → ACTIVE",
            "custom header x-tenant: new value",
            "Basic credentials: new value",
        ];
        assert_eq!(differences, expected);
        let headers: Vec<_> = request
            .custom_headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect();
        let expected = [("x-other", "stays"), ("x-tenant", "acme")];
        assert_eq!(
            headers, expected,
            "a foreign subscription gets no owner header"
        );
    }

    #[test]
    fn update_keeps_unknown_fields() {
        let mut existing = subscription(URL, &["a"], "ACTIVE", json!({ "x-tenant": "acme" }));
        let auth = json!({
            "type": "BASIC",
            "rotation": "weekly",
            "credentials": { "username": "old", "scope": ["a"] },
        });
        existing.endpoint_auth = serde_json::from_value(auth).unwrap();
        existing
            .extra
            .as_map_mut()
            .insert("label".to_owned(), json!({ "color": null }));
        let change = desired()
            .plan(core::slice::from_ref(&existing), "me")
            .unwrap();
        let Change::Update { request, .. } = change else {
            panic!("not updated")
        };
        assert_eq!(request.extra, existing.extra);
        let auth = request.endpoint_auth.unwrap();
        assert_eq!(auth.extra.as_map()["rotation"], "weekly");
        let credentials = auth.credentials.unwrap();
        assert_eq!(credentials.extra.as_map()["scope"], json!(["a"]));
        assert_eq!(credentials.username.unwrap().expose(), "user");
    }

    #[test]
    fn ignores_password_that_pleo_hides() {
        let mut existing = subscription(URL, &["a", "b"], "ACTIVE", json!({ "x-tenant": "acme" }));
        let mut change_with = |auth: serde_json::Value| {
            existing.endpoint_auth = serde_json::from_value(auth).unwrap();
            desired()
                .plan(core::slice::from_ref(&existing), "me")
                .unwrap()
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
        existing.endpoint_auth = serde_json::from_value(json!({ "type": "BASIC" })).unwrap();
        existing.event_types = vec!["a".to_owned()];
        let change = desired()
            .plan(core::slice::from_ref(&existing), "me")
            .unwrap();
        let Change::Update {
            request,
            differences,
            ..
        } = change
        else {
            panic!("not updated")
        };
        assert_eq!(differences.len(), 1);
        assert_eq!(
            request.endpoint_auth,
            desired().auth,
            "an update sends the credentials again"
        );
    }

    #[test]
    fn rejects_two_subscriptions_with_same_url() {
        let two = [(); 2].map(|()| subscription(URL, &["a"], "ACTIVE", json!({})));
        let Err(Failure::Run(why)) = desired().plan(&two, "me") else {
            panic!("not rejected")
        };
        assert!(why.contains(&two[1].id.to_string()), "{why}");
    }
}
