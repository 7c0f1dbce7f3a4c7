//! The state of the request handlers.

use std::sync::Arc;

use super::unknown_keys::UnknownKeys;
use crate::{fills::Fills, state::State};

/// The state of the request handlers.
pub(crate) struct Content {
    pub(crate) state: Arc<State>,
    pub(crate) fills: Fills,
    pub(super) unknown_keys: UnknownKeys,
}

impl Content {
    pub(crate) fn new(state: Arc<State>, fills: Fills) -> Self {
        Self { state, fills, unknown_keys: UnknownKeys::default() }
    }
}
