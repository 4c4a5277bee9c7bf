//! Making signatures.

use pleo_webhook_verify::Secret;

use crate::support::{NOW, SECRET, secret};

#[test]
fn signs_published_sample() {
    let secret: Secret = SECRET.parse().unwrap();
    let signature = secret
        .sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            NOW,
            b"{\"test\": 2432232314}",
        )
        .unwrap();
    assert_eq!(
        signature.as_str(),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
    assert_eq!(signature.to_string(), signature.as_str());
    assert_eq!(AsRef::<str>::as_ref(&signature), signature.as_str());
    assert_eq!(
        format!("{signature:?}"),
        "Signature(\"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\")"
    );
}

#[test]
fn refuses_to_sign_invalid_id() {
    let error = secret(1).sign("msg_a.b", NOW, b"").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the webhook id is not 1 to 256 visible ASCII characters without a full stop"
    );
}
