//! What a fill knows of the bytes that have landed.

use std::sync::Arc;

use blob_store::Segments;
use oci_types::Digest;

use super::{plan::Map, verifier::Verifier};

/// What the landed bytes can be checked against when more is asked of the same source.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The source, by index.
    pub(crate) source: usize,
    /// The source, by name.
    pub(crate) name: String,
    /// The strong validator that the bytes came with (RFC 9110, section 8.8.1).
    pub(crate) validator: String,
}

/// What is thrown away when the bytes turn out to be wrong.
pub(super) struct Life {
    pub(super) map: Map,
    pub(super) verifier: Arc<Verifier>,
    /// From whom landed bytes came with a validator.
    pub(super) origin: Option<Origin>,
    /// The sources, by index, that landed bytes came from.
    pub(super) contributors: Vec<usize>,
    /// Some bytes are from an earlier fill, and nobody knows from which source.
    pub(super) inherited: bool,
}

impl Life {
    /// With `present` here already, from `origin` where that is known.
    pub(super) fn new(digest: &Digest, present: Segments, origin: Option<Origin>) -> Self {
        Self {
            inherited: !present.is_empty(),
            map: Map::resuming(present),
            verifier: Arc::new(Verifier::new(digest.algorithm())),
            origin,
            contributors: Vec::new(),
        }
    }

    /// Nothing is here any more.
    pub(super) fn forget(&mut self, digest: &Digest) {
        self.map.forget();
        let map = std::mem::take(&mut self.map);
        *self = Self { map, ..Self::new(digest, Segments::default(), None) };
    }
}
