//! Finding the signature headers among all headers.

use std::collections::{BTreeMap, HashMap};

use http::{HeaderMap, HeaderName, HeaderValue};
use pleo_webhook_verify::Header::{Id, Signature, Timestamp};
use pleo_webhook_verify::{SignatureHeaders, Verifier, VerifyError};

use crate::support::{NOW, secret};

fn check(headers: &[(&str, &str)]) -> Result<(), VerifyError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    Verifier::new(secret(1))
        .verify(&SignatureHeaders::from_pairs(&map)?, b"{}", NOW)
        .map(drop)
}

#[test]
fn takes_headers_from_one_set() {
    let good = secret(1).sign("msg_1", NOW, b"{}").unwrap();
    let good = good.as_str();
    let at = "1614265330";
    let missing = |header| Err(VerifyError::MissingHeader { header });
    let webhook = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", at),
        ("webhook-signature", good),
    ];
    let svix = [
        ("svix-id", "msg_1"),
        ("svix-timestamp", at),
        ("svix-signature", good),
    ];
    let bad_svix = [
        ("svix-id", "msg_1"),
        ("svix-timestamp", at),
        ("svix-signature", "v1,AA=="),
    ];

    assert_eq!(check(&webhook), Ok(()));
    assert_eq!(check(&svix), Ok(()));
    assert_eq!(check(&[&webhook[..], &bad_svix].concat()), Ok(()));
    assert_eq!(
        check(&[&webhook[..1], &svix[1..]].concat()),
        missing(Timestamp)
    );
    assert_eq!(check(&[&svix[..1], &webhook[1..]].concat()), missing(Id));
    assert_eq!(check(&svix[..2]), missing(Signature));
    assert_eq!(check(&[&webhook[..1], &svix].concat()), Ok(()));
    assert_eq!(check(&[]), missing(Id));
}

#[test]
fn rejects_duplicated_header() {
    let good = secret(1).sign("msg_1", NOW, b"{}").unwrap();
    let all = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", good.as_str()),
    ];
    for (again, header) in all.into_iter().zip([Id, Timestamp, Signature]) {
        assert_eq!(
            check(&[&all[..], &[again]].concat()),
            Err(VerifyError::DuplicateHeader { header })
        );
    }
}

#[test]
fn takes_maps_and_iterators() {
    let values = |headers: Result<SignatureHeaders<'_>, VerifyError>| {
        let headers = headers.unwrap();
        [headers.id(), headers.timestamp(), headers.signature()]
            .map(|value| value.unwrap().to_vec())
    };
    let pairs = [
        ("Webhook-Id", "msg_1"),
        ("Webhook-Timestamp", "1"),
        ("Webhook-Signature", "v1,"),
        ("Host", "a.b"),
    ];
    let expected = ["msg_1", "1", "v1,"].map(|value| value.as_bytes().to_vec());

    assert_eq!(values(SignatureHeaders::from_pairs(pairs)), expected);
    let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let slice = owned.iter().map(|(name, value)| (name, value));
    assert_eq!(values(SignatureHeaders::from_pairs(slice)), expected);
    let map = HashMap::from(owned);
    assert_eq!(values(SignatureHeaders::from_pairs(&map)), expected);
    let map: BTreeMap<_, _> = pairs.map(|(name, value)| (name, value.as_bytes())).into();
    assert_eq!(values(SignatureHeaders::from_pairs(&map)), expected);
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.insert(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::from_static(value),
        );
    }
    assert_eq!(values(SignatureHeaders::from_pairs(&map)), expected);
}
