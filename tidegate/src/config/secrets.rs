//! Reads the files and variables that a configuration names.

use std::{fs, io, path::Path};

use blob_store::AccessKeys;
use secrecy::{ExposeSecret, SecretString};

use super::{
    Content, Storage, Upstream,
    assemble::place_of,
    environment::{Variables, variable},
    error::{ConfigError, Problem},
    registries::Credentials,
    tree::Node,
};

/// The fewest hexadecimal digits of a link key: 32 bytes.
const LINK_KEY_DIGITS: usize = 64;

/// Fills `credentials` and `ca_pem` of an upstream.
///
/// # Errors
/// [`Problem::File`], [`Problem::Conflict`].
pub(crate) fn of_upstream(
    upstream: &mut Upstream,
    node: &Node,
    variables: &Variables,
) -> Result<(), ConfigError> {
    let conflict = |key: &str, text: String| Problem::Conflict(text).at(place_of(node, key));
    let name = &upstream.name;
    let password = match (&upstream.password_file, &upstream.password_env) {
        (Some(_), Some(_)) => {
            let text = format!("the upstream `{name}` has both `password_file` and `password_env`");
            return Err(conflict("password_env", text));
        }
        (Some(file), None) => Some(("password_file", line_of(node, "password_file", file)?)),
        (None, Some(env)) => {
            let value = variable(variables, env).ok_or_else(|| {
                conflict("password_env", format!("`password_env`: the variable {env} is not set"))
            })?;
            Some(("password_env", SecretString::from(value)))
        }
        (None, None) => None,
    };
    upstream.credentials = match (upstream.username.clone(), password) {
        (Some(username), Some((_, password))) => Some(Credentials { username, password }),
        (None, None) => None,
        (Some(_), None) => {
            let text = format!(
                "the upstream `{name}` has a `username`, but neither `password_file` nor `password_env`"
            );
            return Err(conflict("username", text));
        }
        (None, Some((key, _))) => {
            return Err(conflict(key, format!("the upstream `{name}` has a password, but no `username`")));
        }
    };
    upstream.ca_pem = certificates(node, upstream.ca_file.as_deref())?;
    Ok(())
}

/// Fills `keys` and `ca_pem` of the storage.
///
/// # Errors
/// [`Problem::File`].
pub(crate) fn of_storage(storage: &mut Storage, node: &Node) -> Result<(), ConfigError> {
    if let (Some(access), Some(secret)) = (&storage.access_key_file, &storage.secret_key_file) {
        storage.keys = Some(AccessKeys {
            access_key: line_of(node, "access_key_file", access)?,
            secret_key: line_of(node, "secret_key_file", secret)?,
            session_token: None,
        });
    }
    storage.ca_pem = certificates(node, storage.ca_file.as_deref())?;
    Ok(())
}

/// Fills the secrets of the link keys, of which `nodes` are the tables.
///
/// # Errors
/// [`Problem::File`].
pub(crate) fn of_link_keys(content: &mut Content, nodes: &[Node]) -> Result<(), ConfigError> {
    for (key, node) in content.link_keys.iter_mut().zip(nodes) {
        let secret = line_of(node, "file", &key.file)?;
        if !is_link_key(secret.expose_secret()) {
            let reason = "must hold at least 64 hexadecimal digits, as `openssl rand -hex 32` prints them";
            return Err(file_problem(node, "file", &key.file, reason.to_owned()));
        }
        key.secret = secret;
    }
    Ok(())
}

/// Whether a text is a link key: whole bytes in hexadecimal digits, 32 of them or more.
pub(crate) fn is_link_key(text: &str) -> bool {
    text.len() >= LINK_KEY_DIGITS
        && text.len().is_multiple_of(2)
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What the file of `ca_file` holds.
fn certificates(node: &Node, file: Option<&Path>) -> Result<Option<Vec<u8>>, ConfigError> {
    let Some(file) = file else { return Ok(None) };
    let pem = fs::read(file).map_err(|error| unreadable(node, "ca_file", file, &error))?;
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Err(file_problem(node, "ca_file", file, "holds no certificate in PEM form".to_owned()));
    }
    Ok(Some(pem))
}

/// The text of a file without the line end behind it; it must be one line.
fn line_of(node: &Node, key: &'static str, file: &Path) -> Result<SecretString, ConfigError> {
    let text = fs::read_to_string(file).map_err(|error| unreadable(node, key, file, &error))?;
    let line = text.trim_end_matches(['\n', '\r']);
    match line {
        "" => Err(file_problem(node, key, file, "is empty".to_owned())),
        line if line.contains('\n') => {
            Err(file_problem(node, key, file, "has more than one line".to_owned()))
        }
        line => Ok(SecretString::from(line)),
    }
}

fn unreadable(node: &Node, key: &'static str, file: &Path, error: &io::Error) -> ConfigError {
    file_problem(node, key, file, format!("cannot be read: {error}"))
}

fn file_problem(node: &Node, key: &'static str, file: &Path, reason: String) -> ConfigError {
    Problem::File { key, file: file.display().to_string(), reason }.at(place_of(node, key))
}
