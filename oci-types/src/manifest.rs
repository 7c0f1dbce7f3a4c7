//! Parsing of manifests (image-spec: "Image Manifest", "Image Index"), which are never serialized.

mod body;
mod platform;
#[cfg(test)]
mod tests;

use crate::{Digest, MediaType};

pub use platform::{Platform, PlatformError};

/// The maximum size of a manifest, in bytes (distribution-spec, "Pushing Manifests": registries should accept 4 MiB).
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

/// The maximum number of descriptors of a manifest. It bounds the rows of one transaction.
pub const MAX_DESCRIPTORS: usize = 10_000;

/// The parsed fields of a manifest. It is never serialized: a manifest is served with the bytes that were received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// One of [`crate::media_type::MANIFEST_TYPES`].
    pub media_type: MediaType,
    /// The type of the artifact that it describes, if it states one.
    pub artifact_type: Option<String>,
    /// The manifest that this one refers to.
    pub subject: Option<Digest>,
    /// The configuration blob; none in an index.
    pub config: Option<Digest>,
    /// Its descriptors in their order, without the subject: the config, then the layers; or the entries of an index, without
    /// those whose digest has an algorithm that is not served.
    pub descriptors: Vec<Descriptor>,
}

/// One descriptor of a manifest (image-spec: "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The role of the content in the manifest.
    pub role: DescriptorRole,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The media type of the content; empty if the manifest has none.
    pub media_type: MediaType,
    /// The size of the content in bytes, as stated by the manifest; `None` if it states none or an
    /// impossible one.
    pub size: Option<u64>,
    /// The platform of an entry of an index.
    pub platform: Option<Platform>,
}

/// The role of a descriptor in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow), diesel(sql_type = diesel::sql_types::SmallInt))]
pub enum DescriptorRole {
    /// A manifest in an index.
    Manifest,
    /// The configuration blob.
    Config,
    /// A layer; also a blob that is an entry of an index, as in the cache of BuildKit.
    Layer,
}

#[cfg(feature = "diesel")]
crate::small_int_column!(DescriptorRole { Manifest = 0, Config = 1, Layer = 2 });

/// Why bytes are not a manifest. The messages contain no input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST_BYTES`].
    #[error("the manifest is longer than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    /// Not JSON, or a field has the wrong type.
    #[error("the manifest is not JSON of the right form (line {line}, column {column})")]
    Json {
        /// The line of the first error, from 1.
        line: usize,
        /// Its column, from 1.
        column: usize,
    },
    /// Docker schema 1. Its digest is not that of its bytes.
    #[error("schema version 1 manifests are not supported")]
    Schema1,
    /// `schemaVersion` is missing or is neither 1 nor 2.
    #[error("the manifest has no schemaVersion 2")]
    SchemaVersion,
    /// The type is none of the manifest types.
    #[error("the manifest's media type is not supported")]
    UnknownType,
    /// `mediaType` and `Content-Type` are two different manifest types.
    #[error("the manifest's mediaType differs from its Content-Type")]
    TypeConflict,
    /// It is an image and an index: clients could disagree about its content.
    #[error("the manifest has the fields of an image and of an index")]
    Ambiguous,
    /// A field that its type requires is missing.
    #[error("the manifest has no {0}")]
    Missing(&'static str),
    /// A descriptor's digest is malformed.
    #[error("a descriptor's digest is not valid")]
    Digest,
    /// The digest of a config or a layer has an algorithm that is not served.
    #[error("a descriptor's digest has an algorithm other than sha256 and sha512")]
    DigestAlgorithm,
    /// More than [`MAX_DESCRIPTORS`] descriptors.
    #[error("the manifest has more than {MAX_DESCRIPTORS} descriptors")]
    TooManyDescriptors,
}

impl ManifestError {
    /// Whether the manifest may be valid, but is not supported.
    pub fn is_unsupported(&self) -> bool {
        match self {
            Self::TooLarge
            | Self::Schema1
            | Self::UnknownType
            | Self::DigestAlgorithm
            | Self::TooManyDescriptors => true,
            Self::Json { .. }
            | Self::SchemaVersion
            | Self::TypeConflict
            | Self::Ambiguous
            | Self::Missing(_)
            | Self::Digest => false,
        }
    }
}

impl Manifest {
    /// Parses `body`. `declared` is its `Content-Type`, which applies if the body has no `mediaType`.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(body: &[u8], declared: Option<&MediaType>) -> Result<Self, ManifestError> {
        body::parse(body, declared)
    }

    /// Whether it is an index.
    pub fn is_index(&self) -> bool {
        self.media_type.is_index()
    }

    /// The manifests of an index, in their order.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        self.descriptors.iter().filter(|descriptor| descriptor.role == DescriptorRole::Manifest)
    }

    /// The blobs that an upstream serves: config and layers, without foreign layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.descriptors.iter().filter(|descriptor| descriptor.is_fetched_blob())
    }
}

impl Descriptor {
    /// Whether the content is a blob that an upstream serves. Registries do not have non-distributable layers, and their
    /// `urls` are never followed.
    pub fn is_fetched_blob(&self) -> bool {
        let media_type = self.media_type.as_str();
        let foreign = media_type.contains("foreign.") || media_type.contains("nondistributable.");
        self.role != DescriptorRole::Manifest && !foreign
    }
}
