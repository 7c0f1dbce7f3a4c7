//! From a partial file to an object: one `PUT`, or a multipart upload.

use std::{collections::BTreeMap, sync::Arc};

use object_store::{multipart::PartId, path::Path};
use oci_types::Digest;
use tokio::task::{JoinError, JoinSet};

use super::{
    context::UploadContext,
    plan::PartPlan,
    record::{MultipartId, UploadRecord},
    source::UploadSource,
};
use crate::{Partial, StoreError, request_error::RequestError, s3::retry::retry_while_unavailable};

/// Parts of one blob that are sent at the same time, and their bytes; one part is always sent.
const MAX_CONCURRENT_PARTS: u64 = 4;
const MAX_CONCURRENT_BYTES: u64 = 64 * 1024 * 1024;

/// Uploads one blob.
pub(crate) struct Uploader {
    context: UploadContext,
    digest: Digest,
    key: Path,
    source: UploadSource,
    plan: PartPlan,
    multipart: Option<Multipart>,
    running: JoinSet<Result<(usize, PartId), RequestError>>,
    done: BTreeMap<usize, PartId>,
}

struct Multipart {
    id: String,
    /// `None` until the record is written, right after the upload is created.
    record: Option<UploadRecord>,
    /// Number of parts that were started.
    parts: usize,
}

impl Uploader {
    pub(crate) fn new(context: &UploadContext, partial: &Partial, digest: &Digest) -> Self {
        Self {
            key: context.bucket.key(digest),
            source: UploadSource::new(partial, digest),
            plan: PartPlan::new(context.part_size, partial.size()),
            context: context.clone(),
            digest: digest.clone(),
            multipart: None,
            running: JoinSet::new(),
            done: BTreeMap::new(),
        }
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Uploads the whole parts before the offset `end`.
    pub(crate) async fn advance(&mut self, end: u64) -> Result<(), StoreError> {
        // Each round uploads a part.
        loop {
            let length = self.plan.length(self.multipart.as_ref().map_or(0, |multipart| multipart.parts));
            if end.saturating_sub(self.source.offset()) < length {
                return Ok(());
            }
            self.put_part(length).await?;
        }
    }

    /// Uploads the rest of a blob of `size` bytes and completes the object. A blob of one part is put at once.
    pub(crate) async fn complete(&mut self, size: u64) -> Result<(), StoreError> {
        if self.multipart.is_none() && size <= self.plan.length(0) {
            return self.put_whole(size).await;
        }
        self.advance(size).await?;
        let rest = size.saturating_sub(self.source.offset());
        if rest > 0 {
            self.put_part(rest).await?;
        }
        while let Some(part) = self.running.join_next().await {
            self.part_done(part)?;
        }
        self.source.verify(&self.digest)?;
        let Some(multipart) = self.multipart.take() else { return Ok(()) };
        let parts: Vec<PartId> = std::mem::take(&mut self.done).into_values().collect();
        match self.complete_multipart(&multipart.id, parts, size).await {
            Ok(()) => self.blocking(move || multipart.record.map(UploadRecord::remove)).await.map(|_| ()),
            Err(error) => {
                self.multipart = Some(multipart);
                Err(error.context("complete the upload of", &self.key))
            }
        }
    }

    /// Aborts the multipart upload, if there is one. If that fails, its record remains for the next sweep.
    pub(crate) async fn abort(&mut self) {
        self.running.shutdown().await;
        let Some(multipart) = self.multipart.take() else { return };
        match self.context.bucket.abort_multipart(&self.key, &multipart.id).await {
            // If the runtime stops first, the next sweep aborts the upload again.
            Ok(()) => drop(self.blocking(move || multipart.record.map(UploadRecord::remove)).await),
            Err(error) => {
                tracing::warn!(key = %self.key, %error, "failed to abort a multipart upload; the next sweep repeats it");
            }
        }
    }

    async fn put_whole(&mut self, size: u64) -> Result<(), StoreError> {
        let _memory = self.context.reserve_memory(size).await?;
        let bytes = self.source.read(size).await?;
        self.source.verify(&self.digest)?;
        let bucket = &self.context.bucket;
        let written =
            retry_while_unavailable(bucket.timeouts().upload, || bucket.put(&self.key, bytes.clone())).await;
        written.map_err(|error| error.context("write", &self.key))
    }

    /// Reads the next part and starts to send it.
    async fn put_part(&mut self, length: u64) -> Result<(), StoreError> {
        let limit = (MAX_CONCURRENT_BYTES / length.max(1)).clamp(1, MAX_CONCURRENT_PARTS);
        while u64::try_from(self.running.len()).unwrap_or(u64::MAX) >= limit {
            let Some(part) = self.running.join_next().await else { break };
            self.part_done(part)?;
        }
        if self.multipart.is_none() {
            self.create_multipart().await?;
        }
        let memory = self.context.reserve_memory(length).await?;
        let bytes = self.source.read(length).await?;
        let multipart = self.multipart.as_mut().ok_or(StoreError::Closed)?;
        let (id, index) = (multipart.id.clone(), multipart.parts);
        multipart.parts += 1;
        let (bucket, key) = (Arc::clone(&self.context.bucket), self.key.clone());
        self.running.spawn(async move {
            let put = || bucket.put_part(&key, &id, index, bytes.clone());
            let part = retry_while_unavailable(bucket.timeouts().upload, put).await?;
            drop(memory);
            Ok((index, part))
        });
        Ok(())
    }

    async fn create_multipart(&mut self) -> Result<(), StoreError> {
        let bucket = &self.context.bucket;
        let created =
            retry_while_unavailable(bucket.timeouts().upload, || bucket.create_multipart(&self.key)).await;
        let id = created.map_err(|error| error.context("start the upload of", &self.key))?;
        let upload = MultipartId { key: self.key.to_string(), id: id.clone() };
        // Set before the record is written, so that a stop before that point aborts the upload.
        self.multipart = Some(Multipart { id, record: None, parts: 0 });
        let (records, digest) = (self.context.records.clone(), self.digest.clone());
        let record = self.blocking(move || UploadRecord::create(&records, &digest, &upload)).await??;
        if let Some(multipart) = &mut self.multipart {
            multipart.record = Some(record);
        }
        Ok(())
    }

    /// Completes the upload. The response to a successful request may be lost, so an existing
    /// object of the right size counts as success.
    async fn complete_multipart(
        &self,
        id: &String,
        parts: Vec<PartId>,
        size: u64,
    ) -> Result<(), RequestError> {
        let bucket = &self.context.bucket;
        let complete = || bucket.complete_multipart(&self.key, id, parts.clone());
        match retry_while_unavailable(bucket.timeouts().upload, complete).await {
            Ok(()) => Ok(()),
            Err(error) => match bucket.head(&self.key).await {
                Ok(Some(object)) if object.size == size => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn part_done(
        &mut self,
        part: Result<Result<(usize, PartId), RequestError>, JoinError>,
    ) -> Result<(), StoreError> {
        let part = part.map_err(|_| StoreError::Stopped)?;
        let (index, id) = part.map_err(|error| error.context("write a part of", &self.key))?;
        self.done.insert(index, id);
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.context.runtime.spawn_blocking(work).await.map_err(|_| StoreError::Stopped)
    }
}
