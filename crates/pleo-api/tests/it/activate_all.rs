//! The example `activate_all` goes on after errors.

use pleo_api::{Status, SubscriptionQuery};
use pleo_sandbox::Fault;

use crate::support::{first_page, request, start};

#[allow(dead_code, reason = "the test calls a function of the example")]
#[path = "../../examples/activate_all.rs"]
mod example;

#[tokio::test]
async fn goes_on_after_failed_page_and_failed_update() {
    let (pleo, client, _) = start().await;
    let request = request().with_status(Status::Inactive);
    for _ in 0..25 {
        client.subscriptions().create(&request).await.unwrap();
    }
    // Pleo rejects the first update, and cannot answer the request of the second page until the
    // client gives up.
    let unavailable = core::iter::repeat_n(Fault::retry_after(503, "0"), 5);
    pleo.fail_next([Fault::None, Fault::status(400)]);
    pleo.fail_next(core::iter::repeat_n(Fault::None, 19));
    pleo.fail_next(unavailable);

    example::activate_all(&client).await.unwrap();
    let inactive = SubscriptionQuery::all().with_status(Status::Inactive);
    let inactive = first_page(&client, inactive).await.unwrap().data;
    assert_eq!(inactive.len(), 1, "only the rejected update");
}
