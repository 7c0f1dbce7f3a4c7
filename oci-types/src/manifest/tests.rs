use proptest::prelude::*;

use super::{DescriptorRole, MAX_DESCRIPTORS, MAX_MANIFEST_BYTES, Manifest, ManifestError, Platform};
use crate::{
    Digest, MediaType,
    media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST},
};

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn parse(body: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(body.as_bytes(), None)
}

fn descriptor(media_type: &str, digest: &str, size: i64) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

fn image(rest: &str) -> String {
    let config = descriptor("application/vnd.oci.image.config.v1+json", A, 7);
    format!(r#"{{"schemaVersion":2,"config":{config}{rest}}}"#)
}

fn index(entries: &str) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#)
}

#[test]
fn an_image_names_its_config_and_then_its_layers() {
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", B, 1234);
    let manifest =
        parse(&image(&format!(r#","mediaType":"{OCI_MANIFEST}","layers":[{layer},{layer}]"#))).unwrap();
    assert!(!manifest.is_index());
    assert_eq!(manifest.config, Some(Digest::parse(A).unwrap()));
    let kinds: Vec<_> =
        manifest.descriptors.iter().map(|descriptor| (descriptor.role, descriptor.size)).collect();
    assert_eq!(
        kinds,
        [
            (DescriptorRole::Config, Some(7)),
            (DescriptorRole::Layer, Some(1234)),
            (DescriptorRole::Layer, Some(1234))
        ]
    );
    assert_eq!(manifest.blobs().count(), 3);
    assert_eq!(manifest.children().count(), 0);
}

#[test]
fn an_index_names_its_children_with_their_platforms() {
    let manifest = parse(&index(&format!(
        r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{A}","size":5,
            "platform":{{"architecture":"arm","os":"linux","variant":"v7","os.version":"1"}}}},
           {{"mediaType":"{OCI_INDEX}","digest":"{B}","size":5}},
           {{"mediaType":"{OCI_MANIFEST}","digest":"{B}","size":5,"platform":{{}}}}"#
    )))
    .unwrap();
    assert!(manifest.is_index());
    assert_eq!(manifest.media_type.as_str(), OCI_INDEX, "the type that may leave mediaType out");
    assert_eq!((manifest.children().count(), manifest.blobs().count()), (3, 0));
    let platforms: Vec<_> = manifest
        .descriptors
        .iter()
        .map(|descriptor| descriptor.platform.as_ref().map(ToString::to_string))
        .collect();
    assert_eq!(platforms, [Some("linux/arm/v7".to_owned()), None, None]);
    assert!(parse(&index("")).unwrap().descriptors.is_empty());
}

#[test]
fn blobs_that_stand_in_an_index_are_blobs() {
    let layer = descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", A, 5);
    let config = descriptor("application/vnd.buildkit.cacheconfig.v0", B, 5);
    let manifest = parse(&index(&format!("{layer},{config}"))).unwrap();
    assert_eq!((manifest.children().count(), manifest.blobs().count()), (0, 2));
}

#[test]
fn odd_but_legal_writing_is_accepted() {
    let image = image(&format!(
        r#","layers":null,"annotations":{{"a":[1.5e3,null,{{}}]}},"artifactType":"application/x","subject":{}"#,
        descriptor(OCI_MANIFEST, B, 3)
    ));
    let odd = format!(
        " \r\n\t{}\r\n",
        image.replace(',', "\r\n ,\t").replace("schemaVersion", r"schema\u0056ersion")
    );
    let manifest = parse(&odd).unwrap();
    assert_eq!(manifest.artifact_type.as_deref(), Some("application/x"));
    assert_eq!(manifest.subject, Some(Digest::parse(B).unwrap()));
    assert_eq!(manifest.descriptors.len(), 1, "an artifact may have nothing but its config");
    let go = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":null}}"#);
    assert!(parse(&go).unwrap().descriptors.is_empty());
}

#[test]
fn a_size_that_is_missing_or_impossible_is_unknown() {
    for (size, expected) in [
        ("12", Some(12)),
        ("12.0", Some(12)),
        ("1.2e1", Some(12)),
        ("18446744073709551615", Some(u64::MAX)),
        ("null", None),
        ("0", None),
        ("-1", None),
        ("12.5", None),
        ("1e300", None),
        ("99999999999999999999", None),
    ] {
        let layer = format!(r#"{{"mediaType":null,"digest":"{B}","size":{size}}}"#);
        let manifest = parse(&image(&format!(r#","layers":[{layer}]"#))).unwrap();
        assert_eq!(manifest.descriptors[1].size, expected, "{size}");
    }
    let manifest = parse(&image(&format!(r#","layers":[{{"digest":"{B}"}}]"#))).unwrap();
    assert_eq!(manifest.descriptors[1].size, None);
}

#[test]
fn an_odd_entry_does_not_cost_the_index() {
    let usual = descriptor(OCI_MANIFEST, A, 5);
    let other = descriptor(OCI_MANIFEST, &format!("sha384:{}", "a".repeat(96)), 5);
    let manifest = parse(&index(&format!("{other},{usual}"))).unwrap();
    assert_eq!(manifest.children().map(|child| child.digest.as_str()).collect::<Vec<_>>(), [A]);
    for platform in ["null", "{}", r#"{"os":null,"architecture":"amd64"}"#, r#"{"os":"linux"}"#] {
        let entry = format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{A}","platform":{platform}}}"#);
        assert_eq!(parse(&index(&entry)).unwrap().descriptors[0].platform, None, "{platform}");
    }
    let with_lists = format!(r#"{{"schemaVersion":2,"layers":[],"config":null,"manifests":[{usual}]}}"#);
    assert!(parse(&with_lists).unwrap().is_index());
}

#[test]
fn foreign_layers_are_named_but_not_fetched() {
    let foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", A, 1);
    let restricted = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", B, 1);
    let manifest = parse(&image(&format!(r#","layers":[{foreign},{restricted}]"#))).unwrap();
    assert_eq!((manifest.descriptors.len(), manifest.blobs().count()), (3, 1));
}

#[test]
fn the_body_says_its_type_and_the_declared_one_may_not_be_another() {
    let with = |own: &str, declared: &str| {
        let body = if own.is_empty() { image("") } else { image(&format!(r#","mediaType":"{own}""#)) };
        Manifest::parse(body.as_bytes(), Some(&MediaType::new(declared)))
            .map(|manifest| manifest.media_type.to_string())
    };
    assert_eq!(with(DOCKER_MANIFEST, "application/json").unwrap(), DOCKER_MANIFEST);
    assert_eq!(with(DOCKER_MANIFEST, "text/html").unwrap(), DOCKER_MANIFEST);
    assert_eq!(with(DOCKER_MANIFEST, &format!("{DOCKER_MANIFEST}; charset=utf-8")).unwrap(), DOCKER_MANIFEST);
    assert_eq!(with("", DOCKER_MANIFEST).unwrap(), DOCKER_MANIFEST);
    assert_eq!(with("", "application/octet-stream").unwrap(), OCI_MANIFEST);
    assert_eq!(with("", "binary/octet-stream").unwrap(), OCI_MANIFEST);
    let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    assert_eq!(
        with(OCI_MANIFEST, schema1).unwrap(),
        OCI_MANIFEST,
        "some registries send it for every manifest"
    );
    assert_eq!(with(DOCKER_MANIFEST, OCI_MANIFEST), Err(ManifestError::TypeConflict));
    assert_eq!(with(OCI_MANIFEST, DOCKER_LIST), Err(ManifestError::TypeConflict));
    assert_eq!(with("", "text/html"), Err(ManifestError::UnknownType));
    assert_eq!(with("application/vnd.oci.artifact.manifest.v1+json", ""), Err(ManifestError::UnknownType));
    assert_eq!(with("", OCI_INDEX), Err(ManifestError::Ambiguous));
}

#[test]
fn what_is_no_manifest_is_refused_with_the_reason() {
    let layers = format!(r#","layers":[{}]"#, descriptor("l", B, 1));
    let both = image(&format!(r#"{layers},"manifests":[{}]"#, descriptor(OCI_MANIFEST, B, 1)));
    let untyped_index = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}"}}"#);
    for (body, error) in [
        (String::new(), ManifestError::Json { line: 1, column: 0 }),
        ("<html>".to_owned(), ManifestError::Json { line: 1, column: 1 }),
        ("[2,null,null,null,null,null,null,null]".to_owned(), ManifestError::Json { line: 1, column: 1 }),
        ("{}".to_owned(), ManifestError::SchemaVersion),
        (r#"{"schemaVersion":2}"#.to_owned(), ManifestError::Missing("config")),
        (r#"{"schemaVersion":3}"#.to_owned(), ManifestError::SchemaVersion),
        (r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#.to_owned(), ManifestError::Schema1),
        (both, ManifestError::Ambiguous),
        (format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}"{layers}}}"#), ManifestError::Ambiguous),
        (untyped_index, ManifestError::Missing("manifests")),
        (format!(r#"{{"schemaVersion":2{layers}}}"#), ManifestError::Missing("config")),
        (image(&layers.replace(B, "sha256:bb")), ManifestError::Digest),
        (image(&layers.replace(B, "md5:bb")), ManifestError::DigestAlgorithm),
        (image(&layers.replace(B, "md5:b/b")), ManifestError::Digest),
        (index(&descriptor(OCI_MANIFEST, "../../etc", 1)), ManifestError::Digest),
        (image(&format!(r#","subject":{}"#, descriptor("x", "", 1))), ManifestError::Digest),
        (" ".repeat(MAX_MANIFEST_BYTES + 1), ManifestError::TooLarge),
    ] {
        let refused = parse(&body);
        let shown = &body[..body.len().min(200)];
        match (&refused, &error) {
            // The position in the line depends on serde.
            (Err(ManifestError::Json { .. }), ManifestError::Json { .. }) => {}
            _ => assert_eq!(refused, Err(error), "{shown}"),
        }
    }
    for body in [
        image(r#","config":{}"#),
        image(r#","layers":{}"#),
        image(&layers.replace(":1}", r#":"1"}"#)),
        format!("{}x", image("")),
        format!("\u{feff}{}", image("")),
    ] {
        assert!(matches!(parse(&body), Err(ManifestError::Json { .. })), "{body}");
    }
}

#[test]
fn the_number_of_descriptors_is_bounded() {
    let entry = descriptor(OCI_MANIFEST, A, 1);
    let entries = |count| index(&vec![entry.as_str(); count].join(","));
    assert_eq!(parse(&entries(MAX_DESCRIPTORS)).unwrap().descriptors.len(), MAX_DESCRIPTORS);
    assert_eq!(parse(&entries(MAX_DESCRIPTORS + 1)), Err(ManifestError::TooManyDescriptors));
}

#[test]
fn a_platform_is_two_or_three_words() {
    for text in ["linux/amd64", "linux/arm64/v8", "windows/amd64", "unknown/unknown"] {
        assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
    }
    for text in ["", "linux", "/", "linux/", "/amd64", "linux/arm/", "a/b/c/d", "a b/c"] {
        assert!(text.parse::<Platform>().is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_parsing_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::parse(&bytes, None);
    }

    #[test]
    fn cutting_or_altering_a_manifest_never_panics(at in any::<usize>(), by in any::<u8>()) {
        let mut bytes = image(&format!(r#","layers":[{}]"#, descriptor("l", B, 1))).into_bytes();
        let at = at % bytes.len();
        let _ = Manifest::parse(&bytes[..at], None);
        bytes[at] = by;
        let _ = Manifest::parse(&bytes, None);
    }
}
