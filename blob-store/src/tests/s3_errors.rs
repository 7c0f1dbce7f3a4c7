//! Classification of error responses, with the production HTTP client and a real S3 server.

use std::error::Error;

use tempfile::TempDir;

use super::{
    s3_server::{Fault, S3Server},
    *,
};
use crate::{RequestError, RequestErrorKind};

/// The error of a failed `check`, whose request is a `GET` with a body in its response.
async fn check_error(store: &BlobStore) -> RequestError {
    match store.check().await.unwrap_err() {
        StoreError::Unavailable { source, .. } => source,
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn error_responses_are_classified_by_status_and_described_by_status_and_code() {
    use RequestErrorKind::{NotFound, Refused, Unavailable};
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, None);
    for (status, code, kind) in [
        (400, "InvalidRequest", Refused),
        (401, "AccessDenied", Refused),
        (403, "InvalidAccessKeyId", Refused),
        (404, "NoSuchBucket", NotFound),
        (405, "MethodNotAllowed", Refused),
        (408, "RequestTimeout", Unavailable),
        (409, "OperationAborted", Refused),
        (412, "PreconditionFailed", Refused),
        (429, "TooManyRequests", Unavailable),
        (500, "InternalError", Unavailable),
        (501, "NotImplemented", Unavailable),
        (503, "SlowDown", Unavailable),
    ] {
        server.set_fault(move |_, _| Fault::Error(status, code));
        let error = check_error(&store).await;
        assert_eq!((error.kind(), error.to_string()), (kind, format!("{status} {code}")));
        assert!(error.source().is_none(), "a response is the whole cause");

        server.set_fault(move |_, _| Fault::Status(status));
        let error = check_error(&store).await;
        assert_eq!((error.kind(), error.to_string()), (kind, format!("status {status}")));
    }
}

#[tokio::test]
async fn uploads_and_reads_are_classified_like_other_requests() {
    let (server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, None);
    let digest = store_blob(&store, b"x").await.unwrap();
    let blob = store.get(&digest).await.unwrap().unwrap();
    for (status, code) in [(400, "InvalidArgument"), (403, "AccessDenied"), (503, "ServiceUnavailable")] {
        server.set_fault(move |_, _| Fault::Error(status, code));
        let before = server.requests("GET", "");
        let error = read_range(&blob, 0..1).await.unwrap_err().to_string();
        assert!(error.ends_with(&format!(": {status} {code}")), "{error}");
        let requests = server.requests("GET", "") - before;
        assert_eq!(requests, if status == 503 { 4 } else { 1 }, "a refused request is not retried");

        server.set_fault(
            move |method, _| if method == "PUT" { Fault::Error(status, code) } else { Fault::None },
        );
        if status != 503 {
            let before = server.requests("PUT", "");
            let error = store_blob(&store, b"another").await.unwrap_err().to_string();
            assert!(error.ends_with(&format!(": {status} {code}")), "{error}");
            assert_eq!(server.requests("PUT", "") - before, 2, "once by the upload, once by the commit");
        }
    }
}

#[tokio::test]
async fn a_transport_failure_keeps_its_source() {
    let (mut server, root) = (S3Server::start().await, TempDir::new().unwrap());
    let store = server.store(&root, None);
    server.stop().await;
    let error = store.check().await.unwrap_err();
    let mut innermost: &dyn Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let io = innermost.downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(io.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(error.to_string(), format!("object store failed to list the bucket: {io}"));
    let StoreError::Unavailable { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), RequestErrorKind::Unavailable);
}
