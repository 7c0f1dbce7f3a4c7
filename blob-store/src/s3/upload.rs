//! Uploading a blob while it is filled.

mod plan;
mod record;
mod uploader;

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

pub(super) use self::{
    record::UploadRecord,
    uploader::{Memory, Uploader, Uploads},
};
use crate::{Partial, StoreError};

/// The upload of a blob that is being filled, in the background. Nobody waits for it before the commit, and the
/// fill does not depend on it: when the object store is away for too long, the commit uploads the blob from its
/// file.
///
/// Dropped, it throws away what was uploaded, in the background.
#[derive(Debug)]
pub struct Upload {
    told: watch::Sender<Told>,
    /// Dropped to stop.
    _stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), StoreError>>,
}

/// What the fill says of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The bytes before this offset are in the file.
    Landed(u64),
    /// All of them are, and they are verified.
    Verified(u64),
}

impl Upload {
    /// Begins with nothing; to be called on the store's runtime.
    pub(super) fn start(uploads: &Uploads, partial: &Partial) -> Self {
        let (told, mut heard) = watch::channel(Told::Landed(0));
        let (stop, stopped) = oneshot::channel();
        let mut uploader = Uploader::new(uploads, partial);
        let task = uploads.runtime.spawn(async move {
            let done = tokio::select! {
                done = follow(&mut uploader, &mut heard) => done,
                _ = stopped => Err(StoreError::Closed),
            };
            if let Err(error) = &done {
                tracing::debug!(digest = %uploader.digest(), "an upload was given up: {error}");
                uploader.abort().await;
            }
            done
        });
        Self { told, _stop: stop, task }
    }

    /// Says that the bytes of the partial before this offset are there, in order. Parts of them are uploaded in
    /// the background; returns at once. What lies before an offset that was told is not to change: who throws
    /// bytes away drops the upload, and begins another.
    pub fn advance(&self, landed_in_order: u64) {
        self.told.send_if_modified(|told| match told {
            Told::Landed(before) if *before < landed_in_order => {
                *before = landed_in_order;
                true
            }
            _ => false,
        });
    }

    /// Throws away what was uploaded, and waits until that is done or the object store does not do it: then it is
    /// tried again by [`crate::S3Store::sweep_partials`].
    pub async fn abort(self) {
        let Self { told: _told, _stop: stop, task } = self;
        drop(stop);
        // How it ended was logged.
        let _ = task.await;
    }

    /// Uploads the rest of a verified blob of `size` bytes and makes it an object.
    pub(super) async fn complete(self, size: u64) -> Result<(), StoreError> {
        self.told.send_replace(Told::Verified(size));
        self.task.await.map_err(|_| StoreError::Stopped)?
    }
}

async fn follow(uploader: &mut Uploader, heard: &mut watch::Receiver<Told>) -> Result<(), StoreError> {
    loop {
        let told = *heard.borrow_and_update();
        match told {
            Told::Landed(landed) => uploader.advance(landed).await?,
            Told::Verified(size) => return uploader.complete(size).await,
        }
        heard.changed().await.map_err(|_| StoreError::Closed)?;
    }
}
