//! The database of Tidegate: schema, migrations, connections, rows and queries.

pub mod db;
pub mod migrate;
pub mod noted;
pub mod outage;
pub mod schema;
#[cfg(any(test, feature = "testing"))]
pub mod test_postgres;
#[cfg(any(test, feature = "testing"))]
pub mod test_seed;

pub use noted::Noted;
pub use outage::{Change, Outage};
