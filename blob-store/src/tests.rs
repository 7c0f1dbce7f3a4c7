//! The contract of the store, over real files and a real S3 server.

mod contract;
mod s3_cache;
mod s3_errors;
mod s3_read;
mod s3_server;
mod s3_unavailable;
mod s3_uploads;

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use oci_types::Digest;

use crate::{BlobMeta, BlobStore, StoreError, StoredBlob};

/// Bytes that differ from offset to offset, and from seed to seed.
fn layer(length: usize, seed: u8) -> Vec<u8> {
    (0..=250_u8).cycle().skip(seed.into()).take(length).collect()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

/// Stores a blob in the steps of a download.
async fn store_blob(store: &BlobStore, bytes: &[u8]) -> Result<Digest, StoreError> {
    let digest = Digest::sha256(bytes);
    let partial = store.open_partial(&digest, Some(length(bytes))).await?;
    let upload = store.start_upload(&partial);
    let mut written = 0;
    for piece in bytes.chunks(1024 * 1024) {
        partial.blocking().write_at(written, piece)?;
        written += length(piece);
        if let Some(upload) = &upload {
            upload.advance(written);
        }
    }
    store.commit(&partial, &digest, written, upload).await?;
    Ok(digest)
}

async fn read_range(blob: &StoredBlob, range: std::ops::Range<u64>) -> Result<Vec<u8>, StoreError> {
    match blob {
        StoredBlob::File(blob) => {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
            std::os::unix::fs::FileExt::read_exact_at(&*blob.file, &mut bytes, range.start).unwrap();
            Ok(bytes)
        }
        StoredBlob::Object(object) => {
            let chunks: Vec<Bytes> = object.get_range(range).try_collect().await?;
            Ok(chunks.concat())
        }
    }
}

async fn read_blob(store: &BlobStore, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(blob) = store.get(digest).await? else { return Ok(None) };
    read_range(&blob, 0..blob.size()).await.map(Some)
}

async fn list(store: &BlobStore) -> Vec<(Digest, u64)> {
    let blobs: Vec<BlobMeta> = store.list().try_collect().await.unwrap();
    let mut blobs: Vec<_> = blobs.into_iter().map(|blob| (blob.digest, blob.size)).collect();
    blobs.sort();
    blobs
}

/// Waits for a condition that background work fulfils.
pub(crate) async fn eventually(condition: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..12_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("timed out waiting until {condition}");
}
