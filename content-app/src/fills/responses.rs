//! The responses that the present bytes came from.

use crate::source::Contributors;

/// The sources of the present bytes.
#[derive(Debug, Default)]
pub(super) struct Responses {
    /// By index: one entry for each response.
    sources: Vec<usize>,
    /// Some bytes are from an earlier fill, whose source is unknown.
    is_resumed: bool,
}

impl Responses {
    /// No responses yet, and bytes of an earlier fill if `is_resumed`.
    pub(super) fn of_earlier_fill(is_resumed: bool) -> Self {
        Self { sources: Vec::new(), is_resumed }
    }

    /// Whether no source has responded yet.
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Adds a response of a source.
    pub(super) fn push(&mut self, source: usize) {
        self.sources.push(source);
    }

    /// Which sources the bytes came from.
    pub(super) fn contributors(&self) -> Contributors {
        match self.sources.as_slice() {
            [] if !self.is_resumed => Contributors::None,
            [first, rest @ ..] if !self.is_resumed && rest.iter().all(|source| source == first) => {
                Contributors::One { source: *first, responses: self.sources.len() }
            }
            _ => Contributors::Several,
        }
    }
}
