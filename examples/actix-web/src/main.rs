//! An actix-web handler that verifies webhooks. actix-web uses version 0.2 of `http`.
//!
//! ```sh
//! PLEO_WEBHOOK_SECRET=whsec_… cargo run -p example-actix-web
//! ```

use std::error::Error;

use actix_web::rt::System;
use actix_web::web::{self, Bytes, Data, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use pleo_webhook_verify::{SignatureHeaders, Verified, Verifier};

fn main() -> Result<(), Box<dyn Error>> {
    let verifier = Verifier::new(std::env::var("PLEO_WEBHOOK_SECRET")?.parse()?);
    let app = routes(verifier);
    let server = HttpServer::new(move || App::new().configure(app.clone()));
    System::new().block_on(server.bind("127.0.0.1:8080")?.run())?;
    Ok(())
}

fn routes(verifier: Verifier) -> impl Fn(&mut ServiceConfig) + Clone {
    let verifier = Data::new(verifier);
    move |config| {
        config
            .app_data(Data::clone(&verifier))
            .route("/webhooks/pleo", web::post().to(webhook));
    }
}

async fn webhook(request: HttpRequest, body: Bytes, verifier: Data<Verifier>) -> HttpResponse {
    let verified = SignatureHeaders::from_pairs(request.headers())
        .and_then(|headers| verifier.verify_now(&headers, body));
    match verified {
        Ok(delivery) => store(&delivery),
        Err(error) => HttpResponse::Unauthorized().body(error.code()),
    }
}

/// Takes only a verified delivery.
fn store(delivery: &Verified<Bytes>) -> HttpResponse {
    // Store it durably, once per id, before the response.
    let (_id, _body) = (delivery.id(), delivery.body());
    HttpResponse::NoContent().finish()
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::test::{TestRequest, call_service, init_service};
    use pleo_webhook_verify::{Secret, unix_now};

    use super::*;

    #[test]
    fn accepts_signed_and_rejects_forged_request() {
        System::new().block_on(async {
            let secret = Secret::from_bytes(&[7; 24]).unwrap();
            let signature = secret.sign("msg_1", unix_now(), b"{}").unwrap();
            let app = init_service(App::new().configure(routes(Verifier::new(secret)))).await;
            for (body, status) in [
                ("{}", StatusCode::NO_CONTENT),
                ("[]", StatusCode::UNAUTHORIZED),
            ] {
                let request = TestRequest::post()
                    .uri("/webhooks/pleo")
                    .insert_header(("webhook-id", "msg_1"))
                    .insert_header(("webhook-timestamp", unix_now().to_string()))
                    .insert_header(("webhook-signature", signature.as_str()))
                    .set_payload(body);
                let response = call_service(&app, request.to_request()).await;
                assert_eq!(response.status(), status);
            }
        });
    }
}
