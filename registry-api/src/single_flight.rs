//! One piece of work at a time for one key: whoever asks while it runs joins it.
//!
//! The work runs on the main runtime, so that it goes on when the request that began it is dropped.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// The pieces of work that run now, each with an early word `E` and a result `T`.
pub(crate) struct Flights<K, E, T> {
    running: Arc<Mutex<HashMap<K, Flight<E, T>>>>,
    runtime: tokio::runtime::Handle,
}

/// One piece of work that runs.
pub(crate) struct Flight<E, T> {
    early: watch::Receiver<Option<E>>,
    result: watch::Receiver<Option<T>>,
}

impl<E, T> Clone for Flight<E, T> {
    fn clone(&self) -> Self {
        Self { early: self.early.clone(), result: self.result.clone() }
    }
}

/// What is there first: the early word, or the result.
pub(crate) enum First<E, T> {
    /// The work goes on.
    Early(E),
    /// The work is done; `None` when it panicked.
    Result(Option<T>),
}

impl<K, E, T> Flights<K, E, T>
where
    K: Hash + Eq + Clone + Send + 'static,
    E: Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(runtime: tokio::runtime::Handle) -> Self {
        Self { running: Arc::default(), runtime }
    }

    /// Joins the work for `key`, or starts it. The second value says whether it ran already.
    pub(crate) fn join<W>(
        &self,
        key: K,
        work: impl FnOnce(watch::Sender<Option<E>>) -> W,
    ) -> (Flight<E, T>, bool)
    where
        W: Future<Output = T> + Send + 'static,
    {
        let mut running = self.lock();
        if let Some(flight) = running.get(&key) {
            return (flight.clone(), true);
        }
        let (say_early, early) = watch::channel(None);
        let (say_result, result) = watch::channel(None);
        let flight = Flight { early, result };
        running.insert(key.clone(), flight.clone());
        drop(running);
        let landing = Landing { running: Arc::clone(&self.running), key };
        let work = work(say_early);
        self.runtime.spawn(async move {
            let result = work.await;
            // The flight is over before its result is told: who asks after the result sees what it recorded.
            drop(landing);
            say_result.send_replace(Some(result));
        });
        (flight, false)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Flight<E, T>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E, T> Flight<E, T>
where
    E: Clone,
    T: Clone,
{
    /// The result; `None` when the work panicked.
    pub(crate) async fn result(mut self) -> Option<T> {
        self.result.wait_for(Option::is_some).await.ok().and_then(|result| result.clone())
    }

    /// The early word or the result, whichever is there first.
    pub(crate) async fn first(mut self) -> First<E, T> {
        let Self { early, result } = &mut self;
        let told = tokio::select! {
            biased;
            told = result.wait_for(Option::is_some) => return First::Result(told.ok().and_then(|result| result.clone())),
            told = early.wait_for(Option::is_some) => told.ok().and_then(|early| early.clone()),
        };
        match told {
            Some(early) => First::Early(early),
            None => First::Result(self.result().await),
        }
    }
}

/// Takes a flight out of the running ones, also when its work panics.
struct Landing<K: Hash + Eq, E, T> {
    running: Arc<Mutex<HashMap<K, Flight<E, T>>>>,
    key: K,
}

impl<K: Hash + Eq, E, T> Drop for Landing<K, E, T> {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_asks_make_one_piece_of_work() {
        let flights: Flights<&str, (), usize> = Flights::new(tokio::runtime::Handle::current());
        let runs = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(tokio::sync::Notify::new());
        let asks: Vec<_> = (0..10)
            .map(|_| {
                let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
                flights.join("key", |_| async move {
                    gate.notified().await;
                    runs.fetch_add(1, Ordering::SeqCst) + 1
                })
            })
            .collect();
        assert_eq!(asks.iter().filter(|(_, joined)| !joined).count(), 1);
        gate.notify_one();
        for (flight, _) in asks {
            assert_eq!(flight.result().await, Some(1));
        }
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn an_early_word_comes_before_the_result_and_a_panic_ends_the_flight() {
        let flights: Flights<u8, u8, u8> = Flights::new(tokio::runtime::Handle::current());
        let gate = Arc::new(tokio::sync::Notify::new());
        let held = Arc::clone(&gate);
        let (flight, _) = flights.join(1, |early| async move {
            early.send_replace(Some(7));
            held.notified().await;
            8
        });
        assert!(matches!(flight.clone().first().await, First::Early(7)));
        gate.notify_one();
        assert_eq!(flight.clone().result().await, Some(8));
        assert!(matches!(flight.first().await, First::Result(Some(8))));

        let (flight, _) = flights.join(2, |_| async { panic!("as a defect would") });
        assert_eq!(flight.result().await, None);
        assert!(flights.lock().is_empty());
    }
}
