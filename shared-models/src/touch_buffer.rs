//! Last-use times: collected in memory, written at intervals.

use std::{collections::HashMap, hash::Hash};

use parking_lot::Mutex;

use crate::db::DbError;
use oci_types::Millis;

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

    /// Passes the times to `write`. If it fails, they are kept for the next call.
    ///
    /// # Errors
    /// Those of `write`.
    pub async fn flush(
        &self,
        write: impl AsyncFnOnce(&[(K, Millis)]) -> Result<(), DbError>,
    ) -> Result<(), DbError> {
        let rows: Vec<_> = std::mem::take(&mut *self.0.lock()).into_iter().collect();
        if rows.is_empty() {
            return Ok(());
        }
        let written = write(&rows).await;
        if written.is_err() {
            let mut times = self.0.lock();
            for (key, at) in rows {
                times.entry(key).or_insert(at);
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn times_that_were_not_written_are_written_by_the_next_flush() {
        let buffer = TouchBuffer::default();
        buffer.touch(&"a");
        buffer.touch(&"a");
        let failed = buffer.flush(async |_| Err(DbError::unavailable("away"))).await;
        assert!(matches!(failed, Err(DbError::Unavailable(_))), "{failed:?}");
        buffer.touch(&"b");
        let mut written = Vec::new();
        buffer
            .flush(async |rows| {
                written.extend(rows.iter().map(|(key, _)| *key));
                Ok(())
            })
            .await
            .unwrap();
        written.sort_unstable();
        assert_eq!(written, ["a", "b"]);
        buffer.flush(async |_| panic!("nothing is left to write")).await.unwrap();
    }
}
