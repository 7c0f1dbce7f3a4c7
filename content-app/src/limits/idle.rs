//! A resource that is dropped when it is not used and others need it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;

/// A resource that was not used for this long, and up to twice as long, is dropped when others wait.
const DROP_AFTER: Duration = Duration::from_secs(1);

/// A place for a resource, such as a connection with its permit, while its client does not read.
pub(crate) struct Idle<T>(Arc<Mutex<Place<T>>>);

struct Place<T> {
    resource: Option<T>,
    was_used: bool,
}

impl<T: Send + 'static> Idle<T> {
    /// An empty place, whose resource may be dropped while `is_contended`.
    pub(super) fn new(is_contended: impl Fn() -> bool + Send + 'static) -> Self {
        let place = Arc::new(Mutex::new(Place { resource: None, was_used: false }));
        tokio::spawn(watch(Arc::downgrade(&place), is_contended));
        Self(place)
    }

    /// Stores the resource.
    pub(crate) fn put(&self, resource: T) {
        *self.0.lock() = Place { resource: Some(resource), was_used: true };
    }

    /// Takes the resource out; `None` when it was dropped.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().resource.take()
    }
}

async fn watch<T>(place: Weak<Mutex<Place<T>>>, is_contended: impl Fn() -> bool) {
    // Ends with the place.
    loop {
        tokio::time::sleep(DROP_AFTER).await;
        let Some(place) = place.upgrade() else { return };
        let dropped = {
            let mut place = place.lock();
            let was_used = std::mem::replace(&mut place.was_used, false);
            if was_used || !is_contended() { None } else { place.resource.take() }
        };
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_unused_resource_is_dropped_while_others_wait() {
        let contended = Arc::new(AtomicBool::new(false));
        let others = Arc::clone(&contended);
        let idle = Idle::new(move || others.load(Ordering::Relaxed));
        let resource = Arc::new(());
        idle.put(Arc::clone(&resource));
        tokio::time::sleep(5 * DROP_AFTER).await;
        assert_eq!(Arc::strong_count(&resource), 2);

        contended.store(true, Ordering::Relaxed);
        for _ in 0..5 {
            idle.put(idle.take().unwrap());
            tokio::time::sleep(DROP_AFTER / 2).await;
        }
        tokio::time::sleep(3 * DROP_AFTER).await;
        assert_eq!(Arc::strong_count(&resource), 1);
        assert!(idle.take().is_none());
    }
}
