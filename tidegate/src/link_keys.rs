//! The keys that sign content links: those of the configuration, else the key of the data directory, which the first run
//! creates.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use internal_api::{LinkKey, LinkKeyError, LinkKeys, MIN_SECRET_BYTES};
use rand::TryRng as _;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::{
    config::{LINK_KEY_FORMAT, LinkKeyFile, Settings},
    data_dir::{self, DataDirError},
};

#[cfg(test)]
mod tests;

/// The file in the data directory.
const FILE: &str = "link.key";

/// The length of the id of the data directory's key.
const ID_LENGTH: usize = 8;

/// A link key that could not be created, read or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkKeysError {
    /// The data directory could not be created.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The file could not be created or read.
    #[error("cannot use link key {}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The file contains something else.
    #[error("the link key {} {LINK_KEY_FORMAT}; delete it to create a new one", .0.display())]
    Content(PathBuf),
    /// The operating system returned no random bytes.
    #[error("failed to generate a link key: {0}")]
    Random(String),
    /// The id or the length of a key is invalid.
    #[error(transparent)]
    Key(#[from] LinkKeyError),
}

/// The keys of `content.link_keys`, of which the first signs; else the key of the data directory, which is created if it
/// does not exist. Services that share the directory agree on it.
///
/// # Errors
/// [`LinkKeysError`].
pub(crate) fn load(settings: &Settings) -> Result<Arc<LinkKeys>, LinkKeysError> {
    let configured = settings.content.links.link_keys.iter();
    let mut keys = configured.map(|key| LinkKey::new(&key.id, key.file.secret.expose_secret()));
    let first = match keys.next() {
        Some(key) => key?,
        None => of_data_dir(&settings.data_dir)?,
    };
    Ok(Arc::new(LinkKeys::new(first, keys.collect::<Result<_, _>>()?)))
}

/// The key of a data directory. Its id is derived from its bytes.
fn of_data_dir(data_dir: &Path) -> Result<LinkKey, LinkKeysError> {
    data_dir::create(data_dir)?;
    let path = data_dir.join(FILE);
    let failed = |error| LinkKeysError::File { path: path.clone(), error };
    if !path.try_exists().map_err(failed)? {
        let digits = SecretString::from(hex::encode(random_bytes::<MIN_SECRET_BYTES>()?));
        create_file(&path, &digits).map_err(failed)?;
        tracing::info!(file = %path.display(), "created the link signing key");
    }
    let text = SecretString::from(fs::read_to_string(&path).map_err(failed)?);
    let secret =
        LinkKeyFile::decode(text.expose_secret()).ok_or_else(|| LinkKeysError::Content(path.clone()))?;
    let mut id = hex::encode(Sha256::digest(secret.expose_secret()));
    id.truncate(ID_LENGTH);
    Ok(LinkKey::new(&id, secret.expose_secret())?)
}

/// Creates a file with its whole content, unless another process creates it first: no process reads half a key.
fn create_file(path: &Path, text: &SecretString) -> io::Result<()> {
    let unique = random_bytes::<8>().map_err(io::Error::other)?;
    let temporary = path.with_extension(format!("{}.tmp", hex::encode(unique)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let linked = writeln!(file, "{}", text.expose_secret())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&temporary, path));
    fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn random_bytes<const N: usize>() -> Result<[u8; N], LinkKeysError> {
    let mut bytes = [0; N];
    rand::rngs::SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| LinkKeysError::Random(error.to_string()))?;
    Ok(bytes)
}
