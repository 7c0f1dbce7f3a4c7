//! The requests that are made to a bucket. Each ends in a time that is known before.

use std::{future::Future, ops::Range, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload,
    aws::AmazonS3,
    list::{PaginatedListOptions, PaginatedListStore},
    multipart::{MultipartStore, PartId},
    path::Path,
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    circuit::Circuit,
    config::{S3Config, S3Timeouts},
    connect,
    error::Failure,
};
use crate::{StoreError, layout::object_folder};

/// A link that carries less than this, in bytes a second, counts as broken.
const SLOWEST: u64 = 256 * 1024;

/// The longest pause before something is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The objects of one bucket. Its methods belong on the runtime that outlives every request: connections live
/// where they were made.
#[derive(Debug)]
pub(crate) struct Objects {
    answers: AmazonS3,
    bytes: AmazonS3,
    folder: Path,
    timeouts: S3Timeouts,
    circuit: Circuit,
}

impl Objects {
    pub(super) fn new(config: &S3Config) -> Result<Self, StoreError> {
        let answers = connect::for_answers(config)?;
        let bytes = connect::for_bytes(config, &answers)?;
        let folder = path(&object_folder(config.prefix()))?;
        Ok(Self { answers, bytes, folder, timeouts: config.timeouts, circuit: Circuit::default() })
    }

    /// As [`Objects::size`], for who can do without an answer: not asked while the object store is known to be
    /// away.
    pub(super) async fn size_unless_away(&self, key: &Path) -> Result<Option<u64>, Failure> {
        if !self.circuit.is_closed(std::time::Instant::now()) {
            return Err(Failure::Away("away a moment ago".to_owned()));
        }
        self.size(key).await
    }

    /// Length of an object in bytes; `None` when there is none.
    pub(super) async fn size(&self, key: &Path) -> Result<Option<u64>, Failure> {
        match self.answer(self.answers.head(key)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(Failure::NotFound(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The bytes of `range`, which is not empty. `next` on the stream is to be bounded with
    /// [`S3Timeouts::read`].
    pub(super) async fn get(
        &self,
        key: &Path,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, Failure>>, Failure> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = self.answer(self.bytes.get_opts(key, options)).await?;
        Ok(found.into_stream().map_err(Failure::from).boxed())
    }

    /// Writes a whole object.
    pub(super) async fn put(&self, key: &Path, bytes: Bytes) -> Result<(), Failure> {
        let limit = self.limit_for(&bytes);
        self.taken(limit, self.bytes.put(key, PutPayload::from(bytes))).await.map(|_| ())
    }

    pub(super) async fn delete(&self, key: &Path) -> Result<(), Failure> {
        self.answer(self.answers.delete(key)).await
    }

    /// Every object below the prefix. A page that does not come is an error, and the last item.
    pub(super) fn list(&self) -> BoxStream<'static, Result<ObjectMeta, Failure>> {
        self.answers.list(Some(&self.folder)).map_err(Failure::from).boxed()
    }

    /// Asks for one key: the bucket is there, and we may see into it.
    pub(super) async fn ready(&self) -> Result<(), Failure> {
        let options = PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
        let prefix = format!("{}/", self.folder);
        self.answer(self.answers.list_paginated(Some(&prefix), options)).await.map(|_| ())
    }

    /// Begins a multipart upload and gives its id.
    pub(super) async fn begin(&self, key: &Path) -> Result<String, Failure> {
        self.answer(self.answers.create_multipart(key)).await
    }

    pub(super) async fn put_part(
        &self,
        key: &Path,
        upload: &String,
        index: usize,
        bytes: Bytes,
    ) -> Result<PartId, Failure> {
        let limit = self.limit_for(&bytes);
        self.taken(limit, self.bytes.put_part(key, upload, index, PutPayload::from(bytes))).await
    }

    /// Makes the parts one object. When the answer was lost, the upload may be completed all the same.
    pub(super) async fn complete(
        &self,
        key: &Path,
        upload: &String,
        parts: Vec<PartId>,
    ) -> Result<(), Failure> {
        let completed = self.bytes.complete_multipart(key, upload, parts);
        self.taken(self.timeouts.complete, completed).await.map(|_| ())
    }

    /// Throws the parts of an upload away. An upload that is not there any more counts as thrown away.
    pub(super) async fn abort(&self, key: &Path, upload: &String) -> Result<(), Failure> {
        match self.answer(self.answers.abort_multipart(key, upload)).await {
            Err(Failure::NotFound(_)) => Ok(()),
            answer => answer,
        }
    }

    pub(super) fn timeouts(&self) -> S3Timeouts {
        self.timeouts
    }

    /// Tries `request` again, with longer and longer pauses, as long as the object store is away and `patience`
    /// lasts.
    pub(super) async fn patiently<T, F>(
        &self,
        patience: Duration,
        request: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let give_up_at = Instant::now() + patience;
        let mut pause = Duration::from_millis(100);
        loop {
            match request().await {
                Err(Failure::Away(reason)) if Instant::now() + pause < give_up_at => {
                    tracing::debug!("the object store is away, to be tried again: {reason}");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => return answer,
            }
        }
    }

    async fn answer<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
        let answer = within(self.timeouts.answer, request).await;
        match &answer {
            Err(Failure::Away(_)) => self.circuit.failed(std::time::Instant::now()),
            _ => self.circuit.answered(),
        }
        answer
    }

    /// Sends what takes long. That it fails says little of whether the object store answers; that it succeeds says all.
    async fn taken<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Failure> {
        let taken = within(limit, request).await?;
        self.circuit.answered();
        Ok(taken)
    }

    fn limit_for(&self, bytes: &Bytes) -> Duration {
        let seconds = u64::try_from(bytes.len()).unwrap_or(u64::MAX).div_ceil(SLOWEST);
        self.timeouts.answer + Duration::from_secs(seconds)
    }
}

/// The path with these segments, if an object may have it.
pub(super) fn path(key: &str) -> Result<Path, StoreError> {
    Path::parse(key).map_err(|error| StoreError::Settings(error.to_string()))
}

async fn within<T>(
    limit: Duration,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, Failure> {
    timeout(limit, request).await.map_err(|_| Failure::too_late())?.map_err(Failure::from)
}
