//! Indexes: one name for images of several platforms.

use bytes::Bytes;
use serde_json::{Value, json};

use super::builder::{Format, descriptor};
use super::{Image, sha256};

/// An index and all that it names.
#[derive(Clone, Debug)]
pub struct Index {
    /// The index's bytes.
    pub manifest: Bytes,
    /// The digest of `manifest`.
    pub digest: String,
    /// The index's type.
    pub media_type: String,
    /// The images it names.
    pub images: Vec<Image>,
    /// The indexes it names.
    pub indexes: Vec<Index>,
}

impl Index {
    /// An OCI index of these images.
    pub fn of(images: &[&Image]) -> Self {
        Self::new(Format::Oci, images, &[])
    }

    /// A Docker manifest list of these images.
    pub fn docker_list(images: &[&Image]) -> Self {
        Self::new(Format::Docker, images, &[])
    }

    /// An OCI index of other indexes.
    pub fn of_indexes(indexes: &[&Index]) -> Self {
        Self::new(Format::Oci, &[], indexes)
    }

    fn new(format: Format, images: &[&Image], indexes: &[&Index]) -> Self {
        let named = indexes.iter().map(|index| descriptor(&index.media_type, &index.digest, &index.manifest));
        let described: Vec<Value> = images.iter().map(|image| child(image)).chain(named).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": format.index(), "manifests": described });
        let manifest = Bytes::from(manifest.to_string());
        Self {
            digest: sha256(&manifest),
            manifest,
            media_type: format.index().to_owned(),
            images: images.iter().copied().cloned().collect(),
            indexes: indexes.iter().copied().cloned().collect(),
        }
    }
}

/// An image's descriptor with its platform (image-spec: "OCI Image Index").
fn child(image: &Image) -> Value {
    let mut descriptor = descriptor(&image.media_type, &image.digest, &image.manifest);
    let platform = &image.platform;
    descriptor["platform"] = json!({ "os": platform.os, "architecture": platform.architecture });
    if let Some(variant) = &platform.variant {
        descriptor["platform"]["variant"] = json!(variant);
    }
    descriptor
}
