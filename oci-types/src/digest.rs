//! Content digests (image-spec: descriptor, "Digests").

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Hasher;

/// A hash algorithm of a digest. Both are registered by the image specification; others are not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// 32 bytes, 64 hexadecimal digits.
    Sha256,
    /// 64 bytes, 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest, `algorithm:hex`: a supported algorithm and exactly its number of lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow), diesel(sql_type = diesel::sql_types::Text))]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    text: String,
    algorithm: Algorithm,
}

/// An invalid digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon.
    #[error("a digest has the form algorithm:hex")]
    Form,
    /// The algorithm is neither sha256 nor sha512.
    #[error("the digest algorithm is not sha256 or sha512")]
    Algorithm,
    /// The length does not match the algorithm, or a character is not a lower-case hexadecimal digit.
    #[error("the digest does not have the number of lower-case hexadecimal digits of its algorithm")]
    Hex,
}

impl Digest {
    /// Parses `algorithm:hex`.
    ///
    /// # Errors
    /// [`DigestError`]. Its message does not contain the input.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::Form)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::Algorithm),
        };
        let lower_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != algorithm.hex_digits() || !lower_hex {
            return Err(DigestError::Hex);
        }
        Ok(Self { text: text.to_owned(), algorithm })
    }

    /// The digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The SHA-256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, bytes)
    }

    /// Whether `bytes` hash to this digest.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        Self::of(self.algorithm, bytes) == *self
    }

    /// Whether content with this digest can be `size` bytes long: only the digest of no bytes admits 0.
    ///
    /// A size that a manifest or a registry states is a hint. A false 0 would make a blob complete before its first byte.
    pub fn admits_size(&self, size: u64) -> bool {
        size > 0 || self.matches(b"")
    }

    pub(crate) fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        Self { text: format!("{}:{}", algorithm.as_str(), hex::encode(hash)), algorithm }
    }

    /// The digest as text, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The algorithm before the colon.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal digits after the colon.
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, hex)| hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.text
    }
}

crate::column::text_column!(Digest);

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_of_bytes_is_the_digest_that_parses() {
        assert_eq!(Digest::parse(EMPTY).unwrap(), Digest::sha256(b""));
        assert!(Digest::parse(EMPTY).unwrap().matches(b""));
        let long = Digest::of(Algorithm::Sha512, b"x");
        assert_eq!(Digest::parse(long.as_str()).unwrap(), long);
        assert_eq!(long.hex().len(), 128);
    }

    #[test]
    fn only_the_digests_of_no_bytes_admit_size_zero() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let (empty, other) = (Digest::of(algorithm, b""), Digest::of(algorithm, b"x"));
            assert!(empty.admits_size(0));
            assert!(!other.admits_size(0));
            assert!(other.admits_size(1));
        }
    }

    #[test]
    fn what_is_not_a_digest_is_refused_with_the_reason() {
        let upper = EMPTY.to_uppercase().replace("SHA256", "sha256");
        for (text, error) in [
            ("", DigestError::Form),
            ("e3b0c442", DigestError::Form),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", DigestError::Algorithm),
            ("sha256:", DigestError::Hex),
            ("sha256:e3b0", DigestError::Hex),
            (upper.as_str(), DigestError::Hex),
            (&EMPTY.replace("sha256", "sha512"), DigestError::Hex),
            (&format!("{EMPTY}0"), DigestError::Hex),
            (&EMPTY.replace("55", "5\0"), DigestError::Hex),
        ] {
            assert_eq!(Digest::parse(text), Err(error), "{text:?}");
        }
    }

    /// The examples of FIPS 180-4 and of the empty message.
    #[test]
    fn digests_have_the_values_of_the_standard() {
        for (algorithm, message, hex) in [
            (Algorithm::Sha256, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (Algorithm::Sha256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                Algorithm::Sha512,
                "",
                "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                 47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
            ),
            (
                Algorithm::Sha512,
                "abc",
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            let mut hasher = crate::Hasher::new(algorithm);
            hasher.update(message.as_bytes());
            let digest = hasher.finish();
            assert_eq!(digest.as_str(), format!("{}:{hex}", algorithm.as_str()));
            assert_eq!(Digest::parse(digest.as_str()), Ok(digest));
        }
    }
}
