//! Background work: queued in the database, claimed once, retried with back-off.

pub(crate) mod complete_image;
pub(crate) mod runner;
