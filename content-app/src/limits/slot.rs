//! A permit that is released while it is not used.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A permit that was not used for this long, and up to twice as long, is released.
const RELEASE_AFTER: Duration = Duration::from_secs(1);

/// A permit of a semaphore, for work that waits for its client: while the client does not read, others get the permit.
pub(crate) struct Slot {
    semaphore: Arc<Semaphore>,
    held: Arc<Held>,
}

struct Held {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    is_used: AtomicBool,
}

impl Slot {
    /// Waits for a permit.
    pub(crate) async fn acquire(semaphore: Arc<Semaphore>) -> Self {
        let permit = Arc::clone(&semaphore).acquire_owned().await.ok();
        let held = Arc::new(Held { permit: Mutex::new(permit), is_used: AtomicBool::new(true) });
        let watched = Arc::downgrade(&held);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RELEASE_AFTER).await;
                let Some(held) = watched.upgrade() else { return };
                if !held.is_used.swap(false, Ordering::Relaxed) {
                    held.permit.lock().take();
                }
            }
        });
        Self { semaphore, held }
    }

    /// Marks the permit as used, and waits for one if it was released.
    pub(crate) async fn touch(&self) {
        self.held.is_used.store(true, Ordering::Relaxed);
        if self.held.permit.lock().is_some() {
            return;
        }
        let permit = Arc::clone(&self.semaphore).acquire_owned().await.ok();
        *self.held.permit.lock() = permit;
        self.held.is_used.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_permit_is_kept_while_it_is_used_and_released_after_that() {
        let semaphore = Arc::new(Semaphore::new(1));
        let slot = Slot::acquire(Arc::clone(&semaphore)).await;
        for _ in 0..5 {
            tokio::time::sleep(RELEASE_AFTER / 2).await;
            slot.touch().await;
            assert_eq!(semaphore.available_permits(), 0);
        }
        tokio::time::sleep(3 * RELEASE_AFTER).await;
        let other = Arc::clone(&semaphore).try_acquire_owned().unwrap();
        let mut waiting = Box::pin(slot.touch());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(other);
        waiting.await;
        assert_eq!(semaphore.available_permits(), 0);
        drop(slot);
        assert_eq!(semaphore.available_permits(), 1);
    }
}
