//! Counts of requests and bytes, for metrics.

/// Receives counts. Called from any task that sends requests to the upstream, so it must not block.
pub trait Observer: Send + Sync {
    /// An HTTP exchange ended; token requests and redirects count as exchanges. `code` is 0 without a response.
    fn request_completed(&self, upstream: &str, method: &str, code: u16);

    /// `count` bytes of a body arrived.
    fn bytes_received(&self, upstream: &str, count: u64);
}

/// An [`Observer`] that counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn request_completed(&self, _upstream: &str, _method: &str, _code: u16) {}

    fn bytes_received(&self, _upstream: &str, _count: u64) {}
}
