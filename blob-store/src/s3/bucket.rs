//! Requests to one bucket. Each has a time limit.

use std::{future::Future, ops::Range, time::Duration};

use bytes::Bytes;
use circuit_breaker::{CircuitBreaker, Outcome, Transition};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload,
    aws::AmazonS3,
    list::{PaginatedListOptions, PaginatedListStore},
    multipart::{MultipartStore, PartId},
    path::Path,
};
use oci_types::Digest;
use tokio::time::{Instant, timeout};

use super::{
    config::{S3Config, S3Timeouts},
    connect::{self, Customize},
};
use crate::{
    BlobMeta, StoreError,
    layout::{key_segments, object_digest, object_directory},
    request_error::{RequestError, RequestErrorKind},
};

/// Throughput below which an upload times out, in bytes per second.
const MIN_THROUGHPUT: u64 = 256 * 1024;

/// Consecutive failed requests that open the circuit, and how long it stays open. Requests with an alternative are then
/// not sent.
const CIRCUIT_FAILURES: u32 = 2;
const CIRCUIT_OPEN_DURATION: Duration = Duration::from_secs(2);

/// The objects of one bucket under one prefix. Its methods must be called on the runtime that opened the store, which
/// owns the connections.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// For requests without blob bytes: retries by itself, within a short time.
    meta_client: AmazonS3,
    /// For blob bytes: callers limit the time and retry.
    data_client: AmazonS3,
    prefix: String,
    directory: Path,
    timeouts: S3Timeouts,
    circuit: CircuitBreaker,
}

impl Bucket {
    pub(super) fn new(config: &S3Config, customize: Customize<'_>) -> Result<Self, StoreError> {
        let meta_client = connect::meta_client(config, customize)?;
        let data_client = connect::data_client(config, &meta_client, customize)?;
        let directory = Path::parse(object_directory(config.prefix())).map_err(StoreError::config)?;
        let circuit = CircuitBreaker::new(CIRCUIT_FAILURES, CIRCUIT_OPEN_DURATION);
        let (prefix, timeouts) = (config.prefix().to_owned(), config.timeouts);
        Ok(Self { meta_client, data_client, prefix, directory, timeouts, circuit })
    }

    /// The key of a blob.
    pub(super) fn key(&self, digest: &Digest) -> Path {
        key_segments(digest).iter().fold(self.directory.clone(), |path, segment| path.join(segment.as_str()))
    }

    /// The object of this key as a blob; `None` for other keys.
    pub(super) fn blob(&self, object: &ObjectMeta) -> Option<BlobMeta> {
        let digest = object_digest(&self.prefix, object.location.as_ref())?;
        Some(BlobMeta { digest, size: object.size, modified_at: object.last_modified.into() })
    }

    pub(super) fn timeouts(&self) -> S3Timeouts {
        self.timeouts
    }

    /// Properties of an object; `None` if it does not exist.
    pub(super) async fn head(&self, key: &Path) -> Result<Option<ObjectMeta>, RequestError> {
        found(self.track(self.meta_client.head(key)).await)
    }

    /// [`Bucket::head`] for callers with an alternative: fails at once while the circuit is open.
    pub(super) async fn head_if_available(&self, key: &Path) -> Result<Option<ObjectMeta>, RequestError> {
        let permit = self.circuit.admit(now()).map_err(|_| RequestError::circuit_open())?;
        let head = within(self.timeouts.answer, self.meta_client.head(key)).await;
        log_transition(permit.record(outcome(&head), now()));
        found(head)
    }

    /// The bytes of a range, which must not be empty. The caller limits the time of each chunk.
    pub(super) async fn get_range(
        &self,
        key: &Path,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, RequestError>>, RequestError> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = self.track(self.data_client.get_opts(key, options)).await?;
        Ok(found.into_stream().map_err(RequestError::from).boxed())
    }

