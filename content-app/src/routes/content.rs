//! What the handlers of requests use.

use std::sync::Arc;

use crate::{fills::Fills, state::State};

/// What the handlers of requests use.
pub(crate) struct Content {
    pub(crate) state: Arc<State>,
    pub(crate) fills: Fills,
}
