//! The one download of one blob, and everybody who waits for it.

mod bypass;
mod checkpoint;
mod download;
mod downloads;
mod error;
#[expect(clippy::module_inception, reason = "the fill itself, among what serves it")]
mod fill;
mod fills;
mod interest;
mod lease;
mod life;
mod map;
mod opening;
mod part;
mod progress;
mod reader;
mod rotation;
mod source;
mod supply;
mod verifier;
mod writer;

pub(crate) use bypass::Bypass;
pub use error::FillError;
pub use fill::Fill;
pub(crate) use fills::Context;
pub use fills::Fills;
pub(crate) use lease::Cluster;
pub(crate) use part::Part;
pub(crate) use progress::Phase;
pub(crate) use reader::Reader;
