//! Resources that all uploads of a store share.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{StoreError, s3::bucket::Bucket};

/// Memory for the parts of all uploads, in units of [`UNIT`] bytes.
const MAX_UNITS: u32 = 256;
const UNIT: u64 = 1024 * 1024;

/// Shared parts of all uploads. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct UploadContext {
    pub(crate) bucket: Arc<Bucket>,
    /// Size of a part in bytes.
    pub(crate) part_size: u64,
    /// Directory of the records of uploads.
    pub(crate) records: PathBuf,
    pub(crate) runtime: Handle,
    memory: Arc<Semaphore>,
}

impl UploadContext {
    pub(crate) fn new(bucket: Arc<Bucket>, part_size: u64, records: PathBuf, runtime: Handle) -> Self {
        let units = usize::try_from(MAX_UNITS).unwrap_or(Semaphore::MAX_PERMITS);
        Self { bucket, part_size, records, runtime, memory: Arc::new(Semaphore::new(units)) }
    }

    /// Waits for memory for `bytes`, or for all of it if that is less.
    pub(super) async fn reserve_memory(&self, bytes: u64) -> Result<OwnedSemaphorePermit, StoreError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(MAX_UNITS);
        let memory = Arc::clone(&self.memory);
        memory.acquire_many_owned(units).await.map_err(|_| StoreError::Stopped)
    }
}
