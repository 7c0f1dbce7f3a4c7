//! Every decision about pulling: which upstream, whether to ask it, what to make of the answer.

pub(crate) mod blob;
pub(crate) mod cache_status;
pub mod decide;
pub(crate) mod failure;
pub(crate) mod fetch;
pub(crate) mod flights;
pub(crate) mod manifest;
pub(crate) mod memory;
pub(crate) mod record;
pub(crate) mod resolve;
pub(crate) mod tag;
pub(crate) mod tag_list;
