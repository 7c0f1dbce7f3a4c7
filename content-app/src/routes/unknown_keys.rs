//! One log line for each unknown key id.

use std::collections::HashSet;

use internal_api::SignatureError;
use parking_lot::Mutex;

/// Maximum number of key ids that are logged: anyone can send more.
const MAX_IDS: usize = 16;

/// The key ids that were logged as unknown.
#[derive(Default)]
pub(crate) struct UnknownKeys(Mutex<HashSet<String>>);

impl UnknownKeys {
    /// Logs the first occurrence of an unknown key id.
    pub(super) fn note(&self, error: &SignatureError) {
        let SignatureError::UnknownKey { id } = error else { return };
        let mut logged = self.0.lock();
        if logged.len() < MAX_IDS && logged.insert(id.clone()) {
            tracing::warn!(
                key = id,
                "refused a link of an unknown key: processes behind one address need the same content.link_keys"
            );
        }
    }
}
