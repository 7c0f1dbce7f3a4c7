//! Reading a manifest (image-spec: "Image Manifest", "Image Index") without ever writing one.

mod body;
mod platform;
#[cfg(test)]
mod tests;

use crate::{Digest, MediaType};

pub use platform::{Platform, PlatformError};

/// The longest manifest that is read or kept, in bytes (distribution-spec names 4 MiB as what registries should take).
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

/// The most descriptors that one manifest may name. Nothing real comes near; it bounds the rows of one transaction.
pub const MAX_ITEMS: usize = 10_000;

/// What a manifest says. Its bytes are kept beside it exactly as they came: this is never encoded again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// One of [`crate::media_type::MANIFEST_TYPES`].
    pub media_type: MediaType,
    /// What kind of artifact it describes, where it says so.
    pub artifact_type: Option<String>,
    /// The manifest that this one refers to.
    pub subject: Option<Digest>,
    /// The configuration blob; none in an index.
    pub config: Option<Digest>,
    /// Everything it names but the subject: the config, then the layers; or the entries of an index. In its order.
    pub items: Vec<Item>,
}

/// One descriptor of a manifest (image-spec: "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What the manifest names it for.
    pub kind: ItemKind,
    /// The digest of its bytes.
    pub digest: Digest,
    /// What its bytes are; empty where the manifest doesn't say.
    pub media_type: MediaType,
    /// Its length in bytes, as claimed.
    pub size: u64,
    /// What an entry of an index runs on.
    pub platform: Option<Platform>,
}

/// What a manifest names a descriptor for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// A manifest in an index.
    Child,
    /// The configuration blob.
    Config,
    /// A layer; also a blob that stands in an index directly, as in BuildKit's cache.
    Layer,
}

/// Why bytes are not a manifest that can be served. No input is echoed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST_BYTES`].
    #[error("the manifest is longer than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    /// Not JSON, or a field that matters has another form than it must.
    #[error("the manifest is not JSON of the right form (line {line}, column {column})")]
    Json {
        /// The line of the first fault, from 1.
        line: usize,
        /// Its column, from 1.
        column: usize,
    },
    /// Docker schema 1, whose digest is not that of its bytes.
    #[error("schema version 1 manifests are not supported")]
    Schema1,
    /// `schemaVersion` is missing or is neither 1 nor 2.
    #[error("the manifest has no schemaVersion 2")]
    SchemaVersion,
    /// The type is none of the manifest types.
    #[error("the manifest's media type is not supported")]
    UnknownType,
    /// The body names one manifest type and the answer that brought it another.
    #[error("the manifest's mediaType is not the Content-Type that it came with")]
    TypeConflict,
    /// It reads as an image and as an index both, so two clients could see two things in it.
    #[error("the manifest has the fields of an image and of an index")]
    Ambiguous,
    /// A field that its type requires is missing.
    #[error("the manifest has no {0}")]
    Missing(&'static str),
    /// A descriptor's digest is malformed or of an algorithm that is not served.
    #[error("a descriptor's digest is not valid")]
    Digest,
    /// A descriptor's size is below zero.
    #[error("a descriptor's size is negative")]
    Size,
    /// More than [`MAX_ITEMS`] descriptors.
    #[error("the manifest names more than {MAX_ITEMS} things")]
    TooManyItems,
}

impl Manifest {
    /// Reads `body`. `declared` is the `Content-Type` that it came with, if any: it counts where the body has no
    /// `mediaType`, and may not be another manifest type than the body's.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong.
    pub fn parse(body: &[u8], declared: Option<&MediaType>) -> Result<Self, ManifestError> {
        body::parse(body, declared)
    }

    /// Whether it lists manifests.
    pub fn is_index(&self) -> bool {
        self.media_type.is_index()
    }

    /// The manifests that it names, in its order.
    pub fn children(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.kind == ItemKind::Child)
    }

    /// The blobs that it names and that are asked of upstream: config and layers, without foreign layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.is_fetched_blob())
    }
}

impl Item {
    /// Whether these are blob bytes that upstream can be asked for. Layers that may not be distributed are left out:
    /// registries don't have them, and the `urls` they name are never followed.
    pub fn is_fetched_blob(&self) -> bool {
        let media_type = self.media_type.as_str();
        let foreign = media_type.contains("foreign.") || media_type.contains("nondistributable.");
        self.kind != ItemKind::Child && !foreign
    }
}
