//! Who wants to know what an upstream was asked and what it sent.

/// Receives counts, for metrics. Called from whatever task speaks to the upstream, so it must not block.
pub trait Observer: Send + Sync {
    /// One HTTP exchange ended: token requests and redirect hops are counted too. `code` is 0 when no answer came.
    fn answered(&self, upstream: &str, method: &str, code: u16);

    /// `n` bytes of a body arrived.
    fn bytes(&self, upstream: &str, n: u64);
}

/// An [`Observer`] that counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn answered(&self, _upstream: &str, _method: &str, _code: u16) {}

    fn bytes(&self, _upstream: &str, _n: u64) {}
}
