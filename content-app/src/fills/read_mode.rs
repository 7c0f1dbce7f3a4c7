//! How much of a blob somebody reads.

/// What a reader asks for. It decides what the reader is shown of a blob that is not verified yet, and which downloads are
/// started for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it, from the first byte on. The end is held back until the digest is right.
    Whole,
    /// From some byte on to the end, in order, for another node. Held back like the whole.
    Rest,
    /// Anything else: shown as it lands, where the policy says so.
    Window,
}

impl Part {
    /// Whether the bytes up to the end are wanted, so that one download may bring them all.
    pub(crate) fn runs_to_the_end(self) -> bool {
        self != Self::Window
    }
}
