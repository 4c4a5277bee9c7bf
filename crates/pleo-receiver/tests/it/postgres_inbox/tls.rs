//! TLS and passwords of the connections.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use pleo_receiver::PostgresInbox;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::task;

use super::{append_until_stored, execute, refused, start};
use crate::support::postgres::Server;

/// Makes an authority, and writes its certificate.
fn authority(file: &Path) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(file, issuer.pem()).unwrap();
    issuer
}

fn url(server: &Server, host: &str, options: &str) -> String {
    let port = server.port();
    format!("postgres://postgres@{host}:{port}/postgres?schema=tls&{options}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifies_certificate_as_sslmode_says() {
    let Some(server) = start(&[]) else { return };
    let folder = TempDir::new().unwrap();
    let [trusted, other] = ["trusted.pem", "other.pem"].map(|name| folder.path().join(name));
    authority(&other);
    let plain = refused(&url(&server, "localhost", "sslmode=require")).await;
    assert!(plain.contains("TLS"), "{plain}");

    let issuer = authority(&trusted);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    task::block_in_place(|| server.enable_tls(&certificate.pem(), &key.serialize_pem()));
    let [trusted, other] = [trusted, other].map(|path| path.display().to_string());
    for (host, mode, roots, is_accepted) in [
        ("localhost", "verify-full", &trusted, true),
        ("127.0.0.1", "verify-full", &trusted, false),
        ("localhost", "verify-full", &other, false),
        ("127.0.0.1", "verify-ca", &trusted, true),
        ("localhost", "verify-ca", &other, false),
        ("localhost", "require", &other, true),
        ("localhost", "prefer", &other, true),
        // The machine does not trust our authority.
        ("localhost", "verify-full", &"system".to_owned(), false),
    ] {
        // Without verification, authorities are refused.
        let roots = match mode {
            "require" | "prefer" => String::new(),
            _ => format!("&sslrootcert={roots}"),
        };
        let url = url(&server, host, &format!("sslmode={mode}{roots}"));
        if !is_accepted {
            let error = refused(&url).await;
            let is_expected = error.contains("certificate") || error.contains("root");
            assert!(is_expected, "{mode} {host} {roots}: {error}");
            continue;
        }
        let inbox = PostgresInbox::open(&url).await.unwrap();
        append_until_stored(&inbox, &format!("{mode} {host}")).await;
        let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                         WHERE application_name = 'pleo-receiver'";
        let encrypted = execute(&server, encrypted);
        assert_eq!(encrypted.trim(), "t", "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_comes_from_url_or_file() {
    let Some(server) = start(&[]) else { return };
    task::block_in_place(|| {
        server.require_password("pleo");
        server.execute("CREATE ROLE pleo LOGIN SUPERUSER PASSWORD 's3cret:'");
    });
    let port = server.port();
    let url = |user: &str, options: &str| {
        format!("postgres://{user}@127.0.0.1:{port}/postgres?schema=passwords{options}")
    };
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("passwords");
    fs::write(&file, format!("127.0.0.1:{port}:postgres:pleo:s3cret\\:\n")).unwrap();
    let passfile = format!("&passfile={}", file.display());

    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let error = refused(&url("pleo", &passfile)).await;
    assert!(error.contains("chmod 600"), "{error}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    for url in [url("pleo", &passfile), url("pleo:s3cret%3A", "")] {
        let inbox = PostgresInbox::open(&url).await.unwrap();
        append_until_stored(&inbox, "first").await;
        assert!(!format!("{inbox:?}").contains("s3cret"));
    }
    let error = refused(&url("pleo:wr0ng", "")).await;
    assert!(error.contains("password authentication failed"), "{error}");
    assert!(!error.contains("wr0ng"), "{error}");
}
