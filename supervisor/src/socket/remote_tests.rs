use std::sync::Arc;

use bulkhead_api::document::ApiError;
use bulkhead_api::receipt::{Receipt, SignedReceipt};
use bulkhead_api::spec::Base64;
use bulkhead_api::status::HostStatus;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use super::super::tests::status;
use super::*;
use crate::events::Events;
use crate::paths::Paths;
use crate::receipts::shelf::Shelf;
use crate::testing::host_id;

/// The interface as the registry reaches it.
fn from_far() -> (TempDir, Interface, watch::Sender<Arc<HostStatus>>) {
    let dir = tempfile::tempdir().unwrap();
    let status = watch::Sender::new(Arc::new(status()));
    let view = View {
        status: status.subscribe(),
        events: Events::new(4),
        paths: Paths::below(dir.path()),
        asks: mpsc::channel(1).0,
        user: 0,
    };
    (dir, Interface::new(view), status)
}

fn question(path: &str) -> Question {
    Question { id: 7, path: path.to_owned(), ..Question::default() }
}

#[tokio::test]
async fn the_registry_is_answered_what_the_socket_answers() {
    let (_dir, interface, _status) = from_far();
    let answer = interface.answer(question("/v1/host")).await;
    let host: HostStatus = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.id, answer.status, host.host), (7, 200, host_id()));
    for (path, status) in
        [("/v1/leases/acme/b", 404), ("/v1/receipts?after=x", 400), ("/v1/ledger/repair", 405)]
    {
        let answer = interface.answer(question(path)).await;
        let error: ApiError = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.id, answer.status), (7, status), "{path}: {}", error.message);
    }
    let order = Question { order: true, body: "{".into(), ..question("/v1/ledger/repair") };
    let answer = interface.answer(order).await;
    assert_eq!(answer.status, 400);
    let busy = interface.busy(&question("/v1/host")).await;
    let error: ApiError = serde_json::from_slice(&busy.body).unwrap();
    assert_eq!((busy.status, error.reason.as_str()), (503, "Busy"));
}

#[tokio::test]
async fn an_answer_that_is_too_large_for_the_link_says_so() {
    let (dir, interface, _status) = from_far();
    let shelf = Shelf::<Receipt>::new(Paths::below(dir.path()).receipts());
    let large = SignedReceipt::new(Base64(vec![0; MOST]), String::new(), Base64(vec![]));
    shelf.write(1, &large).unwrap();
    let answer = interface.answer(question("/v1/receipts")).await;
    let error: ApiError = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, error.reason.as_str()), (413, "TooLarge"), "{}", error.message);
}

proptest::proptest! {
    #[test]
    fn any_question_is_answered(path in ".*", order: bool, body: Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_dir, interface, _status) = from_far();
            let answer = interface.answer(Question { id: 1, path, order, body: body.into() }).await;
            assert!(answer.status >= 400 && serde_json::from_slice::<ApiError>(&answer.body).is_ok());
        });
    }
}
