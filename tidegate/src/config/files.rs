//! Settings that name a file. The file is read with the configuration, so that an error has the location of the setting.

use std::{fs, path::PathBuf};

use internal_api::MIN_SECRET_BYTES;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The requirement on a file with a link key.
pub(crate) const LINK_KEY_FORMAT: &str =
    "must contain at least 64 hexadecimal digits, such as the output of `openssl rand -hex 32`";

/// A file with a secret on one line.
#[derive(Debug, Clone)]
pub struct SecretFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The line.
    pub secret: SecretString,
}

/// A file with certificates in PEM format.
#[derive(Debug, Clone)]
pub struct PemFile {
    path: PathBuf,
    /// The content.
    pub pem: Vec<u8>,
}

/// A file with a link key: at least 64 hexadecimal digits.
#[derive(Debug, Clone)]
pub struct LinkKeyFile {
    path: PathBuf,
    /// The bytes of the key.
    pub secret: SecretSlice<u8>,
}

impl LinkKeyFile {
    /// The bytes of a key, from hexadecimal digits.
    pub(crate) fn decode(digits: &str) -> Option<SecretSlice<u8>> {
        let bytes = hex::decode(digits.trim()).ok().filter(|bytes| bytes.len() >= MIN_SECRET_BYTES)?;
        Some(SecretSlice::from(bytes))
    }
}

impl<'de> Deserialize<'de> for SecretFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = super::path::deserialize(deserializer)?;
        let shown = path.display();
        let text = fs::read_to_string(&path)
            .map_err(|error| D::Error::custom(format_args!("failed to read {shown}: {error}")))?;
        let line = text.trim_end_matches(['\n', '\r']);
        match line {
            "" => Err(D::Error::custom(format_args!("the file {shown} is empty"))),
            line if line.contains('\n') => {
                Err(D::Error::custom(format_args!("the file {shown} has more than one line")))
            }
            line => Ok(Self { secret: SecretString::from(line), path }),
        }
    }
}

impl<'de> Deserialize<'de> for PemFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = super::path::deserialize(deserializer)?;
        let shown = path.display();
        let pem = fs::read(&path)
            .map_err(|error| D::Error::custom(format_args!("failed to read {shown}: {error}")))?;
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(D::Error::custom(format_args!(
                "the file {shown} contains no certificate in PEM format"
            )));
        }
        Ok(Self { pem, path })
    }
}

impl<'de> Deserialize<'de> for LinkKeyFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let SecretFile { path, secret } = SecretFile::deserialize(deserializer)?;
        match Self::decode(secret.expose_secret()) {
            Some(secret) => Ok(Self { path, secret }),
            None => Err(D::Error::custom(format_args!("the file {} {}", path.display(), LINK_KEY_FORMAT))),
        }
    }
}

macro_rules! serialize_as_path {
    ($($file:ty),+) => {$(
        impl Serialize for $file {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                super::path::serialize(&self.path, serializer)
            }
        }
    )+};
}
serialize_as_path!(SecretFile, PemFile, LinkKeyFile);
