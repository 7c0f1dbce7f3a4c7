//! The routes of a content node.

pub(crate) mod blobs;
pub(crate) mod fills;
pub(crate) mod peers;
