//! Every decision about pulling: which upstream, whether to ask it, what to make of the answer.

pub(crate) mod blob;
pub(crate) mod decide;
pub(crate) mod failure;
pub(crate) mod fetch;
pub(crate) mod manifest;
pub(crate) mod tag;
pub(crate) mod tag_list;
