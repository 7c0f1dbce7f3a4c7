//! A hasher for every supported digest algorithm, with a state that can be saved.

use serde::{Deserialize, Serialize};
use sha2::{
    Digest as _, Sha256, Sha512,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use crate::{Algorithm, Digest};

/// An incremental hash.
#[derive(Debug, Clone)]
pub struct Hasher(State);

#[derive(Debug, Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// The state of a [`Hasher`] between two updates, to continue the hash in another process.
///
/// The encoding is that of `sha2` 0.11. A state of another encoding is refused, and the bytes are hashed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HasherState {
    algorithm: String,
    /// Hexadecimal.
    state: String,
}

/// The saved state is not one of a known algorithm and encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid saved hasher state")]
pub struct HasherStateError;

impl Hasher {
    /// A hasher without input.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Appends bytes to the input.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of the input.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hash) => Digest::from_hash(Algorithm::Sha256, &hash.finalize()),
            State::Sha512(hash) => Digest::from_hash(Algorithm::Sha512, &hash.finalize()),
        }
    }

    /// The state after the bytes added so far.
    pub fn save(&self) -> HasherState {
        let (algorithm, state) = match &self.0 {
            State::Sha256(hash) => (Algorithm::Sha256, hex::encode(hash.serialize())),
            State::Sha512(hash) => (Algorithm::Sha512, hex::encode(hash.serialize())),
        };
        HasherState { algorithm: algorithm.as_str().to_owned(), state }
    }

    /// The hasher in a saved state.
    ///
    /// # Errors
    /// [`HasherStateError`] for a state of another encoding.
    pub fn restore(saved: &HasherState) -> Result<Self, HasherStateError> {
        let bytes = hex::decode(&saved.state).map_err(|_| HasherStateError)?;
        Ok(Self(match saved.algorithm.as_str() {
            "sha256" => State::Sha256(deserialize(&bytes)?),
            "sha512" => State::Sha512(deserialize(&bytes)?),
            _ => return Err(HasherStateError),
        }))
    }
}

fn deserialize<H: SerializableState>(bytes: &[u8]) -> Result<H, HasherStateError> {
    let state = SerializedState::<H>::try_from(bytes).map_err(|_| HasherStateError)?;
    H::deserialize(&state).map_err(|_| HasherStateError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_hasher_continues_where_it_was_saved() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for split in [0, 1, 63, 64, 65, 127, 128, 500, 1000] {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&bytes[..split]);
                let json = serde_json::to_string(&hasher.save()).unwrap();
                let mut restored = Hasher::restore(&serde_json::from_str(&json).unwrap()).unwrap();
                restored.update(&bytes[split..]);
                assert_eq!(restored.finish(), Digest::of(algorithm, &bytes));
            }
        }
    }

    #[test]
    fn a_state_saved_by_an_earlier_version_is_restored() {
        // Saved after "abc" by sha2 0.11.
        let saved = r#"{"algorithm":"sha256","state":"67e6096a85ae67bb72f36e3c3af54fa57f520e518c68059babd9831f19cde05b000000000000000003616263000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"}"#;
        let mut hasher = Hasher::restore(&serde_json::from_str(saved).unwrap()).unwrap();
        hasher.update(b"def");
        assert_eq!(hasher.finish(), Digest::sha256(b"abcdef"));
    }

    #[test]
    fn a_state_of_another_encoding_is_refused() {
        let saved = Hasher::new(Algorithm::Sha256).save();
        let with = |algorithm: &str, state: &str| HasherState {
            algorithm: algorithm.to_owned(),
            state: state.to_owned(),
        };
        for state in [
            with("sha512", &saved.state),
            with("md5", &saved.state),
            with("sha256", ""),
            with("sha256", "xyz"),
            with("sha256", &saved.state[2..]),
            with("sha256", &"ff".repeat(saved.state.len() / 2)),
        ] {
            assert_eq!(Hasher::restore(&state).unwrap_err(), HasherStateError, "{state:?}");
        }
    }
}
