//! What passes between the processes of Tidegate: content links, signed requests and their client.

pub mod content_link;
