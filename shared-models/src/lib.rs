//! The database of Tidegate: schema, migrations, connections, rows and queries.

pub mod db;
pub mod failure_edge;
pub mod migrate;
pub mod schema;
#[cfg(any(test, feature = "testing"))]
pub mod test_postgres;
#[cfg(any(test, feature = "testing"))]
pub mod test_seed;
pub mod touch_buffer;

pub use failure_edge::{Change, FailureEdge};
pub use touch_buffer::TouchBuffer;
