//! Parsing of the bytes of a manifest.

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::Number;

use super::{
    Descriptor, DescriptorRole, MAX_DESCRIPTORS, MAX_MANIFEST_BYTES, Manifest, ManifestError, Platform,
};
use crate::{
    Digest, MediaType,
    digest::DigestError,
    media_type::{OCI_INDEX, OCI_MANIFEST},
};

/// The fields that are read. A repeated one is an error, since readers disagree on which of the two counts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    schema_version: Option<i64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    subject: Option<DescriptorFields>,
    config: Option<DescriptorFields>,
    layers: Option<Vec<DescriptorFields>>,
    /// `null` is what Go writes for an empty list, so it differs from a field that is absent.
    #[serde(default, deserialize_with = "present")]
    manifests: Option<Option<Vec<DescriptorFields>>>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorFields {
    media_type: Option<String>,
    digest: String,
    size: Option<Number>,
    platform: Option<PlatformFields>,
}

#[derive(Deserialize)]
struct PlatformFields {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

pub(super) fn parse(bytes: &[u8], declared: Option<&MediaType>) -> Result<Manifest, ManifestError> {
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(ManifestError::TooLarge);
    }
    // Where a struct is expected, serde also accepts an array of its fields.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ManifestError::Json { line: 1, column: 1 });
    }
    let body: Body = serde_json::from_slice(bytes)
        .map_err(|error| ManifestError::Json { line: error.line(), column: error.column() })?;
    match body.schema_version {
        Some(2) => {}
        Some(1) => return Err(ManifestError::Schema1),
        _ => return Err(ManifestError::SchemaVersion),
    }
    let lists = body.manifests.iter().flatten().next().is_some();
    let is_image = body.layers.as_ref().is_some_and(|layers| !layers.is_empty()) || body.config.is_some();
    if lists && (is_image || body.fs_layers.is_some()) {
        return Err(ManifestError::Ambiguous);
    }
    let media_type = media_type(&body, declared)?;
    let subject = body.subject.as_ref().map(DescriptorFields::digest).transpose()?.flatten();
    let artifact_type = body.artifact_type.filter(|text| !text.is_empty());

    if media_type.is_index() {
        if is_image {
            return Err(ManifestError::Ambiguous);
        }
        let entries = body.manifests.ok_or(ManifestError::Missing("manifests"))?.unwrap_or_default();
        // An entry with an unsupported digest algorithm does not affect the other entries.
        let descriptors = descriptors(entries.into_iter().map(|entry| (entry.role_in_index(), entry)))?;
        let descriptors = descriptors.into_iter().flatten().collect();
        return Ok(Manifest { media_type, artifact_type, subject, config: None, descriptors });
    }
    if lists {
        return Err(ManifestError::Ambiguous);
    }
    let config = body.config.ok_or(ManifestError::Missing("config"))?;
    let config_digest = config.digest()?.ok_or(ManifestError::DigestAlgorithm)?;
    let layers = body.layers.unwrap_or_default().into_iter().map(|layer| (DescriptorRole::Layer, layer));
    let descriptors = descriptors(std::iter::once((DescriptorRole::Config, config)).chain(layers))?;
    let descriptors = descriptors.into_iter().collect::<Option<_>>().ok_or(ManifestError::DigestAlgorithm)?;
    Ok(Manifest { media_type, artifact_type, subject, config: Some(config_digest), descriptors })
}

fn media_type(body: &Body, declared: Option<&MediaType>) -> Result<MediaType, ManifestError> {
    let is_manifest = |media_type: &MediaType| media_type.is_index() || media_type.is_image_manifest();
    let declared = declared.filter(|media_type| !is_generic(media_type));
    let written = body.media_type.as_deref().map(MediaType::new).filter(|text| !text.as_str().is_empty());
    let media_type = match (written, declared) {
        (Some(written), Some(declared)) if is_manifest(declared) && written != *declared => {
            return Err(ManifestError::TypeConflict);
        }
        (Some(written), _) => written,
        (None, Some(declared)) => declared.clone(),
        // Only the OCI types may leave `mediaType` out.
        (None, None) if body.manifests.is_some() => MediaType::new(OCI_INDEX),
        (None, None) => MediaType::new(OCI_MANIFEST),
    };
    if is_manifest(&media_type) { Ok(media_type) } else { Err(ManifestError::UnknownType) }
}

/// Whether the type is one that file servers and object stores send for content that they do not know.
fn is_generic(media_type: &MediaType) -> bool {
    matches!(
        media_type.as_str(),
        "" | "application/json" | "application/octet-stream" | "binary/octet-stream" | "text/plain"
    )
}

/// The descriptors; `None` for one whose digest has an algorithm that is not served.
fn descriptors(
    fields: impl Iterator<Item = (DescriptorRole, DescriptorFields)>,
) -> Result<Vec<Option<Descriptor>>, ManifestError> {
    let mut descriptors = Vec::new();
    for (role, descriptor) in fields {
        if descriptors.len() == MAX_DESCRIPTORS {
            return Err(ManifestError::TooManyDescriptors);
        }
        descriptors.push(descriptor.digest()?.map(|digest| Descriptor {
            role,
            size: descriptor.size.as_ref().and_then(size).filter(|size| digest.admits_size(*size)),
            digest,
            media_type: MediaType::new(descriptor.media_type.as_deref().unwrap_or_default()),
            platform: descriptor.platform.and_then(PlatformFields::into_platform),
        }));
    }
    Ok(descriptors)
}

/// A whole number of bytes; some writers add a zero fraction, such as `10.0`.
fn size(number: &Number) -> Option<u64> {
    number.as_u64().or_else(|| number.to_string().strip_suffix(".0")?.parse().ok())
}

impl DescriptorFields {
    /// The digest; `None` if its algorithm is not served.
    fn digest(&self) -> Result<Option<Digest>, ManifestError> {
        match Digest::parse(&self.digest) {
            Ok(digest) => Ok(Some(digest)),
            Err(DigestError::Algorithm) if is_digest(&self.digest) => Ok(None),
            Err(_) => Err(ManifestError::Digest),
        }
    }

    /// An entry of a type that is no manifest is a blob: BuildKit's cache lists layers this way.
    fn role_in_index(&self) -> DescriptorRole {
        let media_type = MediaType::new(self.media_type.as_deref().unwrap_or_default());
        let blob = !media_type.as_str().is_empty()
            && !media_type.as_str().contains("manifest")
            && !media_type.is_index();
        if blob { DescriptorRole::Layer } else { DescriptorRole::Manifest }
    }
}

/// Whether a text has the grammar of a digest (image-spec: "Digests"), of any algorithm.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else { return false };
    let is_component = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let is_encoded = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'_' | b'-');
    algorithm.split(['+', '.', '_', '-']).all(is_component)
        && !encoded.is_empty()
        && encoded.bytes().all(is_encoded)
}

impl PlatformFields {
    fn into_platform(self) -> Option<Platform> {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let variant = filled(self.variant);
        Some(Platform { os: filled(self.os)?, architecture: filled(self.architecture)?, variant })
    }
}
