//! The one download of one blob, and everybody who waits for it.

mod bypass;
mod checkpoint;
mod choice;
mod download;
mod driver;
mod error;
mod fill;
mod interest;
mod lease;
mod life;
mod opening;
mod plan;
mod progress;
mod read_mode;
mod reader;
mod registry;
mod scheduler;
mod source;
mod sources;
mod verifier;

pub(crate) use bypass::Bypass;
pub use error::FillError;
pub use fill::Fill;
pub(crate) use lease::Cluster;
pub(crate) use progress::Phase;
pub(crate) use read_mode::Part;
pub(crate) use reader::Reader;
pub(crate) use registry::Context;
pub use registry::Fills;
