//! The file of a SQLite database, as the rest of the machine sees it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, OnceLock},
};

use rustix::fs::{Access, access};

use super::DbError;

/// The file that was opened, under the path where it was found. Cheap to clone.
#[derive(Clone)]
pub(super) struct DatabaseFile {
    path: Arc<Path>,
    opened: Arc<OnceLock<Identity>>,
}

/// Which file it is: device and inode.
type Identity = (u64, u64);

impl DatabaseFile {
    pub(super) fn new(path: &str) -> Self {
        // Like SQLite, which keeps the folder that the process was in.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        Self { path: path.into(), opened: Arc::default() }
    }

    /// Notes which file is there now. Blocks.
    pub(super) fn remember(&self) -> Result<(), DbError> {
        let found = self.identity().map_err(|error| self.unavailable("cannot be found", &error))?;
        self.opened.get_or_init(|| found);
        Ok(())
    }

    /// Whether it is still there and may be written. It is never opened for that: to close it would drop the locks that
    /// SQLite holds on it. Blocks.
    pub(super) fn check(&self) -> Result<(), DbError> {
        let found = self.identity().map_err(|error| self.unavailable("is gone", &error))?;
        if self.opened.get().is_some_and(|opened| *opened != found) {
            let reason = format!("{} is another file than the one that was opened", self.path.display());
            return Err(DbError::unavailable(reason));
        }
        access(&*self.path, Access::WRITE_OK)
            .map_err(|error| self.unavailable("cannot be written", &error.into()))
    }

    fn identity(&self) -> io::Result<Identity> {
        let file = fs::metadata(&self.path)?;
        Ok((file.dev(), file.ino()))
    }

    fn unavailable(&self, what: &str, error: &io::Error) -> DbError {
        DbError::unavailable(format!("{} {what}: {error}", self.path.display()))
    }
}
