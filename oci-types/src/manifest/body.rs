//! From the bytes of a manifest to what it says.

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{
    Descriptor, DescriptorRole, MAX_DESCRIPTORS, MAX_MANIFEST_BYTES, Manifest, ManifestError, Platform,
};
use crate::{
    Digest, MediaType,
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
    /// `null` is what Go writes for an empty list, so it is told from a field that isn't there.
    #[serde(default, deserialize_with = "present")]
    manifests: Option<Option<Vec<DescriptorFields>>>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorFields {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
    platform: Option<PlatformFields>,
}

#[derive(Deserialize)]
struct PlatformFields {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

pub(super) fn parse(bytes: &[u8], declared: Option<&MediaType>) -> Result<Manifest, ManifestError> {
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(ManifestError::TooLarge);
    }
    // Where a struct is expected, serde takes its fields from an array too.
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
    if lists && (body.layers.is_some() || body.config.is_some() || body.fs_layers.is_some()) {
        return Err(ManifestError::Ambiguous);
    }
    let media_type = media_type(&body, declared)?;
    let subject = body.subject.as_ref().map(DescriptorFields::digest).transpose()?;
    let artifact_type = body.artifact_type.filter(|text| !text.is_empty());

    if media_type.is_index() {
        if body.layers.is_some() || body.config.is_some() {
            return Err(ManifestError::Ambiguous);
        }
        let entries = body.manifests.ok_or(ManifestError::Missing("manifests"))?.unwrap_or_default();
        let descriptors = descriptors(entries.into_iter().map(|entry| (entry.role_in_index(), entry)))?;
        return Ok(Manifest { media_type, artifact_type, subject, config: None, descriptors });
    }
    if lists {
        return Err(ManifestError::Ambiguous);
    }
    let config = body.config.ok_or(ManifestError::Missing("config"))?;
    let config_digest = config.digest()?;
    let layers = body.layers.unwrap_or_default().into_iter().map(|layer| (DescriptorRole::Layer, layer));
    let descriptors = descriptors(std::iter::once((DescriptorRole::Config, config)).chain(layers))?;
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

/// What servers say that don't know what they serve.
fn is_generic(media_type: &MediaType) -> bool {
    matches!(media_type.as_str(), "" | "application/json" | "application/octet-stream" | "text/plain")
}

fn descriptors(
    fields: impl Iterator<Item = (DescriptorRole, DescriptorFields)>,
) -> Result<Vec<Descriptor>, ManifestError> {
    let mut descriptors = Vec::new();
    for (role, descriptor) in fields {
        if descriptors.len() == MAX_DESCRIPTORS {
            return Err(ManifestError::TooManyDescriptors);
        }
        descriptors.push(Descriptor {
            role,
            digest: descriptor.digest()?,
            media_type: MediaType::new(&descriptor.media_type),
            size: u64::try_from(descriptor.size).map_err(|_| ManifestError::Size)?,
            platform: descriptor.platform.and_then(PlatformFields::into_platform),
        });
    }
    Ok(descriptors)
}

impl DescriptorFields {
    fn digest(&self) -> Result<Digest, ManifestError> {
        Digest::parse(&self.digest).map_err(|_| ManifestError::Digest)
    }

    /// An entry of a type that is no manifest is a blob: BuildKit's cache lists layers this way.
    fn role_in_index(&self) -> DescriptorRole {
        let media_type = MediaType::new(&self.media_type);
        let blob = !media_type.as_str().is_empty()
            && !media_type.as_str().contains("manifest")
            && !media_type.is_index();
        if blob { DescriptorRole::Layer } else { DescriptorRole::Manifest }
    }
}

impl PlatformFields {
    fn into_platform(self) -> Option<Platform> {
        if self.os.is_empty() || self.architecture.is_empty() {
            return None;
        }
        let variant = self.variant.filter(|variant| !variant.is_empty());
        Some(Platform { os: self.os, architecture: self.architecture, variant })
    }
}
