//! Two blobs that many images share: they are served as constants, without a request to an upstream.

use crate::Digest;

/// The empty tar archive, compressed by gzip: the layer of a build step that changes no file.
const EMPTY_LAYER: (&str, &[u8]) = (
    "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4",
    &[
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x09, 0x6e, 0x88, 0x00, 0xff, 0x62, 0x18, 0x05, 0xa3, 0x60, 0x14, 0x8c,
        0x58, 0x00, 0x08, 0x00, 0x00, 0xff, 0xff, 0x2e, 0xaf, 0xb5, 0xef, 0x00, 0x04, 0x00, 0x00,
    ],
);

/// The empty JSON object (image-spec: "Guidance for an Empty Descriptor").
const EMPTY_CONFIG: (&str, &[u8]) =
    ("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", b"{}");

/// The bytes of `digest`, if it is one of the two.
pub fn bytes(digest: &Digest) -> Option<&'static [u8]> {
    [EMPTY_LAYER, EMPTY_CONFIG].iter().find(|(known, _)| *known == digest.as_str()).map(|(_, bytes)| *bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_hash_to_their_digests() {
        for (digest, bytes) in [EMPTY_LAYER, EMPTY_CONFIG] {
            assert!(Digest::parse(digest).unwrap().matches(bytes), "{digest}");
        }
    }
}
