//! What is pulled from upstreams: tags, manifests, blobs, tag lists. `decide` has every decision; each of the others gathers
//! the facts for one table and acts on its decisions.

pub(crate) mod blob;
pub(crate) mod complete;
pub(crate) mod decide;
mod local_tag;
pub(crate) mod manifest;
pub(crate) mod referrers;
pub(crate) mod tag;
pub(crate) mod tag_list;

#[cfg(test)]
mod round_trips;
