//! What a first run makes, so that a newcomer needs no configuration: the data folder and the link key; and what a
//! process prints once it listens.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rand::TryRng as _;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::{Digest as _, Sha256};

use crate::{
    cli::Mode,
    config::{Settings, is_link_key},
};

#[cfg(test)]
mod tests;

/// The link key of a data folder.
const LINK_KEY_FILE: &str = "link.key";

/// Why the data folder or the link key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum FirstRunError {
    /// The folder cannot be made, or is no folder.
    #[error("the folder {} cannot be used: {error}", .path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
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
pub struct LoadedLinkKey {
    /// What it is called in a link.
    pub id: String,
    /// 32 bytes or more.
    pub secret: SecretSlice<u8>,
}

/// Makes the data folder, or the one for the local tier of the storage, unless it is there. Nobody but its owner may
/// look into it.
///
/// # Errors
/// [`FirstRunError::DataDir`].
pub fn create_data_dir(path: &Path) -> Result<(), FirstRunError> {
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
    create().map_err(|error| FirstRunError::DataDir { path: path.to_owned(), error })
}

/// The keys of `content.link_keys`, of which the first signs. Without any: the key of the data folder, made if there
/// is none, so that the services agree when they share the folder.
///
/// # Errors
/// See [`FirstRunError`].
pub fn link_keys(settings: &Settings) -> Result<Vec<LoadedLinkKey>, FirstRunError> {
    let configured = settings.content.link_keys.iter().map(|key| {
        let not_a_key = || FirstRunError::NotALinkKey { path: key.file.clone() };
        let secret = decode(&key.secret).ok_or_else(not_a_key)?;
        Ok(LoadedLinkKey { id: key.id.clone(), secret })
    });
    let configured = configured.collect::<Result<Vec<_>, FirstRunError>>()?;
    if configured.is_empty() { Ok(vec![own_link_key(&settings.data_dir)?]) } else { Ok(configured) }
}

/// The link key of a data folder; its id follows from its bytes.
fn own_link_key(data_dir: &Path) -> Result<LoadedLinkKey, FirstRunError> {
    create_data_dir(data_dir)?;
    let path = data_dir.join(LINK_KEY_FILE);
    let failed = |error| FirstRunError::LinkKey { path: path.clone(), error };
    if !path.try_exists().map_err(failed)? {
        let digits = SecretString::from(hex::encode(random_bytes::<32>()?));
        write_once(&path, &digits).map_err(failed)?;
        tracing::info!(file = %path.display(), "made a key for links to content");
    }
    let text = SecretString::from(fs::read_to_string(&path).map_err(failed)?);
    let secret = decode(&text).ok_or_else(|| FirstRunError::NotALinkKey { path: path.clone() })?;
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

fn random_bytes<const N: usize>() -> Result<[u8; N], FirstRunError> {
    let mut bytes = [0; N];
    rand::rngs::SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| FirstRunError::Random(error.to_string()))?;
    Ok(bytes)
}

fn decode(text: &SecretString) -> Option<SecretSlice<u8>> {
    let digits = text.expose_secret().trim();
    let bytes = hex::decode(digits).ok().filter(|_| is_link_key(digits))?;
    Some(SecretSlice::from(bytes))
}

/// Where a process listens, once it does.
#[derive(Debug, Clone, Copy)]
pub struct Listening {
    /// For clients.
    pub public: SocketAddr,
    /// For health, metrics and the other service.
    pub internal: SocketAddr,
}

/// What a process prints to standard output when it is ready. The first line is `listening on http://ADDR`, where
/// ADDR is the address that is really listened on.
pub fn banner(mode: Mode, listening: Listening, settings: &Settings) -> String {
    let mut lines = vec![
        format!("listening on http://{}", listening.public),
        format!("health and metrics on http://{}", listening.internal),
        format!("data in {}", absolute(&settings.data_dir).display()),
    ];
    if matches!(mode, Mode::Serve | Mode::RegistryApi) {
        lines.extend(pull_command(listening.public, settings).map(|command| format!("try: {command}")));
    }
    lines.join("\n")
}

/// A command that pulls through a namespace that is there: by preference Docker Hub's, of which an image is known that
/// everybody may pull.
fn pull_command(listen: SocketAddr, settings: &Settings) -> Option<String> {
    let pulled = settings.namespaces.iter().filter(|namespace| namespace.upstream.is_some());
    let named = || pulled.clone().filter(|namespace| !namespace.prefix.is_empty());
    let namespace = named()
        .find(|namespace| namespace.prefix == "docker.io" && namespace.include.is_empty())
        .or_else(|| named().next())
        .or_else(|| pulled.clone().next())?;
    let upstream =
        settings.upstreams.iter().find(|upstream| Some(&upstream.name) == namespace.upstream.as_ref())?;
    let image = match upstream.name.as_str() {
        "docker.io" if namespace.include.is_empty() => "library/alpine:latest",
        _ => "NAME:TAG",
    };
    let separator = if namespace.prefix.is_empty() { "" } else { "/" };
    Some(format!("docker pull {}/{}{separator}{image}", reachable(listen), namespace.prefix))
}

/// An address that a client on this machine can use: an unspecified one is any of them, also the loopback one.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
