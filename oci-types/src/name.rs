//! Repository names, tags and references (distribution-spec: "Pulling manifests").

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    column::text_column,
    digest::{Digest, DigestError},
};

/// The maximum length of a repository name, in bytes. Clients and other registries have the same limit.
pub const MAX_NAME_LENGTH: usize = 255;

/// The maximum length of a tag, in bytes (distribution-spec: "Pulling manifests").
pub const MAX_TAG_LENGTH: usize = 128;

/// An invalid repository name, tag or reference. The message does not contain the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than [`MAX_NAME_LENGTH`].
    #[error("a repository name has at most {MAX_NAME_LENGTH} characters")]
    NameTooLong,
    /// A path component is empty, or has characters or separators that are not allowed.
    #[error(
        "a repository name has components of lower-case letters and digits, separated by '.', '_', '__' or dashes; '/' separates components"
    )]
    Name,
    /// Longer than [`MAX_TAG_LENGTH`], empty, or with characters that are not allowed.
    #[error(
        "a tag is at most {MAX_TAG_LENGTH} letters, digits, '_', '.' or '-', and begins with a letter, digit or '_'"
    )]
    Tag,
    /// The reference has a colon and is not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

macro_rules! checked_text {
    ($type:ident) => {
        impl $type {
            /// The value as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.0
            }
        }

        text_column!($type);
    };
}

/// A repository name such as `docker.io/library/alpine`: no registry host, no tag.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow), diesel(sql_type = diesel::sql_types::Text))]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryName(String);

checked_text!(RepositoryName);

impl RepositoryName {
    /// Parses a name by the grammar of distribution-spec, "Pulling manifests".
    ///
    /// # Errors
    /// [`NameError::NameTooLong`], [`NameError::Name`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME_LENGTH {
            return Err(NameError::NameTooLong);
        }
        if text.split('/').all(is_path_segment) { Ok(Self(text.to_owned())) } else { Err(NameError::Name) }
    }

    /// The path components, at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The rest of the name after the whole components of `prefix`, if there is one.
    pub fn strip_prefix(&self, prefix: &str) -> Option<Self> {
        if prefix.is_empty() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(prefix)?.strip_prefix('/')?;
        Some(Self(rest.to_owned()))
    }

    /// This name below `prefix`; unchanged for the empty prefix.
    ///
    /// # Errors
    /// As [`RepositoryName::parse`], when the two together are too long.
    pub fn below(&self, prefix: &str) -> Result<Self, NameError> {
        if prefix.is_empty() { Ok(self.clone()) } else { Self::parse(&format!("{prefix}/{}", self.0)) }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_segment(segment: &str) -> bool {
    let mut separator = String::new();
    let mut seen_letter = false;
    for character in segment.chars() {
        match character {
            'a'..='z' | '0'..='9' => {
                let allowed = matches!(separator.as_str(), "" | "." | "_" | "__")
                    || separator.chars().all(|part| part == '-');
                if !allowed {
                    return false;
                }
                separator.clear();
                seen_letter = true;
            }
            '.' | '_' | '-' if seen_letter => separator.push(character),
            _ => return false,
        }
    }
    seen_letter && separator.is_empty()
}

/// A tag: a mutable name of a manifest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow), diesel(sql_type = diesel::sql_types::Text))]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

checked_text!(Tag);

impl Tag {
    /// Parses `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    ///
    /// # Errors
    /// [`NameError::Tag`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let starts_well = text.bytes().next().is_some_and(word);
        let goes_on_well = text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
        if starts_well && goes_on_well && text.len() <= MAX_TAG_LENGTH {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Tag)
        }
    }
}

/// A reference to a manifest: a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A mutable name.
    Tag(Tag),
    /// The digest of the manifest.
    Digest(Digest),
}

impl Reference {
    /// Parses a digest if the text has a colon, otherwise a tag.
    ///
    /// # Errors
    /// [`NameError::Digest`], [`NameError::Tag`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.contains(':') {
            Ok(Self::Digest(Digest::parse(text)?))
        } else {
            Ok(Self::Tag(Tag::parse(text)?))
        }
    }

    /// The reference as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag.as_str(),
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_registries_use_are_accepted() {
        for name in ["a", "library/alpine", "docker.io/library/alpine", "a__b/c-d/e---f", "0/1.2_3"] {
            assert_eq!(RepositoryName::parse(name).unwrap().as_str(), name);
        }
        assert!(RepositoryName::parse(&"a".repeat(255)).is_ok());
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for name in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", "a b", "a/../b", "..",
            "a\0b", "ä", "a:b", "a%2fb",
        ] {
            assert_eq!(RepositoryName::parse(name), Err(NameError::Name), "{name:?}");
        }
        assert_eq!(RepositoryName::parse(&"a".repeat(256)), Err(NameError::NameTooLong));
    }

    #[test]
    fn a_prefix_is_whole_segments() {
        let name = RepositoryName::parse("cache/x/y").unwrap();
        assert_eq!(name.strip_prefix("cache").unwrap().as_str(), "x/y");
        assert_eq!(name.strip_prefix("cache/x").unwrap().as_str(), "y");
        assert_eq!(name.strip_prefix("").unwrap(), name);
        assert_eq!(name.strip_prefix("cac"), None);
        assert_eq!(name.strip_prefix("cache/x/y"), None);
        assert_eq!(name.below("p").unwrap().as_str(), "p/cache/x/y");
    }

    #[test]
    fn a_reference_with_a_colon_is_a_digest_or_nothing() {
        assert!(matches!(Reference::parse("latest"), Ok(Reference::Tag(_))));
        assert_eq!(Reference::parse("sha256:12"), Err(NameError::Digest(DigestError::Hex)));
        for tag in ["", ".a", "-a", "a/b", "a b", "a\0", &"a".repeat(129)] {
            assert_eq!(Reference::parse(tag), Err(NameError::Tag), "{tag:?}");
        }
        assert!(Tag::parse(&"a".repeat(128)).is_ok());
    }
}
