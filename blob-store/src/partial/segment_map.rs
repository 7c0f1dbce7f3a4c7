//! The saved segment map of a partial file.

use std::{fs, fs::File, io::Write, path::Path};

use oci_types::HasherState;
use serde::{Deserialize, Serialize};

use crate::{
    Segments, StoreError,
    error::IoContext,
    layout::{MAP, NEW_MAP},
};

/// Which bytes of a partial file are present and durable, and where they came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentMap {
    /// The bytes that are present.
    pub segments: Segments,
    /// Size of the blob in bytes, as a source stated it.
    pub size: Option<u64>,
    /// The hash over the first bytes, so that they need not be read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashed: Option<HashedPrefix>,
}

/// State of a hasher after the bytes from 0 to `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashedPrefix {
    /// Offset of the first byte that is not hashed.
    pub end: u64,
    /// The state after the bytes before it.
    pub hasher: HasherState,
}

/// Format of the file. A file of another version is ignored, and the download restarts.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct MapFile<M> {
    version: u32,
    #[serde(flatten)]
    map: M,
}

impl SegmentMap {
    /// Reads the map of a data file of `length` bytes. `None` if it is missing or corrupt.
    pub(super) fn read(directory: &Path, length: u64) -> Option<Self> {
        let text = fs::read(directory.join(MAP)).ok()?;
        let file: MapFile<Self> = serde_json::from_slice(&text)
            .inspect_err(|error| {
                tracing::warn!(path = %directory.display(), %error, "segment map is corrupt; restarting the download");
            })
            .ok()?;
        let mut map = (file.version == VERSION).then_some(file.map)?;
        map.segments.clamp(length);
        let contiguous_end = map.segments.end_from(0);
        map.hashed = map.hashed.filter(|prefix| prefix.end <= contiguous_end);
        Some(map)
    }

    /// Replaces the saved map. The bytes that it contains must be durable.
    pub(super) fn write(&self, directory: &Path) -> Result<(), StoreError> {
        let (new, path) = (directory.join(NEW_MAP), directory.join(MAP));
        let text = serde_json::to_vec(&MapFile { version: VERSION, map: self }).context("encode", &path)?;
        let mut file = File::create(&new).context("create", &new)?;
        file.write_all(&text).context("write", &new)?;
        file.sync_data().context("sync", &new)?;
        // Without a sync of the directory, a crash may restore the previous map. Its bytes are durable as well.
        fs::rename(&new, &path).context("rename", &new)
    }
}
