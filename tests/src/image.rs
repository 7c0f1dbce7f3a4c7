//! Images made for tests: the same seed gives the same bytes.
//!
//! Digests are computed here and not with the code under test, which must come to the same on its own.

mod builder;
mod index;
mod layer;

use bytes::Bytes;
use sha2::{Digest as _, Sha256, Sha512};

pub use builder::{Format, ImageBuilder};
pub use index::Index;
pub use layer::random_bytes;

/// `sha256:` and the hexadecimal digest of these bytes.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// `sha512:` and the hexadecimal digest of these bytes.
pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex::encode(Sha512::digest(bytes)))
}

/// A layer as it is pulled: compressed, if it is a real one.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The digest of `bytes`.
    pub digest: String,
    /// What is pulled.
    pub bytes: Bytes,
}

/// What an image is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// As in `GOOS`.
    pub os: String,
    /// As in `GOARCH`.
    pub architecture: String,
    /// As in `v8`.
    pub variant: Option<String>,
}

impl Platform {
    /// Reads `linux/amd64` or `linux/arm64/v8`.
    ///
    /// # Panics
    /// When there is no slash.
    pub fn new(text: &str) -> Self {
        let (os, rest) = text.split_once('/').expect("a platform is OS/ARCHITECTURE[/VARIANT]");
        let (architecture, variant) =
            rest.split_once('/').map_or((rest, None), |(one, two)| (one, Some(two)));
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's bytes.
    pub manifest: Bytes,
    /// The digest of `manifest`.
    pub digest: String,
    /// The manifest's type.
    pub media_type: String,
    /// The configuration's digest and bytes.
    pub config: (String, Bytes),
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// What it is for.
    pub platform: Platform,
}

impl Image {
    /// An OCI image for linux/amd64 whose layers are random bytes of these sizes: good for the protocol, not for
    /// unpacking.
    pub fn random(seed: u64, layer_sizes: &[usize]) -> Self {
        let builder = Self::builder(seed);
        layer_sizes.iter().fold(builder, |builder, size| builder.random_layer(*size)).build()
    }

    /// An OCI image for linux/amd64 that clients can unpack: a tiny root file system, and one gzip'ed tar layer for
    /// each list of paths and contents.
    pub fn real(seed: u64, layers: &[&[(&str, &[u8])]]) -> Self {
        let builder = Self::builder(seed).root_layer();
        layers.iter().fold(builder, |builder, files| builder.file_layer(files)).build()
    }

    /// An image of one's own choice.
    pub fn builder(seed: u64) -> ImageBuilder {
        ImageBuilder::new(seed)
    }

    /// The configuration and the layers: digest and bytes.
    pub fn blobs(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        let layers = self.layers.iter().map(|layer| (layer.digest.as_str(), &layer.bytes));
        std::iter::once((self.config.0.as_str(), &self.config.1)).chain(layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_every_byte() {
        let one = Image::random(1, &[1000, 3]);
        assert_eq!(one.manifest, Image::random(1, &[1000, 3]).manifest);
        assert_ne!(one.digest, Image::random(2, &[1000, 3]).digest);
        assert_ne!(one.layers[0].digest, one.layers[1].digest);
        let real = |seed| Image::real(seed, &[&[("etc/motd", b"hello")]]);
        assert_eq!(real(1).manifest, real(1).manifest);
        assert_ne!(real(1).layers[0].digest, real(2).layers[0].digest);
    }

    #[test]
    fn descriptors_tell_the_truth() {
        for format in [Format::Oci, Format::Docker] {
            let image = Image::builder(7).format(format).root_layer().random_layer(99).build();
            assert_eq!(sha256(&image.manifest), image.digest);
            let manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
            assert_eq!(manifest["mediaType"], image.media_type);
            assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
            let described =
                std::iter::once(&manifest["config"]).chain(manifest["layers"].as_array().unwrap());
            for (descriptor, (digest, bytes)) in described.zip(image.blobs()) {
                assert_eq!(descriptor["digest"], digest);
                assert_eq!(descriptor["size"], bytes.len());
                assert_eq!(sha256(bytes), digest);
            }
        }
    }

    #[test]
    fn an_index_names_its_images_by_platform() {
        let arm = Image::builder(1).platform("linux/arm64/v8").random_layer(10).build();
        let index = Index::of(&[&Image::random(1, &[10]), &arm]);
        let parsed: serde_json::Value = serde_json::from_slice(&index.manifest).unwrap();
        assert_eq!(sha256(&index.manifest), index.digest);
        assert_eq!(parsed["manifests"][1]["digest"], arm.digest);
        assert_eq!(parsed["manifests"][1]["size"], arm.manifest.len());
        assert_eq!(
            parsed["manifests"][1]["platform"],
            serde_json::json!({ "os": "linux", "architecture": "arm64", "variant": "v8" })
        );
    }
}
