//! The protocols between the processes of Tidegate.
//!
//! registry-api sends a client to content-app with a [content link](content_link). Processes call the internal API of a
//! content node with [signed requests](signed_request); [`NodeClient`] is the client for it, [`FillStatus`] its answer.
//! Both services use these definitions, so that paths, headers and fields exist once.

pub mod content_link;
mod fill_status;
mod keys;
mod node_client;
mod signature;
pub mod signed_request;
#[cfg(test)]
mod tests;

pub use fill_status::{FillState, FillStatus};
pub use keys::{LinkKey, LinkKeyError, LinkKeys, MIN_SECRET_BYTES, is_key_id};
pub use node_client::{BlobPresence, FILLING_HEADER, NODE_HEADER, Node, NodeBody, NodeClient, NodeError};
pub use signature::SignatureError;
