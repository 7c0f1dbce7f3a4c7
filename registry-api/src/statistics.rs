//! Read-time statistics: gathered in memory, written every few seconds, never a write a request.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use shared_models::{
    Millis, RepositoryName,
    db::{Db, DbError, repositories},
};

/// When each repository was pulled last, as far as it is not written yet.
#[derive(Default)]
pub(crate) struct Pulls(Mutex<HashMap<RepositoryName, Millis>>);

impl Pulls {
    /// Notes a pull.
    pub(crate) fn note(&self, repository: &RepositoryName) {
        let now = Millis::now();
        let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pulls.get_mut(repository) {
            Some(at) => *at = now,
            None => drop(pulls.insert(repository.clone(), now)),
        }
    }

    /// Writes what was noted. What could not be written is noted again, unless it was pulled since.
    pub(crate) async fn write(&self, db: &Db) -> Result<(), DbError> {
        let noted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if noted.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = noted.into_iter().collect();
        let written = repositories::touch_pulls(db, &rows).await;
        if written.is_err() {
            let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for (repository, at) in rows {
                pulls.entry(repository).or_insert(at);
            }
        }
        written
    }
}
