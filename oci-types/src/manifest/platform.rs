//! What an image runs on.

use std::{fmt, str::FromStr};

/// An operating system and an architecture (image-spec: "Image Index", `platform`), written `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// As Go names it (`GOOS`).
    pub os: String,
    /// As Go names it (`GOARCH`).
    pub architecture: String,
    /// The variant of the architecture, such as `v8`.
    pub variant: Option<String>,
}

/// The text is not `os/architecture` or `os/architecture/variant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a platform is written os/architecture or os/architecture/variant")]
pub struct PlatformError;

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(out, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let part = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            let valid = !part.is_empty() && part.len() <= 64 && part.bytes().all(allowed);
            if valid { Ok(part.to_owned()) } else { Err(PlatformError) }
        };
        let mut parts = text.splitn(3, '/');
        let os = part(parts.next().unwrap_or_default())?;
        let architecture = part(parts.next().unwrap_or_default())?;
        let variant = parts.next().map(part).transpose()?;
        Ok(Self { os, architecture, variant })
    }
}
