//! Last-use times: collected in memory, written at intervals.

use std::{collections::HashMap, hash::Hash};

use parking_lot::Mutex;

use crate::db::DbError;
use oci_types::Millis;

/// The maximum number of rows that one transaction writes.
const MAX_ROWS: usize = 500;

/// The last-use times of keys that are not written yet.
#[derive(Debug)]
pub struct TouchBuffer<K>(Mutex<HashMap<K, Millis>>);

impl<K> Default for TouchBuffer<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone> TouchBuffer<K> {
    /// Records that `key` is used now.
    pub fn touch(&self, key: &K) {
        let now = Millis::now();
        let mut times = self.0.lock();
        match times.get_mut(key) {
            Some(at) => *at = now,
            None => drop(times.insert(key.clone(), now)),
        }
    }

    /// Passes the times to `write`, at most 500 of them at once. After a failure, those that were not
    /// written are kept for the next call.
    ///
    /// # Errors
    /// Those of `write`.
    pub async fn flush<F>(&self, mut write: impl FnMut(Vec<(K, Millis)>) -> F) -> Result<(), DbError>
    where
        F: Future<Output = Result<(), DbError>>,
    {
        let rows: Vec<_> = std::mem::take(&mut *self.0.lock()).into_iter().collect();
        for (number, chunk) in rows.chunks(MAX_ROWS).enumerate() {
            if let Err(error) = write(chunk.to_vec()).await {
                let mut times = self.0.lock();
                for (key, at) in rows.into_iter().skip(number * MAX_ROWS) {
                    times.entry(key).or_insert(at);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};

    use super::*;

    #[tokio::test]
    async fn times_that_were_not_written_are_written_by_the_next_flush() {
        let buffer = TouchBuffer::default();
        buffer.touch(&"a");
        buffer.touch(&"a");
        let failed = buffer.flush(|_| ready(Err(DbError::unavailable("away")))).await;
        assert!(matches!(failed, Err(DbError::Unavailable(_))), "{failed:?}");
        buffer.touch(&"b");
        let mut written = Vec::new();
        buffer
            .flush(|rows| {
                written.extend(rows.iter().map(|(key, _)| *key));
                ready(Ok(()))
            })
            .await
            .unwrap();
        written.sort_unstable();
        assert_eq!(written, ["a", "b"]);
        buffer.flush(|_| -> Ready<_> { panic!("nothing is left to write") }).await.unwrap();
    }

    #[tokio::test]
    async fn many_times_are_written_in_chunks_and_those_after_a_failure_are_kept() {
        let buffer = TouchBuffer::default();
        (0..1200).for_each(|key| buffer.touch(&key));
        let mut written = Vec::new();
        let failed = buffer
            .flush(|rows| {
                if !written.is_empty() {
                    return ready(Err(DbError::unavailable("away")));
                }
                written.extend(rows.iter().map(|(key, _)| *key));
                ready(Ok(()))
            })
            .await;
        assert!(matches!(failed, Err(DbError::Unavailable(_))), "{failed:?}");
        let mut chunks = vec![written.len()];
        buffer
            .flush(|rows| {
                chunks.push(rows.len());
                written.extend(rows.iter().map(|(key, _)| *key));
                ready(Ok(()))
            })
            .await
            .unwrap();
        assert_eq!(chunks, [500, 500, 200]);
        written.sort_unstable();
        assert_eq!(written, (0..1200).collect::<Vec<_>>());
    }
}
