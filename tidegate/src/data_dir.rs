//! Directories for persistent data.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// A directory that could not be created, or a path that is not a directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot use directory {}: {error}", .path.display())]
pub(crate) struct DataDirError {
    path: PathBuf,
    error: io::Error,
}

/// Creates a directory unless it exists, accessible for its owner only.
///
/// # Errors
/// [`DataDirError`].
pub(crate) fn create(path: &Path) -> Result<(), DataDirError> {
    let create = || match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        }
        Err(error) => Err(error),
    };
    create().map_err(|error| DataDirError { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_is_created_with_its_parents_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        create(&path).unwrap();
        create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_in_its_place_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = create(file.path()).unwrap_err().to_string();
        let expected = format!("cannot use directory {}: ", file.path().display());
        assert!(error.starts_with(&expected), "{error}");
    }
}
