//! The state of the request handlers.

use std::sync::Arc;

use crate::{fills::Fills, state::State};

/// The state of the request handlers.
pub(crate) struct Content {
    pub(crate) state: Arc<State>,
    pub(crate) fills: Fills,
}
