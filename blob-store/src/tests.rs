//! What the stores promise, over real files and a real S3 server.

mod contract;
mod s3_cache;
mod s3_server;
mod s3_unavailable;
mod s3_uploads;

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use oci_types::Digest;

use crate::{BlobStore, StoreError, StoredAt};

/// Bytes that differ from offset to offset, and from seed to seed.
fn layer(length: usize, seed: u8) -> Vec<u8> {
    (0..=250_u8).cycle().skip(seed.into()).take(length).collect()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

/// Fills and commits a blob the way a fill does it.
async fn store_blob(store: &BlobStore, bytes: &[u8]) -> Result<Digest, StoreError> {
    let digest = Digest::sha256(bytes);
    let partial = store.begin(&digest, Some(length(bytes))).await?;
    let upload = store.upload(&partial);
    let mut landed = 0;
    for piece in bytes.chunks(1024 * 1024) {
        partial.write_at(landed, piece)?;
        landed += length(piece);
        if let Some(upload) = &upload {
            upload.advance(landed);
        }
    }
    store.commit_with(&partial, landed, upload).await?;
    Ok(digest)
}

async fn read_range(stored: &StoredAt, range: std::ops::Range<u64>) -> Result<Vec<u8>, StoreError> {
    match stored {
        StoredAt::File(blob) => {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
            std::os::unix::fs::FileExt::read_exact_at(&*blob.file, &mut bytes, range.start).unwrap();
            Ok(bytes)
        }
        StoredAt::Object(object) => {
            let chunks: Vec<Bytes> = object.read(range).try_collect().await?;
            Ok(chunks.concat())
        }
    }
}

async fn read_blob(store: &BlobStore, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(stored) = store.locate(digest).await? else { return Ok(None) };
    read_range(&stored, 0..stored.size()).await.map(Some)
}

async fn listed(store: &BlobStore) -> Vec<(Digest, u64)> {
    let (mut list, mut found) = (store.list(), Vec::new());
    while let Some(blob) = list.recv().await {
        let blob = blob.unwrap();
        found.push((blob.digest, blob.size));
    }
    found.sort();
    found
}

/// Waits until `holds`, for what happens in the background.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to be that {what}");
}
