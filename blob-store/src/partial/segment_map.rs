//! The file that says which bytes of a partial are there.

use std::{fs, fs::File, io::Write, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    Segments, StoreError,
    error::During,
    layout::{MAP, NEW_MAP},
};

/// What was last saved about a partial: every byte that it names is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMap {
    /// The bytes that are there.
    pub segments: Segments,
    /// Length of the blob in bytes, where it was known.
    pub size: Option<u64>,
    /// The strong entity tag under which the source gave these bytes (RFC 9110, section 8.8.3).
    pub validator: Option<String>,
    /// Which source gave them, in the caller's words.
    pub source: Option<String>,
}

/// The form of the file. A file of another version is read as none, so the blob is fetched anew.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct MapFile<M> {
    version: u32,
    #[serde(flatten)]
    map: M,
}

impl SavedMap {
    /// Reads the map of a partial whose data file has `length` bytes. `None` when there is none or it is
    /// damaged.
    pub(super) fn read(folder: &Path, length: u64) -> Option<Self> {
        let text = fs::read(folder.join(MAP)).ok()?;
        let file: MapFile<Self> = serde_json::from_slice(&text)
            .inspect_err(|error| {
                tracing::warn!(path = %folder.display(), %error, "the map of a partial blob is damaged: starting over");
            })
            .ok()?;
        let mut map = (file.version == VERSION).then_some(file.map)?;
        map.segments.clamp(map.size.map_or(length, |size| size.min(length)));
        Some(map)
    }

    /// Writes the map in place of the one before. What it names is to be on the disk already.
    pub(super) fn write(&self, folder: &Path) -> Result<(), StoreError> {
        let (new, path) = (folder.join(NEW_MAP), folder.join(MAP));
        let text = serde_json::to_vec(&MapFile { version: VERSION, map: self }).during("encode", &path)?;
        let mut file = File::create(&new).during("create", &new)?;
        file.write_all(&text).during("write", &new)?;
        file.sync_data().during("sync", &new)?;
        // The folder is not synced: after a crash the map before this one may be back, and all it names is
        // there too.
        fs::rename(&new, &path).during("rename", &new)
    }
}
