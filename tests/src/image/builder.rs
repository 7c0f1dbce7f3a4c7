//! Manifest and configuration of an image.

use bytes::Bytes;
use serde_json::{Value, json};

use super::layer::{Made, file_layer, random_bytes};
use super::{Image, Layer, Platform, sha256};

/// The family of media types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/vnd.oci.image.…`
    Oci,
    /// `application/vnd.docker.distribution.…`, schema 2.
    Docker,
}

impl Format {
    fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    pub(super) fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Docker => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }
}

/// A builder of images: OCI, linux/amd64 by default.
#[derive(Debug)]
pub struct ImageBuilder {
    seed: u64,
    format: Format,
    platform: Platform,
    layers: Vec<Made>,
}

impl ImageBuilder {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, format: Format::Oci, platform: Platform::new("linux/amd64"), layers: Vec::new() }
    }

    /// The family of media types.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// What it is for, as in `linux/arm64/v8`.
    pub fn platform(mut self, platform: &str) -> Self {
        self.platform = Platform::new(platform);
        self
    }

    /// A layer of random bytes, which cannot be unpacked.
    pub fn random_layer(mut self, size: usize) -> Self {
        // Another seed for each layer, so that no two layers of one image are equal.
        let seed =
            self.layers.iter().fold(self.seed, |seed, _| seed.wrapping_mul(0x9e37_79b9).wrapping_add(1));
        let bytes = random_bytes(seed, size);
        let digest = sha256(&bytes);
        self.layers.push(Made { diff_id: digest.clone(), layer: Layer { digest, bytes } });
        self
    }

    /// A layer of these files.
    pub fn file_layer(mut self, files: &[(&str, &[u8])]) -> Self {
        self.layers.push(file_layer(files));
        self
    }

    /// A tiny root file system, another for each seed.
    pub fn root_layer(self) -> Self {
        let seed = self.seed.to_string();
        self.file_layer(&[
            ("bin/", b""),
            ("etc/", b""),
            ("etc/os-release", b"ID=tidegate-test\nNAME=\"Tidegate test image\"\n"),
            ("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
            ("etc/seed", seed.as_bytes()),
            ("root/", b""),
            ("tmp/", b""),
        ])
    }

    /// The image.
    pub fn build(self) -> Image {
        let Self { seed, format, platform, layers } = self;
        let config = Bytes::from(config(seed, &platform, &layers).to_string());
        let layers: Vec<Layer> = layers.into_iter().map(|made| made.layer).collect();
        let described: Vec<Value> =
            layers.iter().map(|layer| descriptor(format.layer(), &layer.digest, &layer.bytes)).collect();
        let config_digest = sha256(&config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": format.manifest(),
            "config": descriptor(format.config(), &config_digest, &config),
            "layers": described,
        });
        let manifest = Bytes::from(manifest.to_string());
        Image {
            digest: sha256(&manifest),
            manifest,
            media_type: format.manifest().to_owned(),
            config: (config_digest, config),
            layers,
            platform,
        }
    }
}

/// A descriptor of these bytes (image-spec: "OCI Content Descriptors").
pub(super) fn descriptor(media_type: &str, digest: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

/// The configuration (image-spec: "OCI Image Configuration").
fn config(seed: u64, platform: &Platform, layers: &[Made]) -> Value {
    let created = "2024-01-01T00:00:00Z";
    let diff_ids: Vec<&str> = layers.iter().map(|made| made.diff_id.as_str()).collect();
    let history: Vec<Value> =
        layers.iter().map(|_| json!({ "created": created, "created_by": "tidegate-tests" })).collect();
    let mut config = json!({
        "created": created,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": { "Cmd": ["/bin/sh"], "Labels": { "seed": seed.to_string() } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    });
    if let Some(variant) = &platform.variant {
        config["variant"] = json!(variant);
    }
    config
}