    pub(super) async fn put(&self, key: &Path, bytes: Bytes) -> Result<(), RequestError> {
        let limit = self.upload_limit(&bytes);
        self.track_slow(limit, self.data_client.put(key, PutPayload::from(bytes))).await.map(|_| ())
    }

    pub(super) async fn delete(&self, key: &Path) -> Result<(), RequestError> {
        self.track(self.meta_client.delete(key)).await
    }

    /// Every object below the prefix. An error is the last item.
    pub(super) fn list(&self) -> BoxStream<'static, Result<ObjectMeta, RequestError>> {
        self.meta_client.list(Some(&self.directory)).map_err(RequestError::from).boxed()
    }

    /// Lists one key, to check the address, the bucket and the credentials.
    pub(super) async fn check(&self) -> Result<(), RequestError> {
        let options = PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
        let prefix = format!("{}/", self.directory);
        self.track(self.meta_client.list_paginated(Some(&prefix), options)).await.map(|_| ())
    }

    /// Starts a multipart upload and returns its id.
    pub(super) async fn create_multipart(&self, key: &Path) -> Result<String, RequestError> {
        self.track(self.meta_client.create_multipart(key)).await
    }

    pub(super) async fn put_part(
        &self,
        key: &Path,
        upload: &String,
        index: usize,
        bytes: Bytes,
    ) -> Result<PartId, RequestError> {
        let limit = self.upload_limit(&bytes);
        let payload = PutPayload::from(bytes);
        self.track_slow(limit, self.data_client.put_part(key, upload, index, payload)).await
    }

    /// Makes an object of the parts. After a lost response, the object may exist nevertheless.
    pub(super) async fn complete_multipart(
        &self,
        key: &Path,
        upload: &String,
        parts: Vec<PartId>,
    ) -> Result<(), RequestError> {
        let completed = self.data_client.complete_multipart(key, upload, parts);
        self.track_slow(self.timeouts.complete, completed).await.map(|_| ())
    }

    /// Discards the parts of an upload, if it exists.
    pub(super) async fn abort_multipart(&self, key: &Path, upload: &String) -> Result<(), RequestError> {
        found(self.track(self.meta_client.abort_multipart(key, upload)).await).map(|_| ())
    }

    /// Sends a short request and records its outcome.
    async fn track<T>(
        &self,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, RequestError> {
        let response = within(self.timeouts.answer, request).await;
        log_transition(self.circuit.record(outcome(&response), now()));
        response
    }

    /// Sends a long request. Only its success is recorded: it may fail while the object store is available.
    async fn track_slow<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, RequestError> {
        let response = within(limit, request).await?;
        log_transition(self.circuit.record(Outcome::Success, now()));
        Ok(response)
    }

    fn upload_limit(&self, bytes: &Bytes) -> Duration {
        let seconds = u64::try_from(bytes.len()).unwrap_or(u64::MAX).div_ceil(MIN_THROUGHPUT);
        self.timeouts.answer + Duration::from_secs(seconds)
    }
}

fn found<T>(response: Result<T, RequestError>) -> Result<Option<T>, RequestError> {
    match response {
        Err(error) if error.kind() == RequestErrorKind::NotFound => Ok(None),
        response => response.map(Some),
    }
}

/// A refusal is a response: the object store is available.
fn outcome<T>(response: &Result<T, RequestError>) -> Outcome {
    match response {
        Err(error) if error.kind() == RequestErrorKind::Unavailable => Outcome::Failure,
        _ => Outcome::Success,
    }
}

fn log_transition(transition: Option<Transition>) {
    match transition {
        Some(Transition::Opened) => tracing::debug!("object store unavailable; circuit opened"),
        Some(Transition::Closed) => tracing::debug!("object store available again; circuit closed"),
        None => {}
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn within<T>(
    limit: Duration,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, RequestError> {
    timeout(limit, request).await.map_err(|_| RequestError::timed_out())?.map_err(RequestError::from)
}
