//! Checks that the path of a SQLite database still names the file that was opened.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, OnceLock},
};

use rustix::fs::{Access, access};

use super::DbError;

/// The path of the file, and the identity of the file that was opened. Cheap to clone.
#[derive(Clone)]
pub(super) struct DatabaseFile {
    path: Arc<Path>,
    opened: Arc<OnceLock<Identity>>,
}

/// Device and inode.
type Identity = (u64, u64);

impl DatabaseFile {
    pub(super) fn new(path: &str) -> Self {
        // SQLite also resolves a relative path only once.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        Self { path: path.into(), opened: Arc::default() }
    }

    /// Records the identity of the file that the path names now. Blocks.
    pub(super) fn remember(&self) -> Result<(), DbError> {
        let found = self.identity().map_err(|error| self.unavailable("not found", &error))?;
        self.opened.get_or_init(|| found);
        Ok(())
    }

    /// Checks that the path still names the same file, and that the file is writable. Does not open
    /// it: closing any descriptor of a file releases the locks that SQLite holds on it. Blocks.
    pub(super) fn check(&self) -> Result<(), DbError> {
        let found = self.identity().map_err(|error| self.unavailable("not found", &error))?;
        if self.opened.get().is_some_and(|opened| *opened != found) {
            let reason = format!("{} was replaced by another file", self.path.display());
            return Err(DbError::unavailable(reason));
        }
        access(&*self.path, Access::WRITE_OK).map_err(|error| self.unavailable("not writable", &error.into()))
    }

    fn identity(&self) -> io::Result<Identity> {
        let file = fs::metadata(&self.path)?;
        Ok((file.dev(), file.ino()))
    }

    fn unavailable(&self, what: &str, error: &io::Error) -> DbError {
        DbError::unavailable(format!("{} {what}: {error}", self.path.display()))
    }
}
