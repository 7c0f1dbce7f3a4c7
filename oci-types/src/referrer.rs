//! The referrers of a manifest: manifests whose `subject` it is (distribution-spec: "Listing Referrers").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Digest, MediaType, Tag, media_type::OCI_INDEX};

/// The maximum length of the algorithm and of the encoded hash in a referrers tag.
const MAX_TAG_PARTS: (usize, usize) = (32, 64);

/// The descriptor of a referrer, with all its fields as they were received.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Referrer {
    json: Box<RawValue>,
    #[serde(skip)]
    digest: String,
    #[serde(skip)]
    artifact_type: Option<String>,
}

/// An image index of referrers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexOf<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: &'a [&'a Referrer],
}

#[derive(Deserialize)]
struct ReceivedIndex {
    manifests: Option<Vec<Box<RawValue>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReceivedDescriptor {
    digest: String,
    artifact_type: Option<String>,
}

/// The descriptor that is written for a manifest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReferringManifest {
    artifact_type: Option<String>,
    config: Option<ReferringConfig>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReferringConfig {
    media_type: Option<String>,
}

impl Referrer {
    /// The descriptors of an image index. Entries that are no descriptors are skipped. `None` if the bytes are not a JSON
    /// object with `manifests`.
    pub fn parse_index(bytes: &[u8]) -> Option<Vec<Self>> {
        // Where a struct is expected, serde also accepts an array of its fields.
        bytes.trim_ascii_start().first().filter(|first| **first == b'{')?;
        let index: ReceivedIndex = serde_json::from_slice(bytes).ok()?;
        Some(index.manifests?.into_iter().filter_map(Self::parse).collect())
    }

    fn parse(json: Box<RawValue>) -> Option<Self> {
        let ReceivedDescriptor { digest, artifact_type } =
            serde_json::from_str(json.get()).ok().filter(|_| json.get().starts_with('{'))?;
        Some(Self { json, digest, artifact_type })
    }

    /// The descriptor of a manifest with a `subject`: with its annotations, and with its artifact type, which is the media
    /// type of the config where none is stated. `None` if the body is not a manifest.
    pub fn of_manifest(digest: &Digest, media_type: &MediaType, body: &[u8]) -> Option<Self> {
        let manifest: ReferringManifest = serde_json::from_slice(body).ok()?;
        let stated = manifest.artifact_type.filter(|stated| !stated.is_empty());
        let artifact_type = stated.or_else(|| manifest.config.and_then(|config| config.media_type));
        let written = Written {
            media_type: media_type.as_str(),
            digest,
            size: body.len(),
            artifact_type: artifact_type.as_deref(),
            annotations: manifest.annotations.unwrap_or_default(),
        };
        let json = serde_json::value::to_raw_value(&written).ok()?;
        Some(Self { json, digest: digest.to_string(), artifact_type })
    }

    /// The digest, as it was received.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The artifact type.
    pub fn artifact_type(&self) -> Option<&str> {
        self.artifact_type.as_deref()
    }

    /// The length of the descriptor in an index, in bytes.
    pub fn length(&self) -> usize {
        self.json.get().len()
    }

    /// An image index of these descriptors.
    pub fn index_of(referrers: &[&Self]) -> impl Serialize {
        IndexOf { schema_version: 2, media_type: OCI_INDEX, manifests: referrers }
    }

    /// The tag at which a registry without the referrers API has the index of the referrers of `subject` (distribution-spec:
    /// "Referrers Tag Schema").
    pub fn tag(subject: &Digest) -> Option<Tag> {
        let (algorithm, encoded) = subject.as_str().split_once(':')?;
        let cut = |text: &str, max: usize| text.chars().take(max).collect::<String>();
        let (max_algorithm, max_encoded) = MAX_TAG_PARTS;
        Tag::parse(&format!("{}-{}", cut(algorithm, max_algorithm), cut(encoded, max_encoded))).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::media_type::OCI_MANIFEST;

    #[test]
    fn descriptors_are_kept_as_they_were_received() {
        let index = br#" {"manifests": [
            {"mediaType":"a", "digest":"sha256:1","size":1, "artifactType":"x/y","other":{"b":1.50}},
            {"digest":"sha999:2"}, "no descriptor", ["sha256:3"], {"digest":null}
        ]}"#;
        let referrers = Referrer::parse_index(index).unwrap();
        let found: Vec<_> = referrers.iter().map(|one| (one.digest(), one.artifact_type())).collect();
        assert_eq!(found, [("sha256:1", Some("x/y")), ("sha999:2", None)]);
        let text = serde_json::to_string(&Referrer::index_of(&referrers.iter().collect::<Vec<_>>())).unwrap();
        assert!(text.contains(
            r#"{"mediaType":"a", "digest":"sha256:1","size":1, "artifactType":"x/y","other":{"b":1.50}}"#
        ));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["schemaVersion"], &value["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
    }

    #[test]
    fn what_is_not_an_index_has_no_referrers() {
        for body in ["", "<html>", "[]", "{}", "null", r#"{"manifests":null}"#, r#"{"manifests":{}}"#, "[[]]"]
        {
            assert!(Referrer::parse_index(body.as_bytes()).is_none(), "{body}");
        }
        assert_eq!(Referrer::parse_index(br#"{"manifests":[]}"#).unwrap().len(), 0);
    }

    #[test]
    fn the_descriptor_of_a_manifest_has_its_artifact_type_and_annotations() {
        let digest = Digest::sha256(b"x");
        for (manifest, artifact_type, annotations) in [
            (json!({ "artifactType": "a/b", "config": { "mediaType": "c/d" } }), Some("a/b"), None),
            (json!({ "artifactType": "", "config": { "mediaType": "c/d" } }), Some("c/d"), None),
            (json!({ "annotations": { "k": "v" } }), None, Some(json!({ "k": "v" }))),
        ] {
            let body = manifest.to_string();
            let media_type = MediaType::new(OCI_MANIFEST);
            let referrer = Referrer::of_manifest(&digest, &media_type, body.as_bytes()).unwrap();
            assert_eq!(referrer.artifact_type(), artifact_type);
            let written: Value = serde_json::from_str(referrer.json.get()).unwrap();
            assert_eq!((&written["digest"], &written["size"]), (&json!(digest), &json!(body.len())));
            assert_eq!(written.get("annotations"), annotations.as_ref());
        }
    }

    #[test]
    fn the_tag_is_the_digest_with_a_hyphen() {
        let digest = Digest::sha256(b"x");
        assert_eq!(Referrer::tag(&digest).unwrap().as_str(), digest.as_str().replace(':', "-"));
        let digest = Digest::of(crate::Algorithm::Sha512, b"x");
        assert_eq!(Referrer::tag(&digest).unwrap().as_str(), &digest.as_str().replace(':', "-")[..71]);
    }
}
