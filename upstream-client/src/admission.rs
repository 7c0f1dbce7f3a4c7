//! The limits of what one upstream may cost this process: requests in flight, and memory for their bodies.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::{Upstream, UpstreamConfig, UpstreamError, tags::MAX_PAGE_BYTES};

/// The unit of memory permits, in bytes.
const MEMORY_UNIT: u64 = 1024;

/// The limits of one upstream.
pub(crate) struct Admission {
    requests: Semaphore,
    queued: Semaphore,
    memory: Arc<Semaphore>,
    /// All memory, in units.
    memory_units: u32,
    lists: Arc<Semaphore>,
}

/// Memory for one body. Released when it is dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    _permit: Option<OwnedSemaphorePermit>,
}

/// The right to collect the pages of a list of tags. Released when it is dropped.
#[derive(Debug)]
pub struct ListPermit {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    pub(crate) fn new(config: &UpstreamConfig) -> Self {
        let memory_units =
            u32::try_from(config.metadata_memory.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX >> 3);
        let memory_units = memory_units.min(u32::MAX >> 3);
        let memory_bytes = usize::try_from(config.metadata_memory).unwrap_or(usize::MAX);
        Self {
            requests: Semaphore::new(config.max_requests),
            queued: Semaphore::new(config.max_queued_requests),
            memory: Arc::new(Semaphore::new(usize::try_from(memory_units).unwrap_or(usize::MAX >> 3))),
            memory_units,
            // A list needs about as much memory as one of its pages at most.
            lists: Arc::new(Semaphore::new((memory_bytes / MAX_PAGE_BYTES).max(1))),
        }
    }

    /// Waits for the right to have a request in flight.
    ///
    /// # Errors
    /// [`UpstreamError::Busy`] after `limit`, or at once when too many requests wait.
    pub(crate) async fn request(&self, limit: Duration) -> Result<SemaphorePermit<'_>, UpstreamError> {
        if let Ok(permit) = self.requests.try_acquire() {
            return Ok(permit);
        }
        let _queued = self.queued.try_acquire().map_err(|_| UpstreamError::Busy)?;
        match timeout(limit, self.requests.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::Busy),
        }
    }

    /// Waits for memory for a body of at most `bytes`. A body that is larger than all memory gets all of it.
    pub(crate) async fn memory(&self, bytes: u64) -> MemoryPermit {
        let units = u32::try_from(bytes.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX).min(self.memory_units);
        MemoryPermit { _permit: Arc::clone(&self.memory).acquire_many_owned(units).await.ok() }
    }
}

impl Upstream {
    /// Waits for the right to keep a list of tags while its next page is fetched. The number of such lists depends on
    /// `metadata_memory`.
    ///
    /// # Errors
    /// [`UpstreamError::Busy`] after the time limit of a request.
    pub async fn admit_list(&self) -> Result<ListPermit, UpstreamError> {
        let lists = Arc::clone(&self.transport.admission.lists);
        match timeout(self.transport.config.answer_timeout, lists.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(ListPermit { _permit: permit }),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;
    use crate::Unobserved;

    fn admission(max_requests: usize, max_queued_requests: usize, metadata_memory: u64) -> Admission {
        let mut config = UpstreamConfig::new("a", "http://a.test".parse().unwrap());
        (config.max_requests, config.max_queued_requests) = (max_requests, max_queued_requests);
        config.metadata_memory = metadata_memory;
        Admission::new(&config)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_in_a_bounded_queue_for_a_bounded_time() {
        let admission = admission(1, 1, 1024);
        let first = admission.request(Duration::from_secs(8)).await.unwrap();
        let mut waiting = Box::pin(admission.request(Duration::from_secs(8)));
        assert!(futures::poll!(&mut waiting).is_pending());
        let refused = admission.request(Duration::from_secs(8)).now_or_never();
        assert_eq!(refused.map(|refused| refused.err()), Some(Some(UpstreamError::Busy)));
        drop(first);
        let second = waiting.await.unwrap();
        assert_eq!(admission.request(Duration::from_secs(8)).await.err(), Some(UpstreamError::Busy));
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_lists_depends_on_the_memory() {
        for (memory, lists) in [(1, 1), (64 << 20, 4)] {
            let mut config = UpstreamConfig::new("a", "http://a.test".parse().unwrap());
            config.metadata_memory = memory;
            let upstream = Upstream::new(config, Arc::new(Unobserved)).unwrap();
            let mut admitted = Vec::new();
            for _ in 0..lists {
                admitted.push(upstream.admit_list().await.unwrap());
            }
            assert_eq!(upstream.admit_list().await.err(), Some(UpstreamError::Busy));
            admitted.pop();
            assert!(upstream.admit_list().await.is_ok());
        }
    }

    #[tokio::test]
    async fn memory_is_bounded_and_a_large_body_gets_all_of_it() {
        let admission = admission(1, 1, 4096);
        let half = admission.memory(2048).await;
        assert!(admission.memory(1 << 40).now_or_never().is_none());
        let other = admission.memory(2000).now_or_never().unwrap();
        assert!(admission.memory(1).now_or_never().is_none());
        drop((half, other));
        assert!(admission.memory(1 << 40).now_or_never().is_some());
    }
}
