//! Paths, which are not empty.

use std::path::{Path, PathBuf};

use serde::{Deserializer, Serializer};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    settings::from_text(deserializer, "a path", |text| (!text.is_empty()).then(|| PathBuf::from(text)))
}

pub(super) fn option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    deserialize(deserializer).map(Some)
}

pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}
