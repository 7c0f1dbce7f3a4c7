//! Upload of a blob during its download.

mod context;
mod plan;
mod record;
mod source;
mod uploader;

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

pub(super) use self::{context::UploadContext, record::UploadRecord, uploader::Uploader};
use crate::{Partial, StoreError};

/// Multipart upload of a blob in the background, while it is downloaded. The download does not depend on it: if it fails,
/// the commit uploads the blob from its partial file.
///
/// Dropping it aborts the upload in the background.
#[derive(Debug)]
pub struct Upload {
    progress: watch::Sender<Progress>,
    /// Dropped to stop the task.
    _stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), StoreError>>,
}

/// Progress of the download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The bytes before this offset are in the partial file.
    Written(u64),
    /// All bytes are in the partial file, and match the digest.
    Verified(u64),
}

impl Upload {
    /// Starts the task. `None` for an upload session: its key is known only with its digest.
    pub(super) fn start(context: &UploadContext, partial: &Partial) -> Option<Self> {
        let mut uploader = Uploader::new(context, partial, partial.id().digest()?);
        let (progress, receiver) = watch::channel(Progress::Written(0));
        let (stop, stopped) = oneshot::channel();
        let task = context.runtime.spawn(async move {
            let result = tokio::select! {
                result = follow(&mut uploader, receiver) => result,
                _ = stopped => Err(StoreError::Closed),
            };
            if let Err(error) = &result {
                tracing::debug!(digest = %uploader.digest(), %error, "upload stopped");
                uploader.abort().await;
            }
            result
        });
        Some(Self { progress, _stop: stop, task })
    }

    /// Reports that all bytes of the partial file before `end` are written. Whole parts are uploaded in the background;
    /// returns at once. These bytes must not change any more: after they are discarded, start another upload.
    pub fn advance(&self, end: u64) {
        self.progress.send_if_modified(|progress| match progress {
            Progress::Written(before) if *before < end => {
                *before = end;
                true
            }
            _ => false,
        });
    }

    /// Aborts the upload and waits for the response. If the object store is unavailable,
    /// [`crate::BlobStore::sweep_partials`] repeats it.
    pub async fn abort(self) {
        let Self { progress: _progress, _stop: stop, task } = self;
        drop(stop);
        // The task logs its result.
        let _ = task.await;
    }

    /// Uploads the rest of a verified blob of `size` bytes and completes the object.
    pub(super) async fn complete(self, size: u64) -> Result<(), StoreError> {
        self.progress.send_replace(Progress::Verified(size));
        self.task.await.map_err(|_| StoreError::Stopped)?
    }
}

async fn follow(uploader: &mut Uploader, mut progress: watch::Receiver<Progress>) -> Result<(), StoreError> {
    // Ends with the sender of the progress.
    loop {
        let current = *progress.borrow_and_update();
        match current {
            Progress::Written(end) => uploader.advance(end).await?,
            Progress::Verified(size) => return uploader.complete(size).await,
        }
        progress.changed().await.map_err(|_| StoreError::Closed)?;
    }
}
