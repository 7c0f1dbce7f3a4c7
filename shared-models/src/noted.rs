//! Read-time statistics: gathered in memory, written every few seconds, never a write a request.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::db::DbError;
use oci_types::Millis;

/// When each thing was used last, as far as it is not written yet.
#[derive(Debug)]
pub struct Noted<K>(Mutex<HashMap<K, Millis>>);

impl<K> Default for Noted<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone> Noted<K> {
    /// Notes that `key` is used now.
    pub fn note(&self, key: &K) {
        let now = Millis::now();
        let mut noted = self.lock();
        match noted.get_mut(key) {
            Some(at) => *at = now,
            None => drop(noted.insert(key.clone(), now)),
        }
    }

    /// Has `write` write what was noted. What could not be written is noted again, unless it was used since.
    ///
    /// # Errors
    /// What `write` says.
    pub async fn write(
        &self,
        write: impl AsyncFnOnce(&[(K, Millis)]) -> Result<(), DbError>,
    ) -> Result<(), DbError> {
        let rows: Vec<_> = std::mem::take(&mut *self.lock()).into_iter().collect();
        if rows.is_empty() {
            return Ok(());
        }
        let written = write(&rows).await;
        if written.is_err() {
            let mut noted = self.lock();
            for (key, at) in rows {
                noted.entry(key).or_insert(at);
            }
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Millis>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_could_not_be_written_is_written_the_next_time() {
        let noted = Noted::default();
        noted.note(&"a");
        noted.note(&"a");
        let lost = noted.write(async |_| Err(DbError::Unavailable("away".to_owned()))).await;
        assert!(lost.is_err());
        noted.note(&"b");
        let mut written = Vec::new();
        noted
            .write(async |rows| {
                written.extend(rows.iter().map(|(key, _)| *key));
                Ok(())
            })
            .await
            .unwrap();
        written.sort_unstable();
        assert_eq!(written, ["a", "b"]);
        noted.write(async |_| panic!("nothing is left to write")).await.unwrap();
    }
}
