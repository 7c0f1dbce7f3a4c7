//! What a fill knows of the bytes that have landed.

use std::sync::Arc;

use blob_store::Segments;
use shared_models::Digest;

use super::{map::Map, verifier::Verifier};

/// What is thrown away when the bytes turn out to be wrong.
pub(super) struct Life {
    pub(super) map: Map,
    pub(super) verifier: Arc<Verifier>,
    /// The strong validator that the landed bytes came with, and from whom.
    pub(super) validator: Option<(usize, String)>,
    /// The sources, by index, that landed bytes came from.
    pub(super) contributors: Vec<usize>,
    /// Some bytes are from an earlier fill, and nobody knows from which source.
    pub(super) inherited: bool,
}

impl Life {
    /// With `present` here already.
    pub(super) fn new(digest: &Digest, present: Segments) -> Self {
        Self {
            inherited: !present.is_empty(),
            map: Map::resuming(present),
            verifier: Arc::new(Verifier::new(digest.algorithm())),
            validator: None,
            contributors: Vec::new(),
        }
    }

    /// Nothing is here any more.
    pub(super) fn forget(&mut self, digest: &Digest) {
        self.map.forget();
        let map = std::mem::take(&mut self.map);
        *self = Self { map, ..Self::new(digest, Segments::default()) };
    }
}
