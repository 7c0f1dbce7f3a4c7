//! The keys that sign content links: those of the configuration, else the key of the data directory, which the first run
//! creates.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rand::TryRng as _;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::{Digest as _, Sha256};

use crate::{
    config::{Settings, is_link_key},
    data_dir::{self, DataDirError},
};

#[cfg(test)]
mod tests;

/// The link key of a data folder.
const LINK_KEY_FILE: &str = "link.key";

/// Why the link key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkKeysError {
    /// The data directory could not be created.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The key file cannot be made or read.
    #[error("the link key {} cannot be made or read: {error}", .path.display())]
    LinkKey {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The key file holds something else.
    #[error("the link key {} must hold at least 64 hexadecimal digits; delete it to get a new one", .path.display())]
    NotALinkKey {
        /// The file.
        path: PathBuf,
    },
    /// The system has no random bytes to give.
    #[error("no random bytes for the link key: {0}")]
    Random(String),
}

/// A key that signs or verifies links to content.
#[derive(Debug)]
pub(crate) struct LoadedLinkKey {
    /// What it is called in a link.
    pub(crate) id: String,
    /// 32 bytes or more.
    pub(crate) secret: SecretSlice<u8>,
}

/// The keys of `content.link_keys`, of which the first signs. Without any: the key of the data folder, made if there
/// is none, so that the services agree when they share the folder.
///
/// # Errors
/// See [`LinkKeysError`].
pub(crate) fn link_keys(settings: &Settings) -> Result<Vec<LoadedLinkKey>, LinkKeysError> {
    let configured = settings.content.link_keys.iter().map(|key| {
        let not_a_key = || LinkKeysError::NotALinkKey { path: key.file.clone() };
        let secret = decode(&key.secret).ok_or_else(not_a_key)?;
        Ok(LoadedLinkKey { id: key.id.clone(), secret })
    });
    let configured = configured.collect::<Result<Vec<_>, LinkKeysError>>()?;
    if configured.is_empty() { Ok(vec![own_link_key(&settings.data_dir)?]) } else { Ok(configured) }
}

/// The link key of a data folder; its id follows from its bytes.
fn own_link_key(data_dir: &Path) -> Result<LoadedLinkKey, LinkKeysError> {
    data_dir::create(data_dir)?;
    let path = data_dir.join(LINK_KEY_FILE);
    let failed = |error| LinkKeysError::LinkKey { path: path.clone(), error };
    if !path.try_exists().map_err(failed)? {
        let digits = SecretString::from(hex::encode(random_bytes::<32>()?));
        write_once(&path, &digits).map_err(failed)?;
        tracing::info!(file = %path.display(), "made a key for links to content");
    }
    let text = SecretString::from(fs::read_to_string(&path).map_err(failed)?);
    let secret = decode(&text).ok_or_else(|| LinkKeysError::NotALinkKey { path: path.clone() })?;
    let mut id = hex::encode(Sha256::digest(secret.expose_secret()));
    id.truncate(8);
    Ok(LoadedLinkKey { id, secret })
}

/// Puts the whole text at `path`, or leaves what another process put there first: the name appears with the content
/// behind it, so that a process that loses the race never reads half a key.
fn write_once(path: &Path, text: &SecretString) -> io::Result<()> {
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

fn decode(text: &SecretString) -> Option<SecretSlice<u8>> {
    let digits = text.expose_secret().trim();
    let bytes = hex::decode(digits).ok().filter(|_| is_link_key(digits))?;
    Some(SecretSlice::from(bytes))
}
