//! Going through what lies in the data folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use oci_types::Digest;

use crate::{
    ListedBlob, StoreError,
    error::During,
    layout::{Layout, Shard, partial_digest},
};

/// The blobs of one shard; none when it has no folder. What is no blob is passed over.
pub(super) fn blobs(layout: &Layout, shard: Shard) -> Result<Vec<ListedBlob>, StoreError> {
    let mut blobs = Vec::new();
    for entry in entries(&layout.shard(shard))? {
        let Some(digest) = entry.file_name().to_str().and_then(|name| shard.digest(name)) else { continue };
        // One that was removed since its name was read is not there any more.
        if let Some(metadata) = if_there(entry.metadata(), &entry.path())? {
            let modified_at = metadata.modified().during("look at", &entry.path())?;
            blobs.push(ListedBlob { digest, size: metadata.len(), modified_at });
        }
    }
    Ok(blobs)
}

/// Every partial folder, with the moment when something in it was last written.
pub(super) fn partials(layout: &Layout) -> Result<Vec<(Digest, PathBuf, SystemTime)>, StoreError> {
    let mut partials = Vec::new();
    for entry in entries(&layout.partials())? {
        let Some(digest) = entry.file_name().to_str().and_then(partial_digest) else { continue };
        let folder = entry.path();
        if let Some(written_at) = last_written(&folder)? {
            partials.push((digest, folder, written_at));
        }
    }
    Ok(partials)
}

fn last_written(folder: &Path) -> Result<Option<SystemTime>, StoreError> {
    let mut last = None;
    for entry in entries(folder)? {
        if let Some(metadata) = if_there(entry.metadata(), &entry.path())? {
            last = last.max(Some(metadata.modified().during("look at", &entry.path())?));
        }
    }
    match last {
        Some(_) => Ok(last),
        None => Ok(if_there(fs::metadata(folder), folder)?.and_then(|metadata| metadata.modified().ok())),
    }
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, StoreError> {
    let Some(entries) = if_there(fs::read_dir(folder), folder)? else { return Ok(Vec::new()) };
    entries.collect::<io::Result<_>>().during("list", folder)
}

fn if_there<T>(found: io::Result<T>, path: &Path) -> Result<Option<T>, StoreError> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some).during("look at", path),
    }
}
