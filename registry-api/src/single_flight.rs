//! One piece of work at a time for a key: a request for a key whose work is running joins that work.
//!
//! Spawned work runs on the main runtime and continues when the request that started it is dropped.

use std::{collections::HashMap, future::Future, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};

type Running<K, T> = Arc<Mutex<HashMap<K, Flight<T>>>>;

/// The running pieces of work, by key.
pub(crate) struct SingleFlight<K, T> {
    running: Running<K, T>,
    runtime: Handle,
}

/// A running piece of work, as its readers see it.
pub(crate) struct Flight<T>(watch::Receiver<Option<T>>);

/// The one who does the work of a key. Dropped without a result (a panic), it ends the flight all the same.
pub(crate) struct Publisher<K: Hash + Eq, T> {
    running: Running<K, T>,
    key: K,
    value: watch::Sender<Option<T>>,
}

/// What [`SingleFlight::begin`] found.
pub(crate) enum Begin<K: Hash + Eq, T> {
    /// The work of the key is running.
    Joined(Flight<T>),
    /// The caller does the work and publishes its result.
    Started(Publisher<K, T>),
}

impl<K, T> SingleFlight<K, T>
where
    K: Hash + Eq + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { running: Arc::default(), runtime }
    }

    /// Joins the work of `key`, or makes the caller the one who does it. For callers that are never dropped midway.
    pub(crate) fn begin(&self, key: K) -> Begin<K, T> {
        let mut running = self.running.lock();
        if let Some(flight) = running.get(&key) {
            return Begin::Joined(flight.clone());
        }
        let (value, receiver) = watch::channel(None);
        running.insert(key.clone(), Flight(receiver));
        Begin::Started(Publisher { running: Arc::clone(&self.running), key, value })
    }

    /// Joins the work of `key`, or spawns it. The second value is whether it was running already.
    pub(crate) fn join<W>(&self, key: K, work: impl FnOnce(Publisher<K, T>) -> W) -> (Flight<T>, bool)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        match self.begin(key) {
            Begin::Joined(flight) => (flight, true),
            Begin::Started(publisher) => {
                let flight = Flight(publisher.value.subscribe());
                self.runtime.spawn(work(publisher));
                (flight, false)
            }
        }
    }
}

impl<K: Hash + Eq, T> Publisher<K, T> {
    /// Publishes an interim value. The work continues.
    pub(crate) fn update(&self, value: T) {
        self.value.send_replace(Some(value));
    }

    /// Publishes the result. A request that arrives after a reader has seen it starts new work.
    pub(crate) fn finish(self, value: T) {
        self.running.lock().remove(&self.key);
        self.value.send_replace(Some(value));
    }
}

impl<K: Hash + Eq, T> Drop for Publisher<K, T> {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        // After `finish` the key may belong to new work.
        if running.get(&self.key).is_some_and(|flight| flight.0.same_channel(&self.value.subscribe())) {
            running.remove(&self.key);
        }
    }
}

impl<T: Clone> Flight<T> {
    /// The first published value that `is_wanted`; `None` when the work ended without one.
    pub(crate) async fn value(mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Option<T> {
        let value = self.0.wait_for(|value| value.as_ref().is_some_and(&mut is_wanted)).await;
        value.ok().and_then(|value| value.clone())
    }

    /// The result of work that publishes no interim values; `None` when the work panicked.
    pub(crate) async fn result(self) -> Option<T> {
        self.value(|_| true).await
    }
}

impl<T> Clone for Flight<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    fn flights() -> SingleFlight<&'static str, usize> {
        SingleFlight::new(Handle::current())
    }

    #[tokio::test]
    async fn ten_requests_make_one_piece_of_work() {
        let flights = flights();
        let runs = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Notify::new());
        let joined: Vec<_> = (0..10)
            .map(|_| {
                let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
                flights.join("key", |publisher| async move {
                    gate.notified().await;
                    publisher.finish(runs.fetch_add(1, Ordering::SeqCst) + 1);
                })
            })
            .collect();
        assert_eq!(joined.iter().filter(|(_, joined)| !joined).count(), 1);
        gate.notify_one();
        for (flight, _) in joined {
            assert_eq!(flight.result().await, Some(1));
        }
        assert!(flights.running.lock().is_empty());
    }

    #[tokio::test]
    async fn an_interim_value_precedes_the_result() {
        let flights = flights();
        let gate = Arc::new(Notify::new());
        let opened = Arc::clone(&gate);
        let (flight, _) = flights.join("key", |publisher| async move {
            publisher.update(7);
            opened.notified().await;
            publisher.finish(8);
        });
        assert_eq!(flight.clone().value(|_| true).await, Some(7));
        gate.notify_one();
        assert_eq!(flight.value(|value| *value == 8).await, Some(8));
    }

    #[tokio::test]
    async fn a_panic_ends_the_flight() {
        let flights = flights();
        let (flight, _) = flights.join("key", |_publisher| async { panic!("as a defect would") });
        assert_eq!(flight.result().await, None);
        assert!(flights.running.lock().is_empty());
    }

    #[tokio::test]
    async fn work_after_the_result_does_not_end_the_next_flight() {
        let flights = flights();
        let Begin::Started(first) = flights.begin("key") else { panic!("nothing runs yet") };
        first.finish(1);
        let Begin::Started(second) = flights.begin("key") else { panic!("the first has ended") };
        let Begin::Joined(flight) = flights.begin("key") else { panic!("the second runs") };
        second.finish(2);
        assert_eq!(flight.result().await, Some(2));
    }
}
