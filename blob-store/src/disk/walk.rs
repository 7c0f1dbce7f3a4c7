//! Listing the data directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    BlobMeta, PartialId, StoreError,
    error::IoContext,
    layout::{Layout, Shard},
};

/// The blobs of one shard; none if it has no directory. Other files are ignored.
pub(super) fn blobs(layout: &Layout, shard: Shard) -> Result<Vec<BlobMeta>, StoreError> {
    let mut blobs = Vec::new();
    for entry in entries(&layout.shard(shard))? {
        let Some(digest) = entry.file_name().to_str().and_then(|name| shard.digest(name)) else { continue };
        // It may have been removed since its name was read.
        if let Some(metadata) = if_found(entry.metadata(), &entry.path())? {
            let modified_at = metadata.modified().context("stat", &entry.path())?;
            blobs.push(BlobMeta { digest, size: metadata.len(), modified_at });
        }
    }
    Ok(blobs)
}

/// Every partial file: its identity, its directory, and the time of the last write in it.
pub(super) fn partials(layout: &Layout) -> Result<Vec<(PartialId, PathBuf, SystemTime)>, StoreError> {
    let mut partials = Vec::new();
    for entry in entries(&layout.partials())? {
        let Some(id) = entry.file_name().to_str().and_then(PartialId::from_directory_name) else { continue };
        let directory = entry.path();
        if let Some(written_at) = last_written(&directory)? {
            partials.push((id, directory, written_at));
        }
    }
    Ok(partials)
}

fn last_written(directory: &Path) -> Result<Option<SystemTime>, StoreError> {
    let mut last = None;
    for entry in entries(directory)? {
        if let Some(metadata) = if_found(entry.metadata(), &entry.path())? {
            last = last.max(Some(metadata.modified().context("stat", &entry.path())?));
        }
    }
    match last {
        Some(_) => Ok(last),
        None => {
            Ok(if_found(fs::metadata(directory), directory)?.and_then(|metadata| metadata.modified().ok()))
        }
    }
}

fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>, StoreError> {
    let Some(entries) = if_found(fs::read_dir(directory), directory)? else { return Ok(Vec::new()) };
    entries.collect::<io::Result<_>>().context("list", directory)
}

fn if_found<T>(found: io::Result<T>, path: &Path) -> Result<Option<T>, StoreError> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some).context("stat", path),
    }
}
